"""Damaged files of data: `python -m benchmarks.reliability.damaged_data`.

Every one of 100 TFRecord files of a split is damaged at random, of images as TFDS prepares them
and of videos. By default the first damage that is met stops a training, and the message names
the file, the byte and the reason: each damage is met alone once. With a limit every record that
is whole is read, and the others are counted: in the rows of metrics.jsonl and one by one in
bad_examples.jsonl.
"""

import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import tensorflow as tf

from benchmarks.reliability import part
from benchmarks.reliability.damaged_sets import RECORDS
from benchmarks.reliability.damaged_sets import SHARDS
from benchmarks.reliability.damaged_sets import SIDE
from benchmarks.reliability.damaged_sets import SPLITS
from benchmarks.reliability.damaged_sets import shards_of
from benchmarks.reliability.damaged_sets import write_images
from benchmarks.reliability.damaged_sets import write_videos
from benchmarks.reliability.damaged_shards import OF_FILES
from benchmarks.reliability.damaged_shards import OF_IMAGES
from benchmarks.reliability.damaged_shards import OF_VIDEOS
from benchmarks.reliability.damaged_shards import WITHOUT_TRACE
from benchmarks.reliability.damaged_shards import Damage
from benchmarks.reliability.damaged_shards import records_of
from benchmarks.reliability.part import Row
from benchmarks.reliability.small_runs import train
from trainers.data.decode_errors import explain_data_failures
from trainers.data.preprocessing.decoding import decode_image
from trainers.data.sources import make_source
from trainers.utils.errors import DataError
from trainers.utils.reporting import read_metrics

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
_IMAGE_MODEL = {
    "name": "vit_ti4_d1_tl2at0", "image_size": SIDE, "width": 16, "num_heads": 2, "mlp_dim": 32,
}  # fmt: skip
_VIDEO_MODEL = {**_IMAGE_MODEL, "name": "vivit_ti8x2_d1_tl2at0", "num_frames": 2}
KINDS = {
    "images": (
        write_images,
        "tfds:small_images",
        {**OF_FILES, **OF_IMAGES},
        _IMAGE_MODEL,
        'config.augmentation = {"crop": "none", "flip": False}',
    ),
    "videos": (
        write_videos,
        "records",
        # Nobody knows how many videos there were: what leaves no trace is another set.
        {k: v for k, v in {**OF_FILES, **OF_VIDEOS}.items() if k not in WITHOUT_TRACE},
        _VIDEO_MODEL,
        f'config.video = {{"stride": 1, "min_resize": {SIDE}}}',
    ),
}


def measure(workdir: Path, kinds: Iterable[str] = KINDS) -> Iterator[Row]:
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


def _default(kind: str, source: str, folder: Path, damages: dict[str, Damage]) -> Row:
    """Meets each damage alone."""
    held = 0
    generator = random.Random(0)
    used: Counter[str] = Counter()
    for shard, path in enumerate(shards_of(folder, "train")):
        name = generator.choice(list(damages))
        used[name] += 1
        original = path.read_bytes()
        number = generator.randrange(RECORDS)
        path.write_bytes(damages[name](records_of(original), number, generator).payload)
        message = _failure(source, folder, range(shard * RECORDS, (shard + 1) * RECORDS))
        path.write_bytes(original)
        place = r"at byte \d+|ends at byte \d+|has \d+ records"
        is_fine = path.name in message and bool(re.search(place, message))
        held += is_fine
        if not is_fine:
            print(f"{kind}, {name}: {message or 'no failure'}", flush=True)
    figures = ", ".join(f"{name}: {count}" for name, count in sorted(used.items()))
    return Row(
        f"{kind}: one of {SHARDS} files damaged at random: reading stops, and names the file, "
        "the byte (or how many records are missing) and the reason",
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


def _with_limit(kind: str, folder: Path, config: Path, damages: dict[str, Damage]) -> Iterator[Row]:
    """Damages all files, and trains on what is left."""
    bad, lost = {}, {}
    generator = random.Random(1)
    for split in SPLITS:
        bad[split], lost[split] = 0, 0
        for path in shards_of(folder / "data", split):
            name = generator.choice(list(damages))
            damaged = damages[name](
                records_of(path.read_bytes()), generator.randrange(RECORDS), generator
            )
            path.write_bytes(damaged.payload)
            lost[split] += len(damaged.lost)
            # A stretch that is lost counts as one video.
            bad[split] += len(damaged.lost) if kind == "images" else 1
    limit = max(bad.values())
    allow = "--config.data.max_bad_examples={}"
    done = train(folder / "run", allow.format(limit), total_steps=60, config=config)
    rows = read_metrics(folder / "run" / "metrics.jsonl")
    whole = SHARDS * RECORDS - lost["validation"]
    evaluated = {row["num_examples"] for row in rows if row["split"] == "validation"}
    counted = [row["bad_examples"] for row in rows if row["split"] == "train"]
    listed = Counter(
        json.loads(line)["source"].rpartition("/")[2]
        for line in (folder / "run" / "bad_examples.jsonl").read_text().splitlines()
    )
    checks = {
        f"status {done.returncode} {done.stderr[-500:]}": done.returncode == 0,
        f"evaluated {evaluated}, expected {whole}": evaluated == {whole},
        f"counted {counted}, expected {bad['train']}": counted[-1:] == [bad["train"]],
        f"listed {listed}, expected {bad}": listed == bad,
    }
    print([name for name, held in checks.items() if not held], flush=True)
    yield Row(
        f"{kind}: all {SHARDS} files of each split damaged, and a limit: the training ends, "
        "evaluates every whole record, and counts and lists the others",
        len(checks),
        sum(checks.values()),
        f"{lost['train'] + lost['validation']} of {2 * SHARDS * RECORDS} records lost, "
        f"{bad['train'] + bad['validation']} counted",
    )
    less = allow.format(bad["train"] // 2)
    done = train(folder / "less", less, total_steps=60, config=config)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    says_so = len(lines) == 1 and "data.max_bad_examples" in lines[0]
    yield Row(
        f"{kind}: the same, and a limit of half as many: the training stops with one line",
        1,
        int(done.returncode == 1 and says_so and "Traceback" not in done.stderr),
    )


if __name__ == "__main__":
    part.run("damaged_data", measure)
