"""ImageNet from scratch with today's regularisation: ViT-B/16, 16 tokens before block 9.

    python -m trainers.train --config=trainers/configs/imagenet_modern.py --workdir=DIR \\
        --engine=jax --strategy=tpu

Hardware: v5e:2x4, 8 chips with 512 images each; attention in its plain form, for 196 tokens
(docs/tpu.md; `trainers.tpu_check --engine=jax` says whether it fits). TensorFlow: v5e:4x4.
Data: TFDS imagenet2012 (docs/recipes.md). One per cent of the train split is kept to choose
by; TFDS's validation split is evaluated once, at the end.
Expected result: unknown; not measured by us, and nobody has published this combination.

`imagenet_vit_b16_tl.py` with RandAugment, mixup, label smoothing, dropout and a stochastic
depth that is applied, softmax loss, cosine schedule, inputs in [-1, 1], averaged weights, and
300 epochs. The values follow scenic's `imagenet_augreg_vit_config.py`, whose models have no
TokenLearner; label smoothing and averaging are our choice.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.topology = "v5e:2x4"
    config.batch_size = 4096
    config.total_epochs = 300.0
    config.warmup_steps = 10_000
    config.log_steps = 100
    config.eval_epochs = 10.0
    config.checkpoint_steps = 1_000
    config.dtype_policy = "mixed_bfloat16"
    config.label_smoothing = 0.1
    config.ema_decay = 0.9999
    config.keep_best_metric = "accuracy"
    config.model = {
        "name": "vit_b16_tl16at9",
        "image_size": 224,
        "classifier": "gap",
        "head_bias": -6.9,
        "dropout": 0.1,
        "stochastic_depth": 0.1,
    }
    config.data = {
        "source": "tfds:imagenet2012",
        "final_split": "test",  # TFDS's validation split: the test set has no labels
        "normalization": "unit",
        "mixup_alpha": 0.5,
    }
    config.augmentation = {
        "crop": "inception",
        "flip": True,
        "randaugment_layers": 2,
        "randaugment_magnitude": 15.0,
        "eval_crop_fraction": 0.875,
    }
    config.optimizer = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "weight_decay": 0.1,
        "weight_decay_mask": "kernels",
        "global_clipnorm": 1.0,
    }
    return config
