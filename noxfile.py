"""The library's tests on every backend, each in an environment of its own: `make backends`.

The environment of `make test` has the newest TensorFlow and the trainer in it; these have
only what they name, which also shows that the library needs no other backend. The trainer
is tested here on the newest TensorFlow that has a build for TPUs, and on JAX.
"""

import shutil
from pathlib import Path

import nox

nox.options.sessions = [
    *("tpu", "keras_hub", "zeromodels", "addons", "package", "docs", "torch", "jax", "tensorflow"),
    "python314",
]
# uv, where it is there, installs in seconds what takes pip a minute.
nox.options.default_venv_backend = "uv|venv"

#: `make test` takes Python 3.13; these are for what has no build for it, or is tested on another.
PYTHON = next((v for v in ("3.12", "3.11") if shutil.which(f"python{v}")), None)
#: The release that is tested; PyTorch's other builds come from its own index.
TORCH = "torch==2.13.0"
ZEROMODELS = "zeromodels==1.3.6"
OLDEST_TENSORFLOW = "tensorflow-cpu==2.19.*"
# What the extra `tpu` takes, too: later ones need a newer protobuf than this TensorFlow.
METADATA = "tensorflow-metadata==1.17.3"
# As in the Makefile.
PYTEST = ("python", "-m", "pytest", "-n", "auto", "--maxprocesses=4", "--dist", "worksteal")
#: What every environment runs: the tests whose outcome depends on the backend or its release.
CHOSEN = "every_backend and not extra"
LIBRARY_TESTS = "tests/tokenlearner_keras"
GOLDENS = f"{LIBRARY_TESTS}/test_goldens.py"
TRAINER_TESTS = "tests/trainers"
TPU_TESTS = (f"{TRAINER_TESTS}/test_tpu_check.py", f"{TRAINER_TESTS}/test_tpu_check_jax.py")
#: The settings of tests/conftest.py would change what these compile.
AS_USERS_COMPILE = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": ""}
#: The extra `jax` begins with 0.10.2, the last for Python 3.11; the session `tpu` has that one.
NEWEST_JAX = "jax==0.12.*"
OTHER_BACKENDS = {
    "jax": ("tensorflow", "torch"),
    "torch": ("tensorflow", "jax"),
}


