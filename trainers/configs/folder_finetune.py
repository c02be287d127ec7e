"""Some hundred or thousand photographs in a folder, from a public ViT-S/16: 8 tokens.

    WEIGHTS=$(python -c \\
        'import tokenlearner_keras as tk; print(tk.download_weights("vit_s16_augreg_in21k"))')
    python -m trainers.train --config=trainers/configs/folder_finetune.py \\
        --config.data.data_dir=DATA --config.init_from=$WEIGHTS --workdir=DIR

Data: DATA/CLASS/*.jpg, or DATA/{train,validation,test}/CLASS/*.jpg; what to look at before
the first run is in docs/folder.md.
Hardware: one GPU; on a CPU a step takes seconds.
Expected result: unknown; not measured by us, and it depends on the photographs. Compare it
with the share of the largest class.

224 pixels, as the weights. TokenLearner and the head start fresh between trained blocks and
share one learning rate with them.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.batch_size = 32
    config.total_epochs = 30.0
    config.warmup_percent = 10.0
    config.eval_percent = 10.0
    config.checkpoint_percent = 10.0
    config.steps_per_loop = 10
    config.keep_best_metric = "accuracy"
    config.label_smoothing = 0.1
    config.model = {
        "name": "vit_s16_tl8at6",
        "image_size": 224,
        "classifier": "token",  # as the public weights
    }
    config.data = {
        "source": "folder",
        "final_split": "test",
        "normalization": "unit",  # as the public weights
        "exif_orientation": True,
    }
    config.augmentation = {"crop": "inception", "crop_area": (0.5, 1.0), "flip": True}
    config.optimizer = {"learning_rate": 1e-4, "schedule": "cosine", "weight_decay": 0.01}
    return config
