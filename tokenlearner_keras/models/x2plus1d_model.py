"""The class of the convolutional video models."""

import functools
import inspect
import re
from collections.abc import Mapping
from typing import Any

import keras

from tokenlearner_keras.layers.constants import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.empty_batches import convolve
from tokenlearner_keras.layers.rematerialization import rematerialize
from tokenlearner_keras.models.graph import Node
from tokenlearner_keras.models.graph import call_arguments
from tokenlearner_keras.models.graph import filled
from tokenlearner_keras.models.graph import graph_calls
from tokenlearner_keras.models.vision_transformer_model import VisionTransformer

#: The layers that the stem and the blocks end with: all that follows goes through them.
_END_OF_PART = re.compile(r"stem_relu|stage_\d+_block_\d+_relu")


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class X2Plus1D(VisionTransformer):
    """A functional model of convolutions; `tk.build_model` and `tk.create_model` return one.

    What it has in common with its parent is the check of the inputs' size.
    """

    @property
    def remat(self) -> bool:
        """Whether training computes the activations inside a block a second time.

        Stem and blocks are then computed again in the backward pass, one at a time, and only
        what is between them is kept. Outputs, gradients and statistics stay as they are.
        """
        return bool(getattr(self, "_remat", False))

    @remat.setter
    def remat(self, value: bool) -> None:
        self._remat = value
        self.autocast = not value  # the layers inside cast the weights, each its own way

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        x = keras.tree.flatten(inputs)[0]
        if x.shape[0] == 0:
            # Not in training: batch norms would learn the mean of nothing.
            return convolve(functools.partial(super().call, training=False), x)
        if not (self.remat and training):
            return super().call(inputs, training=training, mask=mask)
        entry, part = self.inputs[0], []
        for node in graph_calls(self):
            part.append(node)
            if _END_OF_PART.fullmatch(node.operation.name):
                layers = [each.operation for each in part]
                x = rematerialize(layers, _function(part, entry), x)
                entry, part = node.outputs[0], []
        return _function(part, entry)(x)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "remat": True} if self.remat else config

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> "X2Plus1D":
        remat = config.get("remat", False)
        config = {name: value for name, value in config.items() if name != "remat"}
        model = super().from_config(config, custom_objects)
        model.remat = remat
        return model


def _function(nodes: list[Node], entry: keras.KerasTensor) -> Any:
    """Returns a function that runs calls of a graph in training, from the tensor they start at."""
    nodes = list(nodes)

    def run(x: Any) -> Any:
        values = {id(entry): x}
        outputs = x
        for node in nodes:
            args, kwargs = (filled(part, values) for part in call_arguments(node))
            if "training" in inspect.signature(node.operation.call).parameters:
                # The second pass is outside of the model's call, which would have said so.
                kwargs["training"] = True
            outputs = node.operation(*args, **kwargs)
            values[id(node.outputs[0])] = outputs
        return outputs

    return run
