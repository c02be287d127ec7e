"""Layers: TokenLearner, its rivals, TokenFuser and the parts of the Vision Transformer."""

from tokenlearner_keras.layers.patch_merger import PatchMerger
from tokenlearner_keras.layers.token_fuser import TokenFuser
from tokenlearner_keras.layers.token_learner import TokenLearner
from tokenlearner_keras.layers.token_learner_mha import TokenLearnerMHA
from tokenlearner_keras.layers.token_learner_v11 import TokenLearnerV11
from tokenlearner_keras.layers.token_merging import TokenMerging

__all__ = [
    "PatchMerger",
    "TokenFuser",
    "TokenLearner",
    "TokenLearnerMHA",
    "TokenLearnerV11",
    "TokenMerging",
]
