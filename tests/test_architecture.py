"""Arrows point one way: recipes -> core <- adapters."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOSTS = {"mace", "fairchem"}
OURS = {"hint_mace", "hint_fairchem", "hint_recipes"}
FORBIDDEN = {
    "hint_plugins": HOSTS | OURS,
    "adapters/hint_mace": {"fairchem", "hint_fairchem", "hint_recipes"},
    "adapters/hint_fairchem": {"mace", "hint_mace", "hint_recipes"},
    "recipes/hint_recipes": HOSTS | {"hint_mace", "hint_fairchem"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_only_what_they_may(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {f"{path.relative_to(ROOT)} imports {name}" for path in files for name in imports(path)} & {
        f"{path.relative_to(ROOT)} imports {name}" for path in files for name in FORBIDDEN[package]
    }
    assert not wrong


def test_every_command_can_be_loaded():
    """Entry points of the installed distribution name functions that exist."""
    from importlib.metadata import entry_points

    for entry in entry_points(group="hint_plugins.commands"):
        assert callable(entry.load()), entry.name
