"""Several CPUs, to rehearse replicas, places for files, and the trainer's command."""

import keras

if keras.backend.backend() not in ("tensorflow", "jax"):
    collect_ignore_glob = ["*"]
else:
    import signal
    from collections.abc import Iterator
    from pathlib import Path

    import pytest
    import tensorflow as tf

    from tests.helpers.small_runs import Trainer
    from trainers.utils import files

    # Before any test touches a device: only then it is allowed.
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", 8)
    elif not tf.config.list_physical_devices("GPU"):
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

    @pytest.fixture(params=["local", "ram"])
    def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
        """A directory to be made, on the disk and on a file system of TensorFlow."""
        if request.param == "local":
            yield str(tmp_path / "directory")
        else:
            yield f"ram://{tmp_path.name}/directory"
            files.remove(f"ram://{tmp_path.name}")

    @pytest.fixture(scope="session")
    def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A finished run on the digits, to read: moving averages, two sets, two checkpoints."""
        keras.backend.clear_session()
        with pytest.MonkeyPatch.context() as monkeypatch:
            return Trainer(monkeypatch, tmp_path_factory.mktemp("trained"))(
                "run",
                "--config.ema_decay=0.5",
                "--config.eval_steps=2",
                "--config.checkpoint_steps=2",
                "--config.data.eval_sets=('held_out=digits:test',)",
            )

    @pytest.fixture
    def trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainer:
        """The trainer's command; the names of the layers begin anew."""
        keras.backend.clear_session()
        return Trainer(monkeypatch, tmp_path)
