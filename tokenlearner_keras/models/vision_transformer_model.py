"""The class of this package's models: a functional Keras model with clear errors."""

from typing import Any

import keras

from tokenlearner_keras.layers.constants import SERIALIZATION_PACKAGE


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class VisionTransformer(keras.Model):
    """A functional model; `tk.build_model` and `tk.create_model` return one.

    It differs from a plain `keras.Model` in one thing: an input of another size than
    the model was built for fails with the cure.

    Raises:
        ValueError: On call, if the frames, height or width are not the model's.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._check_size(args[0] if args else None)
        return super().__call__(*args, **kwargs)

    def _check_size(self, inputs: Any) -> None:
        shape = getattr(inputs, "shape", ())
        if getattr(shape, "rank", 0) is None:  # a TensorFlow tensor of unknown rank
            return
        received = tuple(shape)
        expected = tuple(self.inputs[0].shape)
        # Another rank or number of channels is no matter of size: Keras says so itself.
        if len(received) != len(expected) or received[-1] != expected[-1]:
            return
        pairs = list(zip(received, expected, strict=True))[1:-1]
        if all(a is None or b is None or a == b for a, b in pairs):
            return
        size = received[-3:-1]
        frames = received[1:-3] != expected[1:-3]
        arguments = f"{size}" + (f", num_frames={received[1]}" if frames else "")
        raise ValueError(
            f"Model {self.name!r} was built for inputs of shape {expected}. Received shape "
            f"{received}. Resize the inputs, or take tk.resize_model(model, {arguments}): a "
            "new model of that size with the same weights, its positions resized."
        )
