"""Constants that every layer of the package shares."""

#: Package name written into saved models (``package>ClassName``). It must never
#: change: files saved by an older release are found again by it.
SERIALIZATION_PACKAGE = "tokenlearner_keras"

#: LayerNorm epsilon of the reference (Flax's default). Keras' default is 1e-3.
LAYER_NORM_EPSILON = 1e-6

#: Logit of a masked position: its exponential is 0 in float32 and it is finite, so
#: that a row without any real position gives no NaN (nor does its gradient).
MASKED_LOGIT = -1e30
