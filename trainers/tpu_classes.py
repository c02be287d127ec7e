"""The number of classes of a data set that is not on this machine."""

from trainers.data.datasets.tfds import import_tfds


def described_classes(source: str) -> int | None:
    """Returns the classes of a TFDS set by its description; None if there is none.

    Args:
        source: As `data.source`.

    Raises:
        ConfigurationError: If it is a TFDS set and the package does not load.
    """
    family, _, dataset = source.partition(":")
    if family != "tfds":
        return None
    tfds = import_tfds()
    try:
        label = tfds.builder(dataset).info.features["label"]
    except (tfds.core.registered.DatasetNotFoundError, KeyError, ValueError, OSError):
        return None
    return int(label.num_classes)
