"""The steps of the JAX engine as programs for all chips of a slice."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from ml_collections import ConfigDict

from tokenlearner_keras.models.model_names import ModelConfig
from trainers.data.preprocessing.examples import Preprocessing
from trainers.engines.engine import Specifications
from trainers.engines.hosts import Hosts
from trainers.engines.jax_engine import JaxEngine
from trainers.engines.jax_measured_steps import JaxMeasuredSteps
from trainers.engines.jax_sharding import JaxLayout
from trainers.tpu_lowering import StepLowering

if TYPE_CHECKING:
    import jax


@dataclasses.dataclass(frozen=True)
class JaxProgram:
    """A step of all chips, which knows its devices.

    Attributes:
        lowered: From JAX.
    """

    lowered: "jax.stages.Lowered"

    def compile(self, devices: Sequence[Any]) -> Any:
        """Returns the executable; see `trainers.tpu_compiler.Program`."""
        del devices  # they are in the arguments' shardings
        return self.lowered.compile().runtime_executable()


class JaxLowering(StepLowering):
    """The whole steps on all chips, partitioned, with what goes between these.

    Args:
        config: The whole configuration.
        num_classes: Classes of the data.
        devices: The chips, which need not be there.
        batch_axis: As `--batch_axis`.
        model_axis: As `--model_axis`.

    Raises:
        ConfigurationError: If a value is out of range, the batch cannot be shared out, or
            the axes do not fit the slice.
    """

    def __init__(
        self,
        config: ConfigDict,
        num_classes: int,
        devices: Sequence[Any],
        batch_axis: int | None = None,
        model_axis: int = 1,
    ) -> None:
        self._layout = JaxLayout(devices, batch_axis, model_axis)
        self.model_axis = model_axis
        first_host = devices[0].process_index
        self.largest_model_axis = sum(each.process_index == first_host for each in devices)
        shared = f", each copy of the weights on {model_axis} of them" if model_axis > 1 else ""
        self.scope = f"the step of all {len(devices)} chips{shared}"
        super().__init__(config, num_classes, len(devices))

    def _build(
        self, config: ConfigDict, model_config: ModelConfig, preprocessing: Preprocessing
    ) -> JaxMeasuredSteps:
        engine = JaxEngine(self._layout, Hosts())
        return engine.measured_steps(config, model_config, preprocessing)

    def _lower_training(self, batch: Specifications) -> JaxProgram:
        return JaxProgram(self._measured.lower_training(batch))

    def _lower_evaluation(self, name: str, batch: Specifications) -> JaxProgram:
        del name  # what JAX raises here is a mistake of ours
        return JaxProgram(self._measured.lower_evaluation(batch))
