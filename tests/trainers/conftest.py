"""Two logical CPUs, to rehearse replicas, and the trainer's command in this process."""

import keras

if keras.backend.backend() != "tensorflow":
    collect_ignore_glob = ["*"]
else:
    import signal
    from collections.abc import Iterator

    import pytest
    import tensorflow as tf

    # Before any test touches a device: TensorFlow allows it only then.
    if not tf.config.list_physical_devices("GPU"):
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2,
        )

    @pytest.fixture(autouse=True)
    def _signal_handlers() -> Iterator[None]:
        """Takes the trainer's signal handlers out again."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = [signal.getsignal(number) for number in numbers]
        yield
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
