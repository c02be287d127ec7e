"""The committed rows of the demo's family, beside the models that their names stand for today."""

import tokenlearner_keras as tk
from benchmarks.timing import read_csv
from tokenlearner_keras.graph import without_weights

#: What `trainers/configs/demo.py` sets.
DEMO = {"num_classes": 20, "image_size": 64, "width": 64, "num_heads": 2, "mlp_dim": 192}


def test_costs_are_those_of_the_models() -> None:
    """Of the PatchMerger too, whose rows are older than its name."""
    rows = {row["name"]: row for row in read_csv("demo_family")}
    assert "vit_ti8_d4_pm8at1" in rows
    for name, row in rows.items():
        with without_weights():
            model = tk.create_model(name.replace("_pm8at1", "_tl8at1_pm"), **DEMO)
            assert tk.count_macs(model) == int(row["macs"]), name
            assert model.count_params() == int(row["parameters"]), name
