from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.fake_source import ArraySource
from trainers.configuration.configuration import base_config
from trainers.configuration.training_options import check_training
from trainers.experiment import make_class_weights
from trainers.utils.errors import ConfigurationError
from trainers.utils.errors import DataError


def test_balanced_weights_are_inverse_to_the_counts() -> None:
    labels = np.array([0, 3, 3, 1, 3, 0, 3, 3, 3])
    config = base_config()
    config.class_weights = "balanced"
    weights = make_class_weights(config, ArraySource(9, labels=labels))
    # Three classes have examples; all examples together have the mean 1.
    assert weights == (9 / 3 / 2, 9 / 3 / 1, 0.0, 9 / 3 / 6, 0.0)
    assert np.mean(np.array(weights)[labels]) == pytest.approx(1)


def test_given_weights_are_taken_as_they_are() -> None:
    config = base_config()
    config.class_weights = (1, 0.5)
    assert make_class_weights(config, ArraySource(3)) == (1.0, 0.5)


@pytest.mark.parametrize("wrong", ["equal", (), (0.0, 0.0), (1.0, float("inf")), ("a", "b")])
def test_wrong_weights_are_named(wrong: object) -> None:
    config = base_config()
    config.total_steps = 1
    config.class_weights = wrong
    with pytest.raises(ConfigurationError, match="^class_weights must be None, balanced, or"):
        check_training(config)


def test_several_labels_have_no_weights() -> None:
    config = base_config()
    config.total_steps, config.class_weights = 1, "balanced"
    config.data.multi_label, config.loss = True, "sigmoid"
    with pytest.raises(ConfigurationError, match="any number.*Set class_weights=None"):
        check_training(config)


class _DamagedSource(ArraySource):
    def load(self, index: Any) -> dict[str, Any]:
        check = tf.debugging.assert_none_equal(index, tf.constant(2, tf.int64), message="damaged")
        with tf.control_dependencies([check] if check is not None else []):
            return super().load(tf.identity(index))


def test_unreadable_examples_are_named_or_skipped() -> None:
    config, source = base_config(), _DamagedSource(4, num_classes=2)
    config.class_weights = "balanced"
    with pytest.raises(DataError, match="record 2 of array"):
        make_class_weights(config, source)
    config.data.max_bad_examples = 1
    assert make_class_weights(config, source) == (3 / 2 / 1, 3 / 2 / 2)
