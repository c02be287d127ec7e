"""ImageNet from scratch as the authors published it: ViT-B/16, 16 tokens before block 9.

    python -m trainers.train --config=trainers/configs/imagenet_vit_b16_tl.py --workdir=DIR \\
        --engine=jax --strategy=tpu

Hardware: v5e:2x4, 8 chips with 512 images each, or v6e:2x2; attention in its plain form, for 196
tokens (docs/tpu.md; `trainers.tpu_check --engine=jax` says whether it fits). TensorFlow: v5e:4x4.
Data: TFDS imagenet2012 (docs/recipes.md), trained on its whole train split.
Expected result: unknown. No accuracy was ever published for this recipe, and none has been
measured by us.

The settings are those of `configs/im1k_token_learner_config.py` of scenic's
`projects/token_learner`: 90 epochs of 312 steps, sigmoid loss, decoupled weight decay on
every parameter. It names a stochastic depth of 0.1 that its model never reads, so the rate
is 0 here; `imagenet_modern.py` has one that works. Its loss starts from a head bias of -10.
The reference trains in float32. The size of the batch belongs to the recipe: on fewer chips
keep it, and raise --config.gradient_accumulation_steps.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.topology = "v5e:2x4"
    config.seed = 42
    config.batch_size = 4096
    config.total_steps = 90 * 312
    config.warmup_steps = 10_000
    config.log_steps = 100
    config.eval_steps = 1_000
    config.checkpoint_steps = 5_000
    config.loss = "sigmoid"
    config.model = {
        "name": "vit_b16_tl16at9",
        "image_size": 224,
        "classifier": "gap",
        "head_bias": -10.0,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "stochastic_depth": 0.0,
    }
    config.data = {
        "source": "tfds:imagenet2012",
        "train_split": "whole_train",
        "eval_split": "test",  # TFDS's validation split: the test set has no labels
        "normalization": "imagenet",
    }
    config.augmentation = {
        "crop": "inception",
        "crop_area": (0.08, 1.0),
        "flip": True,
        "interpolation": "bicubic",
        "eval_crop_fraction": 0.875,
    }
    config.optimizer = {
        "name": "adamw",
        "learning_rate": 5e-3,
        "end_learning_rate": 1e-5,
        "schedule": "linear",
        "weight_decay": 0.3,
        "weight_decay_mask": "all",
        "global_clipnorm": 1.0,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
    }
    return config
