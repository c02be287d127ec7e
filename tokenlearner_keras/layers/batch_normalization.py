"""Batch normalisation over the whole batch, however many replicas share it."""

from typing import Any

import keras

from tokenlearner_keras.layers.common import SERIALIZATION_PACKAGE
from tokenlearner_keras.layers.common import check_rate


@keras.saving.register_keras_serializable(package=SERIALIZATION_PACKAGE)
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` whose statistics are those of the global batch.

    Keras' layer synchronises replicas by an argument that only TensorFlow takes, so a file
    saved there could not be opened elsewhere. This layer passes it only where it exists: under
    `tf.distribute` mean and variance are summed over the replicas. Under JAX a sharded batch
    is one batch anyway; under PyTorch's data parallelism every process has its own statistics.

    Args:
        momentum: Share in [0, 1) of the old moving statistics that a step keeps.
        epsilon: Added to the variance.
        gamma_initializer: Initial scale: `"ones"`, or `"zeros"` at the end of a residual branch,
            which then starts as the identity.

    Reference:
        Ioffe and Szegedy 2015, arXiv 1502.03167.
    """

    def __init__(
        self,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        gamma_initializer: Any = "ones",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            momentum=check_rate(momentum, "momentum"),
            epsilon=epsilon,
            gamma_initializer=gamma_initializer,
            synchronized=keras.backend.backend() == "tensorflow",
            **kwargs,
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        # Not the parent's, whose `synchronized` other backends refuse.
        return {
            **keras.layers.Layer.get_config(self),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "gamma_initializer": keras.initializers.serialize(self.gamma_initializer),
        }
