"""Kinetics-600 with the paper's best model: L/10, 35 blocks, 16 tokens from 18 on, TokenFuser.

    python -m trainers.train --config=trainers/configs/kinetics600_tl16at18_fuser_l10.py \\
        --config.data.data_dir=RECORDS --config.init_from=WEIGHTS --workdir=DIR \\
        --engine=jax --strategy=tpu

Hardware: v5e:2x4, 8 chips with 8 clips each, or v6e:2x2; attention by the TPU's kernel
(docs/tpu.md; `trainers.tpu_check --engine=jax --num_classes=600` says whether it fits). v5e:2x2
with --config.gradient_accumulation_steps=2. TensorFlow has no such kernel: v5e:8x8.
Expected result: unknown; not measured by us. The paper's 86.3 (Table 8, 4 x 3 views) started
from the authors' own image model, pre-trained on JFT-300M. Do not expect that figure.

All else is as in `kinetics400_tl16at18_l10.py`, with records of Kinetics-600. The fuser is the
paper's: a linear mask, and tokens mixed over all frames (its text; the reference's code mixes
those of each frame). No image model has that matrix, so WEIGHTS is one without fusers,
`vit_l10_d35_tl16at18_v10`: the first TokenLearner is copied, the 16 others and the fusers
start fresh.
"""

from ml_collections import ConfigDict

from trainers.configs import kinetics400_tl16at18_l10


def get_config() -> ConfigDict:
    config = kinetics400_tl16at18_l10.get_config()
    config.model.name = "vivit_l10x2_d35_tl16at18_v10_fuser_linear"
    config.model.fuser_mixing = "video"
    with config.ignore_type():
        config.model.remat = True  # with what the kernel returns it would not fit
    return config
