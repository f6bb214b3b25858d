"""Arrows point one way: recipes -> core <- adapters, commands -> everything else, and never in a circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
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
#: Modules of each package that may import commands.
COMMANDS = {
    "hint_plugins": "hint_plugins.cli",
    "hint_mace": "hint_mace.cli",
    "hint_fairchem": "hint_fairchem.cli",
    "hint_recipes": "hint_recipes.cli",
}


def within(name: str, package: str) -> bool:
    """Whether ``name`` is ``package`` or lies in it."""
    return f"{name}.".startswith(f"{package}.")


def modules(root: Path, folders: list[str]) -> dict[str, Path]:
    """Files of all modules, by dotted name."""
    found = {}
    for folder in folders:
        base = (root / folder).parent
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path) -> Iterator[str]:
    """Dotted names that a module imports, at its top or within functions; those only for type checks left out.

    ``from a import b`` gives ``a.b``, which may be a module or a name within one.
    """
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            nodes.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*origin, alias.name]) for alias in node.names)
        nodes.extend(ast.iter_child_nodes(node))


def graph(found: dict[str, Path]) -> dict[str, set[str]]:
    """For each module the modules among ``found`` that it imports."""
    edges: dict[str, set[str]] = {}
    for name, path in found.items():
        wanted = {full if full in found else full.rpartition(".")[0] for full in imports(name, path)}
        edges[name] = wanted & set(found) - {name}
    return edges


def circle(edges: dict[str, set[str]]) -> list[str]:
    """A chain of modules that ends where it began, or nothing."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return []


def command_imports(edges: dict[str, set[str]]) -> list[str]:
    """Imports of commands by modules that are none."""
    return [
        f"{name} imports {other}"
        for name, others in edges.items()
        for other in sorted(others)
        if not within(name, COMMANDS[name.split(".")[0]])
        and any(within(other, commands) for commands in COMMANDS.values())
    ]


@pytest.fixture(scope="module")
def edges() -> dict[str, set[str]]:
    return graph(modules(ROOT, list(FORBIDDEN)))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_only_what_they_may(package):
    files = modules(ROOT, [package])
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {other}"
        for name, path in files.items()
        for other in imports(name, path)
        if other.split(".")[0] in FORBIDDEN[package]
    ]
    assert not wrong


def test_nothing_but_commands_imports_commands(edges):
    assert not command_imports(edges)


def test_no_import_circles(edges):
    assert " -> ".join(circle(edges)) == ""


def test_the_rules_can_fail(tmp_path):
    """A circle through a function, and physics that imports a command, are found; imports for types are not."""
    package = tmp_path / "hint_recipes"
    (package / "cli").mkdir(parents=True)
    for name, text in {
        "__init__": "",
        "cli/__init__": "",
        "cli/inputs": "",
        "first": "from hint_recipes import second",
        "second": "def later():\n    from .first import thing",
        "third": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hint_recipes.fourth import Thing",
        "fourth": "from hint_recipes.third import Thing\nfrom hint_recipes.cli.inputs import load",
    }.items():
        (package / f"{name}.py").write_text(text)
    found = graph(modules(tmp_path, ["hint_recipes"]))
    assert set(circle(found)) == {"hint_recipes.first", "hint_recipes.second"}
    assert command_imports(found) == ["hint_recipes.fourth imports hint_recipes.cli.inputs"]
    (package / "second.py").write_text("")
    assert circle(graph(modules(tmp_path, ["hint_recipes"]))) == []


def test_every_command_can_be_loaded():
    """Entry points of the installed distribution name functions that exist."""
    from importlib.metadata import entry_points

    for entry in entry_points(group="hint_plugins.commands"):
        assert callable(entry.load()), entry.name
