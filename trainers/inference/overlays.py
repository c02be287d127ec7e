"""Draws the attention maps of the learned tokens over each file."""

import io
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tokenlearner_keras as tk
from tokenlearner_keras.introspection import token_learners
from tokenlearner_keras.layers.reshaping import FrameSampling
from trainers.inference.reader import ReadFile
from trainers.inference.trained_model import Predictor
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import one_line
from trainers.utils.files import check_writable

_DOTS_PER_INCH = 120
# In bytes: file systems allow 255 for a name, which has three parts.
_LONGEST_PART = 72
_UNSAFE = re.compile(r"[^\w.-]+")


class AttentionOverlays:
    """Draws a picture for each file into a folder, and one for each TokenLearner if several.

    A picture is named `NUMBER_FOLDER_NAME.png`: the number of its file among the inputs, which
    makes the name unique, the folder of the file, such as its class, and the file's name.

    The folder is made if necessary, on any file system of TensorFlow. It must be empty, so that no
    picture replaces a file.

    Raises:
        ConfigurationError: If the model has no learned tokens, or none on a grid, Matplotlib is
            missing, or the folder is not empty or cannot be written into.
    """

    def __init__(self, folder: str, predictor: Predictor) -> None:
        self.folder = folder
        self.predictor = predictor
        try:
            import matplotlib.figure  # noqa: F401
        except ImportError as error:
            raise ConfigurationError(
                "--overlay_dir needs Matplotlib: pip install '.[plots]' in a clone"
            ) from error
        self._check_maps()
        check_writable(folder, f"--overlay_dir={folder}")
        if files.list_names(folder):
            raise ConfigurationError(
                f"--overlay_dir={folder}: expected a new or an empty folder, where no picture "
                "replaces a file. Remove what is there, or choose another."
            )

    def draw(self, read: Sequence[ReadFile], titles: Sequence[str]) -> None:
        """Draws the attention over some files; of a video, over the clip in its middle.

        Raises:
            OSError: If a picture cannot be written.
        """
        pictures = np.stack([each.picture for each in read])
        maps = self.predictor.attention_maps(pictures)
        shown = self._shown(pictures)
        learners = token_learners(self.predictor.trained.model)
        for place, (each, title) in enumerate(zip(read, titles, strict=True)):
            only = slice(place, place + 1)
            for number, (layer, values) in enumerate(maps.items(), start=1):
                per_frame = learners[layer].per_frame
                figure = tk.plot_attention_maps(
                    shown[only], values[only], titles=[title], per_frame=per_frame
                )
                part = f"{number}_{layer}" if len(maps) > 1 else ""
                content = io.BytesIO()
                figure.savefig(content, format="png", dpi=_DOTS_PER_INCH)
                path = files.join(self.folder, picture_name(each.number, each.path, part))
                files.write_atomically(path, content.getvalue())

    def _shown(self, pictures: NDArray[np.uint8]) -> Any:
        """Returns the frames that a model takes, if it does not take all."""
        layers = self.predictor.trained.model.layers
        sampling = [layer for layer in layers if isinstance(layer, FrameSampling)]
        return np.asarray(sampling[0](pictures)) if sampling else pictures

    def _check_maps(self) -> None:
        blank = np.zeros((1, *self.predictor.trained.input_shape), np.uint8)
        try:
            maps = self.predictor.attention_maps(blank)
        except ValueError as error:
            raise ConfigurationError(f"--overlay_dir: {one_line(error)}") from error
        for layer, values in maps.items():
            if values.ndim != blank.ndim:
                raise ConfigurationError(
                    f"--overlay_dir: the TokenLearner {layer!r} looks at a sequence, not at a "
                    f"grid: its maps are {values.shape}. Leave the flag out."
                )


def picture_name(number: int, path: str, layer: str = "") -> str:
    """Returns the unique name of a file's picture; `layer` tells several TokenLearners apart."""
    folder, name = os.path.split(path)
    names = (os.path.basename(folder), os.path.splitext(name)[0], layer)
    parts = [
        _UNSAFE.sub("_", each).encode()[:_LONGEST_PART].decode("utf-8", "ignore")
        for each in names
        if each
    ]
    return "_".join([f"{number:05d}", *parts]) + ".png"
