"""Option values that several sub-commands read in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.errors import InputError

# Options that are the same in every command.
Model = Annotated[str, typer.Option(help="Model file (file#head), tblite:GFN2-xTB, emt, or module:factory.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ... [default: the GPU when there is one].")]
Dtype = Annotated[str | None, typer.Option(help="float64 or float32 [default: the model's].")]
RunOut = Annotated[Path, typer.Option(help="Output directory; an unfinished run in it is continued.")]
Overwrite = Annotated[bool, typer.Option(help="Discard an earlier result in --out.")]


def use_plugins(names: str | None) -> None:
    """Load the named plugins (separated by commas) and use what they register: label engines, readers, selectors ...

    Raises
    ------
    InputError
        If a plugin is not installed, or registers an engine that workers could not import.
    """
    from hint_plugins.plugins import PluginError, load_plugins
    from hint_plugins.registries import use

    try:
        use(load_plugins([name.strip() for name in names.split(",")]) if names else None)
    except PluginError as error:
        raise InputError(str(error)) from error