def _test_library(session: nox.Session, backend: str, *requirements: str) -> None:
    """Tests the library on one backend, in an environment without the trainer's requirements."""
    session.install("--quiet", "--editable", ".[test,plots,examples]", *requirements)
    _only_this_backend(session, backend)
    session.run(
        *PYTEST, "-m", CHOSEN, LIBRARY_TESTS,
        *session.posargs,
        env={"KERAS_BACKEND": backend},
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


@nox.session(python=PYTHON)
def tensorflow(session: nox.Session) -> None:
    """The goldens and the trainer on the TensorFlow of Cloud TPUs: `tensorflow-tpu` 2.19.1."""
    session.install(
        "--quiet", "--editable", ".[train,demo,video,test]", OLDEST_TENSORFLOW, METADATA
    )  # fmt: skip
    session.run(*PYTEST, "-m", CHOSEN, GOLDENS, TRAINER_TESTS, *session.posargs)


@nox.session(python=PYTHON)
def jax(session: nox.Session) -> None:
    """The library on JAX without TensorFlow; then, beside it, the trainer.

    The trainer's steps run on eight virtual devices; TensorFlow reads the data.
    """
    # JAX writes StableHLO files with flatbuffers, and does not ask for it.
    _test_library(session, "jax", NEWEST_JAX, "flatbuffers")
    session.install("--quiet", "--editable", ".[tensorflow-cpu,train,demo,video,test]")
    session.run(
        *PYTEST, "-m", CHOSEN, TRAINER_TESTS, *session.posargs,
        env={"KERAS_BACKEND": "jax"},
    )  # fmt: skip


@nox.session(python="3.11")
def torch(session: nox.Session) -> None:
    """The library on PyTorch, without TensorFlow."""
    _test_library(session, "torch", TORCH)


@nox.session(python="3.11")
def tpu(session: nox.Session) -> None:
    """Programs of both engines for TPUs, compiled by libtpu; the goldens on the oldest JAX."""
    session.install("--quiet", "--editable", ".[tensorflow-cpu,train,tpu-check,test]")
    # One process: libtpu lets no second one in.
    session.run(
        "python", "-m", "pytest", "-k", "not wrong_usage", *TPU_TESTS, *session.posargs,
        env={"KERAS_BACKEND": "tensorflow", **AS_USERS_COMPILE},
    )  # fmt: skip
    session.run("python", "-m", "pytest", GOLDENS, env={"KERAS_BACKEND": "jax"})


@nox.session
def keras_hub(session: nox.Session) -> None:
    """TokenLearner inside keras-hub's Transformers; keras-hub brings TensorFlow itself."""
    session.install("--quiet", "--editable", ".[test,keras-hub,notebooks]")
    session.run(
        "python", "-m", "pytest", "tests/keras_hub", "tests/test_docs.py",
        "tests/test_notebooks.py", "-k", "keras_hub or 03_pretrained_vit", *session.posargs,
        env={"KERAS_BACKEND": "tensorflow"},
    )  # fmt: skip


@nox.session
def zeromodels(session: nox.Session) -> None:
    """TokenLearner inside zeromodels' Transformers."""
    session.install("--quiet", "--editable", ".[tensorflow-cpu,test]", ZEROMODELS)
    session.run(
        "python", "-m", "pytest", "tests/zeromodels", *session.posargs,
        env={"KERAS_BACKEND": "tensorflow"},
    )  # fmt: skip


@nox.session(python="3.14" if shutil.which("python3.14") else None)
def python314(session: nox.Session) -> None:
    """The library on JAX on Python 3.14, for which TensorFlow has no builds yet."""
    if session.python is None:
        session.skip("no Python 3.14 here")
    _test_library(session, "jax", NEWEST_JAX, "flatbuffers")


@nox.session(python="3.11")
def addons(session: nox.Session) -> None:
    """The library on Keras 2.15 beside tensorflow-addons, whose builds end at Python 3.11."""
    session.install(
        "--quiet", "--requirement", "requirements/addons.txt", "pytest>=8", "scikit-learn>=1.4"
    )  # fmt: skip
    session.install("--quiet", "--no-deps", "--editable", ".")  # its metadata ask for Keras 3
    session.run(
        "python", "-m", "pytest", "tests/addons", GOLDENS,
        *session.posargs,
    )  # fmt: skip


@nox.session(python=PYTHON)
def package(session: nox.Session) -> None:
    """Builds sdist and wheel, the wheel from the sdist; both packages are imported from it."""
    folder = Path(session.create_tmp())
    built = folder / "dist"
    shutil.rmtree(built, ignore_errors=True)
    session.install("--quiet", "build")
    session.run("python", "-m", "build", "--outdir", str(built))
    (wheel,) = built.glob("*.whl")
    (sdist,) = built.glob("*.tar.gz")
    # By itself, and by force: another build of the same version may be installed.
    session.install("--quiet", f"{wheel}[tensorflow-cpu,train]")
    session.install("--quiet", "--no-deps", "--force-reinstall", str(wheel))
    session.chdir(folder)  # so that nothing comes from the sources
    script = (
        "import sys, numpy, tokenlearner_keras as tk; "
        "model = tk.create_model('vit_ti16_tl8at6', num_classes=3, image_size=32); "
        "assert model(numpy.zeros((1, 32, 32, 3))).shape == (1, 3); "
        "assert 'site-packages' in tk.__file__, tk.__file__; "
        "sys.exit(tk.__version__ not in sys.argv[1] or tk.__version__ not in sys.argv[2])"
    )
    session.run("python", "-c", script, wheel.name, sdist.name)
    config = "import trainers.configs.digits as recipe; print(recipe.__file__)"
    path = str(session.run("python", "-c", config, silent=True)).split()[-1]
    session.run("python", "-m", "trainers.train", f"--config={path}", "--workdir=run", "--dry_run")
    # TFDS looks for the file of a builder whose module is in a package.
    shutil.rmtree("sets", ignore_errors=True)
    Path("sets").mkdir()
    shutil.copy(Path(__file__).parent / "tests/helpers/tfds_preparation.py", "sets")
    session.run("python", "-c", "from sets.tfds_preparation import prepare; prepare('sets/data')")


@nox.session(python=PYTHON)
def docs(session: nox.Session) -> None:
    """The documents with the API reference; a broken link or reference is an error."""
    # It reads the sources without importing them, so it needs no backend.
    session.install("--quiet", "--editable", ".[docs]")
    site = Path(session.create_tmp()) / "site"
    session.run("mkdocs", "build", "--strict", "--site-dir", str(site))
