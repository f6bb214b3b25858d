"""Option values that several sub-commands read in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hint_plugins.cli.common import InputError


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


def stem_of(path: Path) -> str:
    """File name without ``.xyz``, ``.aselmdb``, ``.extxyz.gz`` ..., for the files written beside it."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def refuse_existing(output: Path, overwrite: bool, *inputs: Path) -> None:
    """Stop before an older result or an input would be replaced."""
    if any(output.resolve() == path.resolve() for path in inputs):
        raise InputError("IN and OUT are the same file")
    if output.exists() and not overwrite:
        raise InputError(f"{output} exists: choose another OUT, or add --overwrite")
