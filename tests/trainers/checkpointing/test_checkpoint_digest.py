"""The digest of a checkpoint's arrays: the same for the same arrays, however they are stored."""

import numpy as np

from tests.helpers.checkpoint_stores import small_arrays
from trainers.checkpointing.checkpoint_file import digest


def test_the_digest_is_over_names_types_shapes_and_bytes() -> None:
    base = small_arrays()
    turned = dict(reversed(base.items()))
    assert digest(base) == digest(turned)
    zero = np.zeros(4, np.float32)
    others = [
        {**base, "model/more": np.zeros(0, np.float32)},
        {name.replace("kernel", "kernels"): value for name, value in base.items()},
        {**base, "model/kernel": base["model/kernel"].reshape(4, 3)},
        {**base, "model/bias": base["model/bias"].view(np.int32)},
        {**base, "model/bias": np.array([np.nan, 0.0, 1e-40], np.float32)},
        {"a": zero},
        {"a": zero[:2], "b": zero[2:]},
        {"a": zero[:3], "b": zero[3:]},
    ]
    digests = {digest(each) for each in [base, *others]}
    assert len(digests) == len(others) + 1
    # Not over the order of the elements in memory.
    assert digest({"a": np.asfortranarray(base["model/kernel"])}) == digest(
        {"a": base["model/kernel"]}
    )
