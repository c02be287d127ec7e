"""ImageNet at 384 pixels from a public ViT-B/16: 8 tokens from the middle on.

    WEIGHTS=$(python -c \\
        'import tokenlearner_keras as tk; print(tk.download_weights("vit_b16_augreg_in21k"))')
    python -m trainers.train --config=trainers/configs/imagenet_finetune_384.py \\
        --config.init_from=$WEIGHTS --workdir=DIR --engine=jax --strategy=tpu

Hardware: v5e:2x2 or v6e:2x2, 4 chips with 128 images each; attention by the TPU's kernel
(docs/tpu.md; `trainers.tpu_check --engine=jax` says whether it fits). TensorFlow has no such
kernel: v5e:2x4.
Data: TFDS imagenet2012, imagenet2012_real and imagenet_v2 (docs/recipes.md).
Expected result: unknown; not measured by us. The paper's 83.2 for this model (Table 4) was
fine-tuned from the authors' own model, pre-trained with its TokenLearner on JFT-300M; here
TokenLearner starts fresh between trained blocks, and the authors found that this does not
help. Do not expect that figure.

The settings are those that fine-tuned the first Vision Transformers on ImageNet: SGD,
20,000 steps of 512 images. The weights that start fresh and those that do not share one
learning rate. Other public weights of a ViT-B/16 do as well, also from 224 or 384 pixels:
the positions are resized.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.batch_size = 512
    config.total_steps = 20_000
    config.warmup_steps = 500
    config.log_steps = 100
    config.eval_steps = 2_000
    config.checkpoint_steps = 1_000
    config.dtype_policy = "mixed_bfloat16"
    config.model = {
        "name": "vit_b16_tl8at6_v10",
        "image_size": 384,
        "classifier": "token",  # as the public weights
    }
    config.data = {
        "source": "tfds:imagenet2012",
        "train_split": "whole_train",
        "eval_split": "test",  # TFDS's validation split: the test set has no labels
        "eval_sets": (
            "real=tfds:imagenet2012_real:test",
            "v2=tfds:imagenet_v2/matched-frequency:test",
        ),
        "normalization": "unit",
    }
    config.augmentation = {"crop": "inception", "flip": True, "eval_crop_fraction": 1.0}
    config.optimizer = {
        "name": "sgd",
        "learning_rate": 0.03,
        "schedule": "cosine",
        "momentum": 0.9,
        "weight_decay": 0.0,
        "global_clipnorm": 1.0,
    }
    return config
