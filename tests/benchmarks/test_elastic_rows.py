"""The benchmark of elastic models, on a model that is not trained."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tokenlearner_keras as tk
from benchmarks import demo_accuracy
from benchmarks import elastic
from benchmarks import timing
from tests.helpers.small_models import small_model
from trainers.data.freedoom import dataset
from trainers.data.preprocessing.normalization import normalize


@pytest.mark.slow
def test_every_model_is_tested_with_every_number_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (20, 8, 8, 3)).astype("uint8")
    labels = generator.integers(0, 5, 20)
    trained = {}

    def train(config: str, seed: str, overrides: dict[str, str], workdir: Path) -> None:
        """Checks the overrides as the trainer would, and saves a small model of that name."""
        assert config == "demo" and overrides["total_steps"] == "7"
        elastic_model = "elastic" in workdir.name
        assert overrides.get("model.elastic_tokens") == ("(4, 8, 16)" if elastic_model else None)
        workdir.mkdir()
        model = small_model(overrides["model.name"], image_size=8, patch_size=2)
        model.save(workdir / "model.keras")
        trained[workdir.name] = model

    monkeypatch.setattr(demo_accuracy, "train", train)
    monkeypatch.setattr(
        dataset, "load_freedoom_objects", lambda _: SimpleNamespace(images=images, labels=labels)
    )
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    monkeypatch.setattr(elastic, "TESTED", (2, 8, 16))
    rows = elastic.results("3", 7, tmp_path)
    assert [(row["trained_with"], row["num_tokens"]) for row in rows] == [
        *(("4 8 16", number) for number in (2, 8, 16)),
        ("4", 2),
        *(("8", number) for number in (2, 8)),
        *(("16", number) for number in (2, 8, 16)),
    ]
    macs = [row["macs"] for row in rows[:3]]
    assert macs == sorted(set(macs))
    assert len(trained) == 4 and "vit_ti8_d4_tl16at1_elastic_7_steps_seed3" in trained
    model = trained["vit_ti8_d4_tl8at1_7_steps_seed3"]
    classes = np.asarray(model(np.asarray(normalize(images, "unit")))).argmax(axis=-1)
    (whole,) = (row for row in rows if row["trained_with"] == "8" and row["num_tokens"] == 8)
    assert whole["test_accuracy"] == round(float((classes == labels).mean()), 4)
    assert whole["macs"] == tk.count_macs(model)
    timing.write_csv("elastic", rows)
    assert len(timing.read_csv("elastic", tmp_path)) == 9
