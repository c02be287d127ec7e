"""The library's tests on every backend, each in an environment of its own: `make backends`.

The environment of `make test` has the newest TensorFlow and the trainer in it; these have
only what they name, which also shows that the library needs no other backend. The trainer
is tested here on the newest TensorFlow that has a build for TPUs.
"""

import shutil

import nox

nox.options.sessions = ["tensorflow", "trainer", "jax", "torch", "keras_hub", "tpu_check"]
nox.options.default_venv_backend = "venv"

#: `make test` runs on what is found first; these take the newest there is.
NEWEST_PYTHON = next((v for v in ("3.12", "3.11") if shutil.which(f"python{v}")), None)
#: The release that is tested; PyTorch's other builds come from its own index.
TORCH = "torch==2.13.0"
OLDEST_TENSORFLOW = "tensorflow-cpu==2.19.*"
# What the extra `tpu` takes, too: later ones need a newer protobuf than this TensorFlow.
METADATA = "tensorflow-metadata==1.17.3"
# As in the Makefile.
PYTEST = ("python", "-m", "pytest", "-n", "auto", "--maxprocesses=4", "--dist", "worksteal")
LIBRARY_TESTS = "tests/tokenlearner_keras"
TRAINER_TESTS = "tests/trainers"
OTHER_BACKENDS = {
    "tensorflow": ("jax", "torch"),
    "jax": ("tensorflow", "torch"),
    "torch": ("tensorflow", "jax"),
}


def _test_library(
    session: nox.Session, backend: str, *requirements: str, **environment: str
) -> None:
    session.install("--quiet", "--editable", ".[test,plots]", *requirements)
    _only_this_backend(session, backend)
    session.run(
        *PYTEST, "-m", "not slow or every_backend", LIBRARY_TESTS, *session.posargs,
        env={"KERAS_BACKEND": backend, **environment},
    )  # fmt: skip


def _only_this_backend(session: nox.Session, backend: str) -> None:
    """Imports the library, and fails if another backend is there to help it."""
    others = ", ".join(map(repr, OTHER_BACKENDS[backend]))
    script = (
        "import importlib.util, sys, tokenlearner_keras as tk; "
        f"found = [name for name in ({others},) if importlib.util.find_spec(name)]; "
        "sys.exit(f'not alone: {found}' if found else 0)"
    )
    session.run("python", "-c", script, env={"KERAS_BACKEND": backend})


@nox.session(python=NEWEST_PYTHON)
def tensorflow(session: nox.Session) -> None:
    """The library on the oldest TensorFlow, without the trainer's requirements."""
    _test_library(session, "tensorflow", OLDEST_TENSORFLOW)


@nox.session(python=NEWEST_PYTHON)
def trainer(session: nox.Session) -> None:
    """The trainer on the TensorFlow of Cloud TPUs: `tensorflow-tpu` ends at 2.19.1."""
    session.install(
        "--quiet", "--editable", ".[train,demo,video,test]", OLDEST_TENSORFLOW, METADATA
    )  # fmt: skip
    session.run(*PYTEST, "-m", "not slow", TRAINER_TESTS, *session.posargs)


@nox.session(python=NEWEST_PYTHON)
def jax(session: nox.Session) -> None:
    """The library on JAX, without TensorFlow."""
    # These programs are many, small and run once: optimising one takes longer than running it.
    _test_library(session, "jax", "jax", JAX_DISABLE_MOST_OPTIMIZATIONS="1")


@nox.session
def torch(session: nox.Session) -> None:
    """The library on PyTorch, without TensorFlow."""
    _test_library(session, "torch", TORCH)


@nox.session
def keras_hub(session: nox.Session) -> None:
    """TokenLearner inside keras-hub's ViT; keras-hub brings TensorFlow itself."""
    session.install("--quiet", "--editable", ".[test,keras-hub]")
    session.run(
        "python", "-m", "pytest", "tests/keras_hub", *session.posargs,
        env={"KERAS_BACKEND": "tensorflow"},
    )  # fmt: skip


@nox.session(python=NEWEST_PYTHON)
def tpu_check(session: nox.Session) -> None:
    """The trainer's steps compiled for TPUs, which needs JAX beside TensorFlow."""
    session.install("--quiet", "--editable", ".[tensorflow-cpu,train,tpu-check,demo,test]")
    session.run(
        "python", "-m", "pytest", "tests/trainers/test_tpu_check.py", *session.posargs,
        env={"KERAS_BACKEND": "tensorflow"},
    )  # fmt: skip
