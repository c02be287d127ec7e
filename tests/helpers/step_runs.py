"""Training steps on the digits without the command around them."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tokenlearner_keras import create_model
from trainers.checkpointing.state import state_arrays
from trainers.configuration.data_options import PreprocessingConfig
from trainers.configuration.training_options import OptimizerConfig
from trainers.data.datasets.digits import digits_source
from trainers.engines.batches import training_batches
from trainers.engines.engine import Engine
from trainers.steps.fine_tuning import freeze_layers
from trainers.steps.losses import make_loss
from trainers.steps.optimizer import make_learning_rate
from trainers.steps.optimizer import make_optimizer
from trainers.steps.train_step import TrainStep

BATCH = 16
CLIPNORM = 0.3
#: Of weights from which every optimizer learns in a few steps, on any backend.
INITIAL_SEED = 4

Arrays = dict[str, np.ndarray]

# Some biases have a gradient of zero, but for rounding; a small epsilon would make steps
# of that.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"name": "adamw", "learning_rate": 0.01, "epsilon": 1e-5},
    "lamb": {"name": "lamb", "learning_rate": 0.02, "epsilon": 1e-5},
    "sgd": {"name": "sgd", "learning_rate": 0.2},
}


class StepRun:
    """A model, its optimizer and its step on an engine.

    Args:
        engine: Where to run.
        build: Makes the model; None: a small ViT.
        optimizer: One of `OPTIMIZERS`; all decay the kernels.
        use_ema: Whether averages of the weights are kept, with momentum 0.75.
        clipnorm: As in the configuration.
        seed: Of the masks.
        accumulation: Micro-batches of each replica's share of the batch.
        mixup_alpha: As in the configuration.
        jit_compile: As in the configuration.
        freeze: As in the configuration.
        layer_decay: The learning rate of each variable is this share of that of the next one.
        elastic_tokens: Of the model's configuration, ascending.
    """

    def __init__(
        self,
        engine: Engine,
        build: Callable[[], keras.Model] | None = None,
        *,
        optimizer: str = "adamw",
        use_ema: bool = False,
        clipnorm: float | None = CLIPNORM,
        seed: int = 0,
        accumulation: int = 1,
        mixup_alpha: float = 0.0,
        jit_compile: bool = False,
        freeze: tuple[str, ...] = (),
        layer_decay: float = 1.0,
        elastic_tokens: tuple[int, ...] = (),
    ) -> None:
        self.engine = engine
        self.mixup_alpha = mixup_alpha
        keras.backend.clear_session()  # the names of the variables begin anew
        keras.utils.set_random_seed(INITIAL_SEED)
        with engine.scope():
            self.model = (build or small_vit)()
            freeze_layers(self.model, freeze)
            variables = self.model.trainable_variables
            self.optimizer = _optimizer(optimizer, variables, layer_decay)
            self.optimizer.use_ema, self.optimizer.ema_momentum = use_ema, 0.75
            self.optimizer.build(variables)
        self.step = TrainStep(
            model=self.model,
            optimizer=self.optimizer,
            loss=make_loss("softmax"),
            engine=engine,
            batch_size=BATCH,
            normalization="unit",
            global_clipnorm=clipnorm,
            seed=seed,
            gradient_accumulation_steps=accumulation,
            jit_compile=jit_compile,
            elastic_tokens=elastic_tokens,
        )

    def batches(self, first_step: int) -> Any:
        """Returns the batches from a step on."""
        return training_batches(
            digits_source("train"),
            PreprocessingConfig((8, 8), crop="none", flip=False),
            self.engine,
            batch_size=BATCH,
            seed=0,
            start_step=first_step,
            mixup_alpha=self.mixup_alpha,
        )

    def train(self, first_step: int, num_steps: int) -> dict[str, float]:
        """Trains and returns the sums of the steps."""
        return self.step.run(self.batches(first_step), first_step, num_steps)

    def state(self) -> Arrays:
        """Returns weights and optimizer state."""
        return state_arrays(self.model, self.optimizer)


def small_vit(remat: bool = False) -> keras.Model:
    """Returns a ViT with TokenLearner for the digits, all dropout off."""
    sizes = {"width": 16, "num_heads": 2, "mlp_dim": 32}
    return create_model("vit_ti4_d1_tl2at0", 10, 8, **sizes, remat=remat)


def linear(*layers: keras.layers.Layer) -> keras.Model:
    """Returns a linear classifier of the digits with layers in front."""
    ends = keras.layers.Flatten(), keras.layers.Dense(10)
    return keras.Sequential([keras.Input((8, 8, 3)), ends[0], *layers, ends[1]])


def _optimizer(
    name: str, variables: list[keras.Variable], layer_decay: float
) -> keras.optimizers.Optimizer:
    values = {**OPTIMIZERS[name], "weight_decay": 0.1, "schedule": "constant"}
    config = OptimizerConfig(**values)
    rate = make_learning_rate(config, warmup_steps=0, total_steps=1)
    scales = tuple(layer_decay**level for level in reversed(range(len(variables))))
    return make_optimizer(config, rate, variables, None if layer_decay == 1 else scales)
