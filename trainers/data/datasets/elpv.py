"""Opens the solar cells: 2,624 real photographs from the package `elpv-dataset`.

Electroluminescence images of monocrystalline and polycrystalline cells, functional
or defective. The data are licensed CC BY-NC-SA 4.0 (not for commercial use): they are
read from the installed package and must not be redistributed with this program.

Reference: Deitsch et al., "Automatic classification of defective photovoltaic module
cells in electroluminescence images", Solar Energy, 2019.
"""

import numpy as np
from numpy.typing import NDArray

from trainers.data.datasets.in_memory import InMemorySource
from trainers.utils.errors import ConfigurationError

CLASS_NAMES = (
    "mono functional",
    "mono defective",
    "poly functional",
    "poly defective",
)
DEFECT_THRESHOLD = 0.5
# Cells of one module lie side by side in the file and resemble each other, so a
# random split would leak. Modules have 60 or 72 cells, and where each begins is not
# recorded, so whole blocks of 60 go to one split.
BLOCK_LENGTH = 60
SPLIT_OF_BLOCK = ("train", "train", "train", "validation", "test")


def elpv_source(split: str) -> InMemorySource:
    """Opens the solar cells: (300, 300, 3), three equal channels.

    Of every five blocks of 60 images in the order of the file, three are train, one is validation
    and one is test. Raises ConfigurationError if `elpv-dataset` is not installed.
    """
    try:
        from elpv_dataset.utils import load_dataset
    except ImportError as error:
        raise ConfigurationError(
            f"data.source=elpv needs the package elpv-dataset, which could not be "
            f"imported ({error}). Install it with: pip install elpv-dataset "
            "(data CC BY-NC-SA 4.0, not for commercial use)"
        ) from error
    images, probability, cell_type = load_dataset()
    labels = class_labels(probability, cell_type)
    chosen = split_indexes(len(labels), split)
    return InMemorySource("elpv", split, images[chosen], labels[chosen], CLASS_NAMES)


def class_labels(
    probability: NDArray[np.float64], cell_type: NDArray[np.str_]
) -> NDArray[np.int64]:
    """Returns positions in `CLASS_NAMES`, (count,) int64.

    `probability` is that of a defect, 0 to 1; `cell_type` is "mono" or "poly"; (count,) each.
    """
    is_poly = (cell_type == "poly").astype(np.int64)
    is_defective = (probability > DEFECT_THRESHOLD).astype(np.int64)
    labels: NDArray[np.int64] = 2 * is_poly + is_defective
    return labels


def split_indexes(count: int, split: str) -> NDArray[np.int64]:
    """Returns the ascending positions in the file of one split's images."""
    indexes = np.arange(count)
    blocks = (indexes // BLOCK_LENGTH) % len(SPLIT_OF_BLOCK)
    chosen: NDArray[np.int64] = indexes[np.array(SPLIT_OF_BLOCK)[blocks] == split]
    return chosen
