"""The public face: every name is there, documented, and imported only when asked for."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import ghn

SOURCES = sorted(Path(ghn.__file__).parent.rglob("*.py"))
PUBLIC = [name for name in ghn.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name):
    value = getattr(ghn, name)
    assert inspect.getdoc(value)
    assert name in dir(ghn)
    if inspect.isclass(value):
        own = {key: member for key, member in vars(value).items() if not key.startswith("_")}
        undocumented = [
            key
            for key, member in own.items()
            if callable(member) or isinstance(member, property | classmethod)
            if not inspect.getdoc(member)
        ]
        assert undocumented == []


def test_version_and_unknown_names():
    assert ghn.__version__
    with pytest.raises(AttributeError, match="no attribute 'initialize'"):
        _ = ghn.initialize


def test_importing_is_light():
    code = "import sys, ghn; sys.exit(any(name in sys.modules for name in ('torch', 'timm', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def _undocumented(source: Path) -> list[str]:
    """Public classes and functions of a module without a docstring, and the module itself."""
    tree = ast.parse(source.read_text())
    missing = [] if ast.get_docstring(tree) or not tree.body else ["module"]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            missing += [] if ast.get_docstring(node) else [node.name]
    return missing


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_modules_classes_and_functions_are_documented(source):
    assert _undocumented(source) == []
