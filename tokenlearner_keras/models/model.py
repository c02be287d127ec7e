"""The class of this package's models: a functional Keras model with clear errors."""

from typing import Any

import keras

from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import accumulation_dtype
from tokenlearner_keras.models.config import VisionTransformerConfig
from tokenlearner_keras.models.x2plus1d_config import X2Plus1DConfig


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class VisionTransformer(keras.Model):
    """A functional model; `tk.build_model` and `tk.create_model` return one.

    It differs from a plain `keras.Model` in one thing: calls, `fit`, `evaluate`, `predict` and
    their forms for one batch check the size of the inputs.

    Raises:
        ValueError: If the frames, height or width of the inputs are not the model's.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._check_size(args[0] if args else kwargs.get("inputs"))
        return super().__call__(*args, **kwargs)

    # Keras calls the model itself only once in `fit` on some backends, and an error inside
    # a step on JAX loses the weights: the data is checked first.

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._check_data(x)
        validation = kwargs.get("validation_data")
        self._check_data(validation[0] if isinstance(validation, (tuple, list)) else validation)
        return super().fit(x, *args, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._check_data(x)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        self._check_data(x)
        return super().predict(x, *args, **kwargs)

    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        self._check_data(x)
        return super().train_on_batch(x, *args, **kwargs)

    def test_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        self._check_data(x)
        return super().test_on_batch(x, *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        self._check_data(x)
        return super().predict_on_batch(x)

    def _check_data(self, data: Any) -> None:
        """Checks arrays, and datasets of TensorFlow, which state their shapes."""
        data = getattr(data, "element_spec", data)
        self._check_size(data[0] if isinstance(data, (tuple, list)) and data else data)

    def _check_size(self, inputs: Any) -> None:
        shape = getattr(inputs, "shape", ())
        if getattr(shape, "rank", 0) is None:  # a TensorFlow tensor of unknown rank
            return
        received = tuple(shape)
        expected = tuple(self.inputs[0].shape)
        # Keras itself reports a wrong rank or number of channels.
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


def full_precision() -> str:
    """Returns the dtype of pooled features and logits under the dtype policy in force."""
    return accumulation_dtype(keras.config.dtype_policy().compute_dtype)


def apply_head(
    x: Any,
    config: VisionTransformerConfig | X2Plus1DConfig,
    activation: str,
    kernel_initializer: str,
    dropout: float = 0.0,
) -> Any:
    """Returns float32 logits; activation and initializer are those of the layer before them."""
    if config.representation_size is not None:
        x = keras.layers.Dense(
            config.representation_size,
            activation=activation,
            kernel_initializer=kernel_initializer,
            dtype=full_precision(),
            name="pre_logits",
        )(x)
    if dropout:
        x = keras.layers.Dropout(dropout, dtype=full_precision(), name="dropout")(x)
    return keras.layers.Dense(
        config.num_classes,
        kernel_initializer="zeros",
        bias_initializer=keras.initializers.Constant(config.head_bias),
        dtype=full_precision(),
        name="head",
    )(x)
