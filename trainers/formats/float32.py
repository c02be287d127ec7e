"""A model of any dtype policy with all its arithmetic in float32."""

from typing import Any

import keras


def in_float32(model: keras.Model) -> keras.Model:
    """Returns the model with every layer's policy float32, and the same weights.

    Args:
        model: Of layers that Keras can serialise, as in a `.keras` file.

    Returns:
        The model itself if it is that already.
    """
    description = keras.saving.serialize_keras_object(model)
    wanted = _with_policy(description, "float32")
    if wanted == description:
        return model
    policy = keras.config.dtype_policy()
    # For layers that take the policy of the process, such as the model itself.
    keras.config.set_dtype_policy("float32")
    try:
        copy = keras.saving.deserialize_keras_object(wanted)
    finally:
        keras.config.set_dtype_policy(policy)
    copy.set_weights(model.get_weights())
    return copy


def _with_policy(value: Any, name: str) -> Any:
    """Returns a serialised object with all dtype policies in it replaced."""
    if isinstance(value, dict):
        if value.get("class_name") == "DTypePolicy":
            return {**value, "config": {"name": name}}
        return {key: _with_policy(part, name) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_policy(part, name) for part in value)
    return value
