"""The benchmark of quantised models, on a small one."""

import keras

from benchmarks.quantization import quantization_rows
from tests.helpers.small_models import small_model


def _model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return small_model("vit_ti8_d2_tl4at1", width=64, mlp_dim=256)


def test_fewer_bits_make_smaller_files_and_larger_differences() -> None:
    full, int8, int4 = quantization_rows("small", _model, lambda model: 0.5)
    assert full["megabytes"] > int8["megabytes"] > int4["megabytes"]
    assert 0 == full["largest_difference"] < int8["largest_difference"] < 0.2
    assert int8["largest_difference"] < int4["largest_difference"]
    assert int8["accuracy"] == 0.5
