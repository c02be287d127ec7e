"""ImageNet at 512 pixels from a public ViT-L/16: 16 tokens from the middle on.

    WEIGHTS=$(python -c \\
        'import tokenlearner_keras as tk; print(tk.download_weights("vit_l16_augreg_in21k"))')
    python -m trainers.train --config=trainers/configs/imagenet_finetune_512.py \\
        --config.init_from=$WEIGHTS --workdir=DIR --engine=jax --strategy=tpu

Hardware: v5e:2x2 or v6e:2x2, 4 chips with 128 images each; attention by the TPU's kernel
(docs/tpu.md; `trainers.tpu_check --engine=jax` says whether it fits). TensorFlow has no such
kernel: v5e:8x8.
Expected result: unknown; not measured by us. Do not expect the paper's 87.68 for this model
(Table 5), for the reasons that `imagenet_finetune_384.py` gives.

As `imagenet_finetune_384.py`, with averaged weights, as the first Vision Transformers at
this size, and with blocks that compute their activations twice to fit into memory.
"""

from ml_collections import ConfigDict

from trainers.configs import imagenet_finetune_384


def get_config() -> ConfigDict:
    config = imagenet_finetune_384.get_config()
    config.ema_decay = 0.9999
    config.model.name = "vit_l16_tl16at12_v10"
    config.model.image_size = 512
    config.model.remat = True
    return config
