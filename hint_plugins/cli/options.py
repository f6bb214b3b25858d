"""Option values that several sub-commands read in the same way."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from hint_plugins.errors import InputError
from hint_plugins.runs.files import hold_output

# Options that are the same in every command.
Model = Annotated[str, typer.Option(help="Model file (file#head), tblite:GFN2-xTB, emt, or module:factory.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ... [default: the GPU when there is one].")]
Dtype = Annotated[str | None, typer.Option(help="float64 or float32 [default: the model's].")]
RunOut = Annotated[Path, typer.Option(help="Output directory; an unfinished run in it is continued.")]
Overwrite = Annotated[bool, typer.Option(help="Discard an earlier result in --out.")]


def name_values(items: list[str]) -> dict[str, Any]:
    """``["a=1", "b=x"]`` to a dictionary; values are YAML scalars."""
    import yaml

    values = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise InputError(f"{item!r}: expected NAME=VALUE")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"{item!r}: {error}") from None
    return values


def stem_beside(output: Path) -> str:
    """First part of the names of the files written beside ``output``.

    Its name without ``.xyz``, ``.aselmdb``, ``.extxyz.gz`` ...; its whole name where the summary under the short name
    is that of another output (``a.xyz`` beside ``a.aselmdb``).
    """
    import json

    short = output.name.removesuffix(".gz").rpartition(".")[0] or output.name
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        owner = json.loads(output.with_name(f"{short}.summary.json").read_text())["output"]
        if Path(owner).name != output.name:
            return output.name
    return short


def same_place(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file; a link that leads back to itself is left to whoever opens it."""
    return os.path.realpath(first) == os.path.realpath(second)


def refuse_existing(output: Path, overwrite: bool, *inputs: Path) -> None:
    """Stop before an older result or an input would be replaced."""
    if any(same_place(output, path) for path in inputs):
        raise InputError("IN and OUT are the same file")
    if output.exists() and not overwrite:
        raise InputError(f"{output} exists: choose another OUT, or add --overwrite")
    if output.parent.is_dir():
        hold_output(output)


def use_plugins(names: str | None) -> None:
    """Load the named plugins (separated by commas) and add their label engines, readers and selectors.

    Raises
    ------
    InputError
        If a plugin is not installed, or registers an engine that workers could not import.
    """
    if not names:
        return
    from hint_plugins.datasets import READERS
    from hint_plugins.labelling.engine import ENGINES
    from hint_plugins.plugins import PluginError, load_plugins
    from hint_plugins.selection.choose import SELECTORS

    try:
        manager = load_plugins([name.strip() for name in names.split(",")])
    except PluginError as error:
        raise InputError(str(error)) from error
    for additions in manager.hook.register_label_makers():
        ENGINES.update({name: _address(factory) for name, factory in (additions or {}).items()})
    for additions in manager.hook.register_readers():
        READERS.update({name: _address(reader) for name, reader in (additions or {}).items()})
    for additions in manager.hook.register_selectors():
        SELECTORS.update(additions or {})


def _address(target: Any) -> str:
    """``module:name`` under which workers find a function or class."""
    name = getattr(target, "__qualname__", "")
    if not name.isidentifier():
        raise InputError(f"{target!r} must be a function or class at the top level of a module")
    return f"{target.__module__}:{name}"
