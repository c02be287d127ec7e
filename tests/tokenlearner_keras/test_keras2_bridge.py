"""The names that the library takes from `keras.ops`, against those that Keras 2 gets."""

import ast
from collections.abc import Iterator
from pathlib import Path

import tokenlearner_keras

PACKAGE = Path(tokenlearner_keras.__file__).parent
BRIDGE = PACKAGE / "keras2_bridge.py"


def test_the_bridge_has_every_operation_that_the_library_uses() -> None:
    used = {
        name: path.name for path in PACKAGE.rglob("*.py") if path != BRIDGE for name in _used(path)
    }
    assert "matmul" in used
    missing = {name: file for name, file in used.items() if name not in _bridged()}
    assert not missing


def _used(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "ops":
                yield node.attr


def _bridged() -> set[str | None]:
    for node in ast.walk(ast.parse(BRIDGE.read_text())):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "keras.ops":
            assert isinstance(node.value, ast.Call)
            return {keyword.arg for keyword in node.value.keywords}
    raise AssertionError("keras2_bridge.py gives Keras 2 no keras.ops")
