"""TokenLearner for Keras 3: layers, Vision Transformers, weights and pictures."""

import keras

if keras.__version__.startswith("2."):
    import tokenlearner_keras.keras2_bridge  # noqa: F401, the imports below need what it adds

from tokenlearner_keras.cost import count_macs
from tokenlearner_keras.cost import paper_gflops
from tokenlearner_keras.feature_extraction import features
from tokenlearner_keras.introspection import attention_maps
from tokenlearner_keras.layers import PatchMerger
from tokenlearner_keras.layers import TokenFuser
from tokenlearner_keras.layers import TokenLearner
from tokenlearner_keras.layers import TokenLearnerMHA
from tokenlearner_keras.layers import TokenLearnerV11
from tokenlearner_keras.layers import TokenMerging
from tokenlearner_keras.lora import enable_lora
from tokenlearner_keras.models.config import VisionTransformerConfig
from tokenlearner_keras.models.elastic import set_num_tokens
from tokenlearner_keras.models.insert import insert_token_learner
from tokenlearner_keras.models.model import VisionTransformer
from tokenlearner_keras.models.names import create_model
from tokenlearner_keras.models.names import list_models
from tokenlearner_keras.models.resize import resize_model
from tokenlearner_keras.models.vision_transformer import build_model
from tokenlearner_keras.models.x2plus1d_config import X2Plus1DConfig
from tokenlearner_keras.rollout import attention_rollout
from tokenlearner_keras.version import __version__
from tokenlearner_keras.visualize import plot_attention_maps
from tokenlearner_keras.weights.augreg import load_npz
from tokenlearner_keras.weights.download import download_weights
from tokenlearner_keras.weights.download import list_weights
from tokenlearner_keras.weights.reference import load_reference_params
from tokenlearner_keras.weights.report import LoadReport

__all__ = [
    "LoadReport",
    "PatchMerger",
    "TokenFuser",
    "TokenLearner",
    "TokenLearnerMHA",
    "TokenLearnerV11",
    "TokenMerging",
    "VisionTransformer",
    "VisionTransformerConfig",
    "X2Plus1DConfig",
    "__version__",
    "attention_maps",
    "attention_rollout",
    "build_model",
    "count_macs",
    "create_model",
    "download_weights",
    "enable_lora",
    "features",
    "insert_token_learner",
    "list_models",
    "list_weights",
    "load_npz",
    "load_reference_params",
    "paper_gflops",
    "plot_attention_maps",
    "resize_model",
    "set_num_tokens",
]
