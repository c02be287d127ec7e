"""Takes a run of positions out of a sequence."""

from typing import Any

import keras

from tokenlearner_keras.layers.constants import SERIALIZATION_PACKAGE


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class SequencePart(keras.layers.Layer):
    """`x[:, start:stop]`, of the sequence and of its mask.

    A slice written as `x[:, 1:]` becomes an operation with a name of Keras' choice, which
    a model loaded from a file may hold already; a layer is named by its owner.

    Args:
        start: First position to take.
        stop: The position to stop before. None: the end.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Input shape: `(batch, positions, channels)`. Output shape: `(batch, taken, channels)`.
    """

    def __init__(self, start: int = 0, stop: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = start
        self.stop = stop
        self.supports_masking = True

    def call(self, x: Any) -> Any:
        return x[:, self.start : self.stop]

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        del inputs
        return None if previous_mask is None else previous_mask[:, self.start : self.stop]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, positions, channels = input_shape
        if positions is None:
            # The first positions are that many whatever the length; the rest is not.
            return (batch, None if self.stop is None else self.stop - self.start, channels)
        return (batch, len(range(positions)[self.start : self.stop]), channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start, "stop": self.stop}
