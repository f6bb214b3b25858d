"""The text of a phonopy file as plain numbers, texts, lists and mappings; nothing that a YAML tag asks for is run."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from ase.data import atomic_masses, atomic_numbers

from hint_plugins.datasets.record import RecordError
from hint_plugins.structures.species import element

_OPENERS: dict[str, Callable[..., Any]] = {".bz2": bz2.open, ".xz": lzma.open, ".lzma": lzma.open, ".gz": gzip.open}
#: A file may hold so many bytes when unpacked (parsed, they take some thirty times as much memory).
MAX_BYTES = 256 * 2**20
#: Lists and mappings of a file may lie so deep in each other; phonopy's reach 5.
MAX_DEPTH = 50


def read_document(path: Path) -> dict[str, Any]:
    """The content of a ``phonopy*.yaml``, also packed (``.bz2``, ``.xz``, ``.lzma``, ``.gz``).

    Units in the spelling of older versions and labels of species that phonopy does not know are brought into its own.

    Raises
    ------
    RecordError
        If the file is damaged, too large, or asks for objects.
    """
    return _parse(_unpacked(path))


def _unpacked(path: Path) -> bytes:
    try:
        with _OPENERS.get(path.suffix.lower(), open)(path, "rb") as source:
            content = source.read(MAX_BYTES + 1)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise RecordError(f"cannot be unpacked (damaged or cut short): {error}") from error
    if len(content) > MAX_BYTES:
        raise RecordError(f"holds more than {MAX_BYTES >> 20} MiB when unpacked; such files are not read")
    return content


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain numbers, texts, lists and mappings; a tag that asks for an object is an error."""

    depth = 0

    def descend_resolver(self, parent: Any, index: Any) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:  # the parser is recursive and would end the process
            raise RecordError(f"phonopy cannot read it: lists in lists, more than {MAX_DEPTH} deep")
        super().descend_resolver(parent, index)

    def ascend_resolver(self) -> None:
        self.depth -= 1
        super().ascend_resolver()

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if node in self.constructed_objects:  # a list of references to lists of references ... fills the memory
            raise RecordError("it holds YAML references (*name), which phonopy does not write; they are not read")
        return super().construct_object(node, deep=deep)


def _parse(content: bytes) -> dict[str, Any]:
    try:
        document = yaml.load(content, Loader=_Loader)
    except yaml.constructor.ConstructorError as error:
        raise RecordError(f"it asks for objects that are not built from a file: {error.problem}") from None
    if not isinstance(document, dict):
        raise RecordError("phonopy cannot read it: no mapping of names to values")
    header = document.get("phonopy")
    calculator = header.get("calculator") if isinstance(header, dict) else None
    _current_units(document.get("physical_unit"), calculator)
    for cell in (document, *(document.get(name) for name in ("unit_cell", "primitive_cell", "supercell"))):
        sites = (cell.get("points") or cell.get("atoms") or []) if isinstance(cell, dict) else []
        isotopes = [_plain_label(site) for site in sites]
        if any(isotopes):  # phonopy wants masses of all sites or of none
            for site, mass in zip(sites, isotopes, strict=True):
                site.setdefault("mass", mass or atomic_masses[atomic_numbers[element(site["symbol"])[0]]])
    return document


def _current_units(stated: Any, calculator: str | None) -> None:
    """Units of older versions differ in upper and lower case only (``Angstrom``); phonopy refuses all others."""
    from phonopy.interface.calculator import get_calculator_physical_units

    known = get_calculator_physical_units(calculator)
    for name, value in (stated or {}).items():
        own = getattr(known, name, None) or getattr(known, f"{name}_unit", None)
        if isinstance(own, str) and str(value).lower() == own.lower():
            stated[name] = own


def _plain_label(site: dict[str, Any]) -> float | None:
    """Labels that phonopy does not know (``D``, ``O_s``) as symbols; ``Fe1``, another sort of Fe, stays.

    Returns
    -------
    float or None
        The mass (u) that the label stands for.
    """
    mass = None
    if "mixture" in site or float(site.get("weight", 1.0)) != 1.0:
        raise RecordError("sites that several elements share (mixture, weight) have no Hessian of atoms")
    for key in ("extended_symbol", "symbol"):
        if key in site:
            symbol, isotope = element(str(site[key]))
            mass = mass or isotope
            if not (str(site[key]).startswith(symbol) and str(site[key])[len(symbol) :].isdecimal()):
                site[key] = symbol
    return mass
