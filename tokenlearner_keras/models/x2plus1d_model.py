"""The class of the convolutional video models."""

import keras

from tokenlearner_keras.layers.constants import SERIALIZATION_PACKAGE
from tokenlearner_keras.models.vision_transformer_model import VisionTransformer


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class X2Plus1D(VisionTransformer):
    """A functional model of convolutions; `tk.build_model` and `tk.create_model` return one.

    All it has in common with its parent is the check of the inputs' size.
    """
