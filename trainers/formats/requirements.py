"""The packages that a format needs, beyond those of the training."""

import importlib.util

from trainers.utils.errors import ConfigurationError

#: format -> modules that write it, or read it in the check.
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "saved_model": (),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
    "litert": ("ai_edge_litert",),
    "stablehlo": ("jax",),
}

FORMATS = tuple(REQUIREMENTS)


def missing_modules(format: str) -> list[str]:
    """Returns the modules that a format needs and that are not installed."""
    return [name for name in REQUIREMENTS[format] if importlib.util.find_spec(name) is None]


def check_requirements(format: str) -> None:
    """Checks that a format can be written and read here.

    Args:
        format: One of `FORMATS`.

    Raises:
        ConfigurationError: If a package is missing.
    """
    missing = missing_modules(format)
    if missing:
        raise ConfigurationError(
            f"--format={format} needs {', '.join(REQUIREMENTS[format])}. Not installed: "
            f"{', '.join(missing)}. Install them with: pip install '.[export]' in a clone"
        )
