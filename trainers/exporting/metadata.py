"""Describes an export: class names, preprocessing and normalization."""

import json
from typing import Any

from trainers.configuration.data_options import VideoPreprocessingConfig
from trainers.data.preprocessing.normalization import channel_statistics
from trainers.experiment import TrainedModel

#: Name of the metadata of a LiteRT file.
LITERT_NAME = "metadata.json"

Metadata = dict[str, Any]


def describe_export(trained: TrainedModel, takes: str) -> Metadata:
    """Returns the metadata of an export, which also goes into the JSON file beside it.

    Args:
        trained: The model.
        takes: "uint8", "normalized", or "uint8 of any size" for a SavedModel's default signature.

    Returns:
        Values that JSON can hold. `mean` and `std` are those of red, green and blue in units of a
        byte, `(x - mean) / std`; None where each clip has its own.
    """
    preprocessing = trained.preprocessing
    statistics = channel_statistics(trained.normalization)
    mean, std = ([*each] * (3 // len(each)) for each in statistics) if statistics else (None, None)
    metadata: Metadata = {
        "model": trained.model.name,
        "class_names": list(trained.class_names),
        "input": takes,
        "output": "logits" if trained.activation != "none" else "probabilities",
        "activation": trained.activation,
        "image_size": list(preprocessing.image_size),
        "channels": "RGB",
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
