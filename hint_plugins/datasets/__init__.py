"""Readers of published data sets, all giving structures labelled in this project's names and units."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.labels.other_formats import known_to_ase
from hint_plugins.labels.store import OnBad, StoreError, raise_bad, read_structures

#: Readers by format; the value is ``module:function`` with the signature ``(path, bad, **options)``.
READERS: dict[str, str] = {
    "extxyz": "hint_plugins.datasets:read_store",
    "aselmdb": "hint_plugins.datasets:read_store",
    "ase": "hint_plugins.datasets:read_store",
    "horm": "hint_plugins.datasets.horm:read_horm",
    "transition1x": "hint_plugins.datasets.transition1x:read_transition1x",
    "rgd1": "hint_plugins.datasets.rgd1:read_rgd1",
    "hessian-qm9": "hint_plugins.datasets.hessian_qm9:read_hessian_qm9",
    "deepmd": "hint_plugins.datasets.deepmd:read_deepmd",
    "qe-fc": "hint_plugins.datasets.espresso_fc:read_espresso_fc",
    "phonopy": "hint_plugins.datasets.phonopy_mdr:read_phonopy",
}


def read_dataset(path: Path | str, format: str = "auto", bad: OnBad | None = None, **options: Any) -> Iterator[Atoms]:
    """Stream the labelled structures of a data set; nothing but the present record is in memory.

    Parameters
    ----------
    path
        File or directory.
    format
        A key of :data:`READERS`, ``module:function``, or ``auto``.
    bad
        Called with index and reason for each record that cannot be used; by default that is an error.
    options
        Of the reader.

    Raises
    ------
    StoreError
        Unknown format or option, unreadable file, a bad record under the default policy.
    """
    path = Path(path)
    if not path.exists():
        raise StoreError(f"{path}: no such file or directory")
    name = detect_format(path) if format == "auto" else format
    module, _, function = READERS.get(name, name).partition(":")
    try:
        reader = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(READERS)
        raise StoreError(f"unknown format {format!r}: choose auto, {known}, or module:function ({error})") from error
    try:
        return reader(path, bad or raise_bad(path), **options)
    except TypeError as error:
        raise StoreError(f"format {name!r}: {error}") from error


def detect_format(path: Path) -> str:
    """Guess the format from names and, for HDF5, from the groups.

    Raises
    ------
    StoreError
        If nothing fits.
    """
    name = path.name.lower()
    if path.is_dir():
        if any(path.glob("*/*.arrow")) or any(path.glob("*.arrow")):
            return "hessian-qm9"
        if any(path.glob("*.aselmdb")):
            return "aselmdb"
        if any(path.rglob("type.raw")):
            return "deepmd"
        if any(path.rglob("*.yaml*")):
            return "phonopy"
    elif name.removesuffix(".gz").endswith((".xyz", ".extxyz")):
        return "extxyz"
    elif name.endswith(".aselmdb"):
        return "aselmdb"
    elif name.endswith(".lmdb"):
        return "horm"
    elif name.endswith(".fc"):
        return "qe-fc"
    elif ".yaml" in name:
        return "phonopy"
    elif name.endswith((".h5", ".hdf5")):
        from hint_plugins.datasets.hdf5 import open_hdf5

        with open_hdf5(path) as file:
            return "transition1x" if "data" in file else "rgd1"
    elif known_to_ase(path):
        return "ase"
    raise StoreError(f"{path}: cannot tell the format; give --format, one of {', '.join(READERS)}")


def read_store(path: Path, bad: OnBad) -> Iterator[Atoms]:
    """Files of structures, or all .aselmdb files of a directory."""
    if not path.is_dir():
        yield from read_structures(path, bad)
        return
    for file in sorted(path.glob("*.aselmdb")):

        def named(index: int, reason: str, name: str = file.name) -> None:
            bad(index, f"{name}: {reason}")

        yield from read_structures(file, named)
