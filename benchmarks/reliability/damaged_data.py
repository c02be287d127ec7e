"""Damaged TFRecord files of images and videos: `python -m benchmarks.reliability.damaged_data`."""

import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.reliability import damaged_shards
from benchmarks.reliability import part
from benchmarks.reliability import small_runs
from benchmarks.reliability.damaged_shards import Damage
from trainers.data.datasets.tfds import import_tfds
from trainers.data.decode_errors import explain_data_failures
from trainers.data.preprocessing.decoding import decode_image
from trainers.data.records.manifest import shard_name
from trainers.data.sources import make_source
from trainers.utils.errors import DataError
from trainers.utils.reporting import read_metrics

SHARDS = 100
RECORDS = 4  # of each file
CLASSES = 4
SIDE = 16
SPLITS = ("train", "validation")

_CONFIG = """
from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.batch_size = 20
    config.total_steps = 60  # three epochs
    config.log_steps = 20
    config.model = {model!r}
    config.data = {{"source": {source!r}, "data_dir": {folder!r}}}
    {more}
    return config
"""


def _write_images(folder: Path) -> None:
    """Writes a data set `small_images` by TFDS itself."""
    tfds = import_tfds()

    class SmallImages(  # type: ignore[call-arg]
        tfds.core.GeneratorBasedBuilder,  # type: ignore[name-defined]
        skip_registration=True,
    ):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = Path(__file__).parent
        code_path = Path(__file__)
        name = "small_images"

        def _info(self) -> Any:
            image = tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png")
            label = tfds.features.ClassLabel(num_classes=CLASSES)
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, dl_manager: object) -> dict[str, Any]:
            # Without a test split, TFDS's validation split would be it.
            return {split: self._generate_examples() for split in (*SPLITS, "test")}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            for number in range(SHARDS * RECORDS):
                yield number, {"image": _pixels(number), "label": number % CLASSES}

    options = tfds.download.DownloadConfig(num_shards=SHARDS)
    SmallImages(data_dir=str(folder)).download_and_prepare(download_config=options)


def _write_videos(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in "abcd"))
    description = {"multi_label": False, "num_classes": CLASSES}
    (folder / "dataset.json").write_text(json.dumps(description))
    for split in SPLITS:
        for shard in range(SHARDS):
            payload = b"".join(
                damaged_shards.frame(_video(shard * RECORDS + each)) for each in range(RECORDS)
            )
            (folder / shard_name(split, shard, SHARDS)).write_bytes(payload)


def _shards_of(folder: Path, split: str) -> list[Path]:
    return sorted(path for path in folder.rglob(f"*{split}.tfrecord-*"))


def _pixels(number: int) -> Any:
    return np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)


def _video(number: int) -> bytes:
    example = tf.train.SequenceExample()
    context = example.context.feature
    context["clip/label/index"].int64_list.value.append(number % CLASSES)
    context["video/filename"].bytes_list.value.append(b"%d.mp4" % number)
    frames = example.feature_lists.feature_list["image/encoded"]
    encoded = tf.io.encode_png(_pixels(number)).numpy()
    for _ in range(2):
        frames.feature.add().bytes_list.value.append(encoded)
    content: bytes = example.SerializeToString(deterministic=True)
    return content


_IMAGE_MODEL = {
    "name": "vit_ti4_d1_tl2at0", "image_size": SIDE, "width": 16, "num_heads": 2,
    "mlp_dim": 32,
}  # fmt: skip
_VIDEO_MODEL = {**_IMAGE_MODEL, "name": "vivit_ti8x2_d1_tl2at0", "num_frames": 2}
KINDS = {
    "images": (
        _write_images,
        "tfds:small_images",
        damaged_shards.OF_IMAGES,
        _IMAGE_MODEL,
        'config.augmentation = {"crop": "none", "flip": False}',
    ),
    "videos": (
        _write_videos,
        "records",
        damaged_shards.OF_VIDEOS,
        _VIDEO_MODEL,
        f'config.video = {{"stride": 1, "min_resize": {SIDE}}}',
    ),
}


def measure(workdir: Path, kinds: Iterable[str] = KINDS) -> Iterator[part.Row]:
    """Yields three rows for each kind of data: images and videos."""
    for kind in kinds:
        write, source, damages, model, more = KINDS[kind]
        folder = workdir / kind
        shutil.rmtree(folder, ignore_errors=True)
        write(folder / "data")
        yield _default(kind, source, folder / "data", damages)
        config = folder / "config.py"
        values = {"model": model, "source": source, "folder": str(folder / "data"), "more": more}
        config.write_text(_CONFIG.format(**values))
        yield from _with_limit(kind, folder, config, damages)


