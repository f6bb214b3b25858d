"""Option values that several sub-commands read in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hint_plugins.errors import InputError

# Options that are the same in every command.
Model = Annotated[str, typer.Option(help="Model file (file#head), tblite:GFN2-xTB, emt, or module:factory.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ... [default: the GPU when there is one].")]
Dtype = Annotated[str | None, typer.Option(help="float64 or float32 [default: the model's].")]
RunOut = Annotated[Path, typer.Option(help="Output directory; an unfinished run in it is continued.")]
Overwrite = Annotated[bool, typer.Option(help="Discard an earlier result in --out.")]


def use_plugins(names: str | None) -> None:
    """Load the named plugins (separated by commas) and add their label engines, readers and selectors.

    Raises
    ------
    InputError
        If a plugin is not installed, or registers an engine that workers could not import.
    """
    if not names:
        return
    from hint_plugins.datasets.reading import READERS
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
