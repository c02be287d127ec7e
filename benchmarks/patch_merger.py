"""Trains a recipe with a PatchMerger where its model would have had a TokenLearner.

    python -m benchmarks.patch_merger --config=FILE --workdir=DIR [--config.KEY=VALUE ...]

The trainer itself, told to put the layer before the second block of the configuration's
(plain) model. `benchmarks.demo_family` calls it.
"""

import math
from typing import Any

import keras
from keras import ops

import tokenlearner_keras as tk
from tokenlearner_keras.layers.base_token_learner import BaseTokenLearner
from tokenlearner_keras.layers.common import LAYER_NORM_EPSILON

#: What the names of such models in results end with.
SUFFIX = "_pm8at1"
NUM_TOKENS = 8
BLOCK = "encoder_block_1"


@keras.saving.register_keras_serializable(package="benchmarks")
class PatchMerger(BaseTokenLearner):
    """The layer of Renggli et al. 2022, arXiv 2202.12015: no MLP, no convolution.

    Tokens are sums of the normalised positions, weighted by a softmax over the positions of
    their products with learned queries. Argument and shapes are those of
    every TokenLearner; it takes no mask.
    """

    def _build_tokenizer(self, channels: int) -> None:
        self.norm = keras.layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON, name="norm")
        self.norm.build((None, None, channels))
        self.queries = self.add_weight(
            shape=(channels, self.num_tokens), initializer="glorot_uniform", name="queries"
        )

    def _tokenize(self, values: Any, mask: Any, training: bool | None) -> tuple[Any, Any]:
        del training
        if mask is not None:
            raise ValueError("PatchMerger takes no mask.")
        x = ops.reshape(values, (ops.shape(values)[0], -1, values.shape[-1]))
        x = self.norm(x)
        scores = ops.transpose(ops.matmul(x, self.queries), (0, 2, 1))
        maps = ops.softmax(scores * x.shape[-1] ** -0.5, axis=-1)
        return ops.matmul(maps, x), maps

    def count_macs(self, input_shape: tuple[int, ...]) -> int:
        """Returns the multiply-accumulates for one input, as `tk.count_macs` asks for them."""
        return 2 * math.prod(input_shape) * self.num_tokens


def with_patch_merger(model: keras.Model) -> keras.Model:
    """Returns the model with a new PatchMerger before its second block."""
    layer = PatchMerger(NUM_TOKENS, name="patch_merger")
    return tk.insert_token_learner(model, BLOCK, layer)


def main() -> None:
    # The trainer makes models from names only, and this one has none.
    plain_model = vars(experiment)["build_model"]

    def build(*args: Any, **kwargs: Any) -> keras.Model:
        return with_patch_merger(plain_model(*args, **kwargs))

    vars(experiment)["build_model"] = build
    train.main()


if __name__ == "__main__":
    # Not above: the trainer's flags would be those of whoever imports this file.
    from trainers import experiment
    from trainers import train
    from trainers.configuration.configuration import parse_config_flag
    from trainers.utils import cli

    train.define_flags()
    cli.run(main, parse_config_flag)