def _default(kind: str, source: str, folder: Path, damages: dict[str, Damage]) -> part.Row:
    """Meets each damage alone."""
    held, records = 0, RECORDS
    generator = random.Random(0)
    used: Counter[str] = Counter()
    for shard, path in enumerate(_shards_of(folder, "train")):
        name = generator.choice(list(damages))
        used[name] += 1
        original = path.read_bytes()
        number = generator.randrange(records)
        whole = damaged_shards.records_of(original)
        path.write_bytes(damages[name](whole, number, generator).payload)
        message = _failure(source, folder, range(shard * records, (shard + 1) * records))
        path.write_bytes(original)
        place = r"at byte \d+|ends at byte \d+|has \d+ records"
        is_fine = path.name in message and bool(re.search(place, message))
        held += is_fine
        if not is_fine:
            print(f"{kind}, {name}: {message or 'no failure'}", flush=True)
    figures = ", ".join(f"{name}: {count}" for name, count in sorted(used.items()))
    return part.Row(
        f"{kind}: one of {SHARDS} files damaged at random: reading stops, and names "
        "the file, the byte (or how many records are missing) and the reason",
        SHARDS,
        held,
        figures,
    )


def _failure(name: str, folder: Path, indices: range) -> str:
    """Reads examples as the trainer does, and returns what it says of the first bad one."""
    try:
        source = make_source(name, "train", str(folder))
        for index in indices:
            with explain_data_failures(source, partial(range, index, index + 1)):
                example = source.load(tf.constant(index, tf.int64))
                frames = example["frames"] if "frames" in example else [example["encoded"]]
                for each in frames:
                    decode_image({"encoded": each})
    except DataError as error:
        return str(error)
    return ""


def _with_limit(
    kind: str, folder: Path, config: Path, damages: dict[str, Damage]
) -> Iterator[part.Row]:
    """Damages all files, and trains on what is left."""
    bad, lost = {}, {}
    generator = random.Random(1)
    for split in SPLITS:
        bad[split], lost[split] = 0, 0
        for path in _shards_of(folder / "data", split):
            name = generator.choice(list(damages))
            whole = damaged_shards.records_of(path.read_bytes())
            number = generator.randrange(RECORDS)
            damaged = damages[name](whole, number, generator)
            path.write_bytes(damaged.payload)
            lost[split] += len(damaged.lost)
            # A stretch that is lost counts as one video.
            bad[split] += len(damaged.lost) if kind == "images" else 1
    limit = max(bad.values())
    allow = "--config.data.max_bad_examples={}"
    done = small_runs.train(folder / "run", allow.format(limit), total_steps=60, config=config)
    rows = read_metrics(folder / "run" / "metrics.jsonl")
    total = SHARDS * RECORDS
    expected = total - lost["validation"]
    evaluated = {row["num_examples"] for row in rows if row["split"] == "validation"}
    counted = [row["bad_examples"] for row in rows if row["split"] == "train"]
    listed = Counter(
        json.loads(line)["source"].rpartition("/")[2]
        for line in (folder / "run" / "bad_examples.jsonl").read_text().splitlines()
    )
    checks = {
        f"status {done.returncode} {done.stderr[-500:]}": done.returncode == 0,
        f"evaluated {evaluated}, expected {expected}": evaluated == {expected},
        f"counted {counted}, expected {bad['train']}": counted[-1:] == [bad["train"]],
        f"listed {listed}, expected {bad}": listed == bad,
    }
    part.all_hold(checks)
    yield part.Row(
        f"{kind}: all {SHARDS} files of each split damaged, and a limit: the training "
        "ends, evaluates every whole record, and counts and lists the others",
        len(checks),
        sum(checks.values()),
        f"{lost['train'] + lost['validation']} of {2 * total} records lost, "
        f"{bad['train'] + bad['validation']} counted",
    )
    less = allow.format(bad["train"] // 2)
    done = small_runs.train(folder / "less", less, total_steps=60, config=config)
    lines = small_runs.error_lines(done)
    says_so = len(lines) == 1 and "data.max_bad_examples" in lines[0]
    yield part.Row(
        f"{kind}: the same, and a limit of half as many: the training stops with one line",
        1,
        int(done.returncode == 1 and says_so and "Traceback" not in done.stderr),
    )


if __name__ == "__main__":
    part.run("damaged_data", measure)
