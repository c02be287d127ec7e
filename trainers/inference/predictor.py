"""Computes class probabilities and attention maps of a batch."""

import numpy as np
from numpy.typing import NDArray

import tokenlearner_keras as tk
from trainers.data.preprocessing.normalization import normalize
from trainers.engines.engine import Batch
from trainers.engines.flags import make_local_engine
from trainers.experiment import TrainedModel
from trainers.steps.logits import class_logits
from trainers.steps.losses import LOSSES
from trainers.utils.errors import TrainingError


class Predictor:
    """Runs a trained model on bytes, normalised on the device."""

    def __init__(self, trained: TrainedModel) -> None:
        self.trained = trained
        kind = LOSSES.get(trained.activation)
        # "none": the model's outputs are probabilities already.
        self._activation = kind.activation if kind else lambda answers: answers
        engine = make_local_engine()
        self._step = engine.evaluation(trained.model, self._probabilities, per_example=True)

    def probabilities(self, inputs: NDArray[np.uint8], count: int) -> NDArray[np.float32]:
        """Returns the probability of each class, (count, K).

        Args:
            inputs: (B, H, W, 3), (B, T, H, W, 3) or with views (B, V, T, H, W, 3); always of the
                same shape, for which the model is compiled once.
            count: How many of them are wanted; the others are padding.

        Raises:
            TrainingError: If one is not finite.
        """
        found: NDArray[np.float32] = self._step({"image": inputs})["probabilities"][:count]
        if not np.isfinite(found).all():
            raise TrainingError(
                f"{self.trained.description}: the model's answers are not finite (NaN or "
                "infinity). Its training has diverged; take an earlier --checkpoint."
            )
        return found

    def attention_maps(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Returns the maps of every TokenLearner by the name of its layer.

        The images are (B, H, W, 3) or clips (B, T, H, W, 3). Raises ValueError if the model has no
        TokenLearner.
        """
        inputs = np.asarray(normalize(images, self.trained.normalization))
        return tk.attention_maps(self.trained.model, inputs, batch_size=len(inputs))

    def _probabilities(self, batch: Batch) -> Batch:
        trained = self.trained
        logits = class_logits(
            trained.model, batch["image"], trained.normalization, trained.view_reduction
        )
        return {"probabilities": self._activation(logits)}
