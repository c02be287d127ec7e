"""Kinetics-400 with the paper's best model: ViViT-L/10 x 2, 35 blocks, 16 tokens from 18 on.

    python -m trainers.train --config=trainers/configs/kinetics400_tl16at18_l10.py \\
        --config.data.data_dir=RECORDS --config.init_from=WEIGHTS --workdir=DIR \\
        --engine=jax --strategy=tpu

Hardware: v5e:2x4, 8 chips with 8 clips each, or v6e:2x2; attention by the TPU's kernel
(docs/tpu.md; `trainers.tpu_check --engine=jax --num_classes=400` says whether it fits). v5e:2x2
with --config.model.remat=true --config.gradient_accumulation_steps=2. TensorFlow has no such
kernel: v5e:8x8.
Expected result: unknown; not measured by us. The paper's 85.4 (Table 7, 4 x 3 views) started
from the authors' own L/10 image model, pre-trained on JFT-300M. No public weights have these
patches and 35 blocks: WEIGHTS is the work directory of a `vit_l10_d35_tl16at18_v10` that you
trained on images (docs/video.md). Do not expect that figure.

All else is as in `kinetics400_tl16at12_l16.py`, also what is ours. What the attention kernel
returns is kept, the other activations of a block are computed a second time.
"""

from ml_collections import ConfigDict

from trainers.configs import kinetics400_tl16at12_l16


def get_config() -> ConfigDict:
    config = kinetics400_tl16at12_l16.get_config()
    config.topology = "v5e:2x4"
    config.model.name = "vivit_l10x2_d35_tl16at18_v10"
    config.model.remat = "all_but_attention"
    return config
