"""Places an export and the JSON file beside it: preprocessing, normalization and class names."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.preprocessing.normalization import channel_statistics
from trainers.experiment import TrainedModel
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.files import check_writable
from trainers.utils.files import folder_of

#: Name of the metadata of a LiteRT file.
LITERT_NAME = "metadata.json"

Metadata = dict[str, Any]


def check_output(path: str) -> None:
    """Checks that a path is free and can be written; makes its folder.

    Raises:
        ConfigurationError: If the path is empty or not local, or it exists.
    """
    if not path:
        raise ConfigurationError("Expected --output=PATH. Received none.")
    if files.is_remote(path):
        raise ConfigurationError(
            f"--output={path}: expected a path on a local disk, where runtimes can read it. "
            "Copy it from there."
        )
    for each in (path, json_path(path)):
        if os.path.lexists(each):
            raise ConfigurationError(
                f"--output={path}: {each} is there already. Remove it, or name another."
            )
    check_writable(folder_of(path), f"--output={path}")


def json_path(path: str) -> str:
    """Returns the path of the JSON file that describes an output."""
    return f"{path.rstrip('/')}.json"


@contextlib.contextmanager
def partial_output(path: str, metadata: Metadata) -> Iterator[str]:
    """Yields a temporary path; what the block writes there becomes `path`, described beside it.

    After an error nothing is left.
    """
    folder = Path(path).absolute().parent
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as temporary:
        partial = os.path.join(temporary, "model")
        yield partial
        Path(json_path(partial)).write_bytes(to_json(metadata))
        os.rename(json_path(partial), json_path(path))
        os.rename(partial, path)


def describe_export(trained: TrainedModel, takes: str) -> Metadata:
    """Returns the metadata of an export, values that JSON can hold.

    `takes` is "uint8", "normalized", or "uint8 of any size" for a SavedModel's default signature.
    The result's `mean` and `std` are those of red, green and blue, or of grey, in units of a byte,
    `(x - mean) / std`; None where each clip has its own.
    """
    preprocessing = trained.preprocessing
    count = preprocessing.channels
    statistics = channel_statistics(trained.normalization, count) or (None, None)
    mean, std = (each and [*each] * (count // len(each)) for each in statistics)
    metadata: Metadata = {
        "model": trained.model.name,
        "class_names": list(trained.class_names),
        "input": takes,
        "output": "logits" if trained.activation != "none" else "probabilities",
        "activation": trained.activation,
        "image_size": list(preprocessing.image_size),
        "channels": "RGB" if count == 3 else "grey",
        "interpolation": preprocessing.interpolation,
        "antialias": False,
        "normalization": trained.normalization,
        "mean": mean,
        "std": std,
    }
    if isinstance(preprocessing, VideoPreprocessingConfig):
        fields = ("num_frames", "stride", "min_resize")
        return metadata | {name: getattr(preprocessing, name) for name in fields}
    return metadata | {
        "crop_fraction": preprocessing.eval_crop_fraction,
        "exif_orientation": preprocessing.exif_orientation,
    }


def to_json(metadata: Metadata) -> bytes:
    """Returns the content of the JSON file, which is also the metadata of a LiteRT file."""
    return (json.dumps(metadata, indent=2, ensure_ascii=False) + "\n").encode()


def to_strings(metadata: Metadata) -> dict[str, str]:
    """Returns the metadata of an ONNX file: texts as they are, everything else as JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in metadata.items()
    }
