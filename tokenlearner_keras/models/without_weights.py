"""Builds models whose weights take no memory, to count or inspect the largest ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras


@contextmanager
def without_weights() -> Iterator[None]:
    """Models built inside have shapes but no values: ViT-L/8 builds in a second.

    Inside, `count_params`, `tk.count_macs`, `tk.paper_gflops` and `summary` work;
    calling the model does not. The models are of no use afterwards: on leaving, Keras'
    session is cleared (all but the dtype policy), or it would allocate the weights later.

    Example:
        >>> with without_weights():
        ...     tk.paper_gflops(tk.create_model("vit_l16_tl16at12", image_size=512))
    """
    policy = keras.config.dtype_policy()
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        keras.utils.clear_session(free_memory=True)
        keras.config.set_dtype_policy(policy)
