"""Real photographs: solar cells, functional or defective, mono- or polycrystalline.

    pip install elpv-dataset
    python -m trainers.train --config=trainers/configs/elpv.py --workdir=DIR

2,624 grey photographs of 300x300 pixels (data CC BY-NC-SA 4.0, not for commercial use),
four classes, shown at 96x96. Split by blocks of the file order, because cells of one
module resemble each other. The majority class has 0.40; from scratch a model of this size
overfits, so this is a real task to work on, not a showpiece.
Hardware: any CPU; about six minutes on two cores.
Expected result: test accuracy of one run 0.671 (validation 0.721).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.batch_size = 64
    config.total_epochs = 40.0
    config.warmup_percent = 5.0
    config.eval_percent = 20.0
    config.steps_per_loop = 10
    config.label_smoothing = 0.1
    config.model = {
        "name": "vit_ti8_d6_tl8at2",
        "image_size": 96,
        "width": 96,
        "num_heads": 3,
        "mlp_dim": 288,
        "dropout": 0.1,
    }
    config.data = {"source": "elpv", "final_split": "test"}
    config.augmentation = {"crop": "inception", "crop_area": (0.5, 1.0), "eval_crop_fraction": 1.0}
    config.optimizer = {"learning_rate": 1e-3, "weight_decay": 0.1}
    return config
