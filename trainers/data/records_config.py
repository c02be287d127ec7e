"""What TFRecords of videos are called inside, and what their labels are."""

from dataclasses import dataclass

from trainers.utils.errors import ConfigurationError


@dataclass(frozen=True)
class RecordsConfig:
    """The section `records` of a configuration: how `data.source=records` reads.

    Args:
        image_key: feature list with one encoded JPEG or PNG a frame.
        label_key: context feature with the number of the class, or of several.
        num_classes: number of classes; None takes it from `dataset.json`, which
            `trainers.make_video_records` writes, or else from the label map.
        multi_label: whether a video may have several labels, or none; a configuration
            says so as `data.multi_label`.
        recover: whether what can be read of a damaged file is; a configuration says so by
            `data.max_bad_examples` above 0.

    Raises:
        ConfigurationError: a value is out of range.
    """

    image_key: str = "image/encoded"
    label_key: str = "clip/label/index"
    num_classes: int | None = None
    multi_label: bool = False
    recover: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("image_key", "label_key"):
            if not getattr(self, name):
                raise ConfigurationError(
                    f"records.{name}: expected the name of a feature, received "
                    f"{getattr(self, name)!r}; leave it out for the usual one"
                )
        if self.num_classes is not None and self.num_classes < 1:
            raise ConfigurationError(
                f"records.num_classes: expected 1 or more, received {self.num_classes}; "
                "leave it out if the records come with a dataset.json or labels.txt"
            )
