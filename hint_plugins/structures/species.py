"""Chemical elements from the labels that files give to kinds of atoms."""

from __future__ import annotations

import re

from ase.data import chemical_symbols

from hint_plugins.datasets.record import RecordError
from hint_plugins.structures.isotopes import ISOTOPES

#: Letters of the symbol, then nothing, digits, or ``_`` or ``-`` and anything (the rule of pw.x for ATOMIC_SPECIES).
_LABEL = re.compile(r"([A-Za-z]{1,2})(\d+|[_-].*)?")


def element(label: str) -> tuple[str, float | None]:
    """Chemical symbol of a label such as ``Fe1``, ``O_s``, ``C-1``, ``TE`` or ``D``.

    The letters before the first other character are the symbol, in any case: ``C_o`` is carbon, ``Co1`` is cobalt.

    Returns
    -------
    symbol, mass
        The mass (u) where the label names an isotope (``D``, ``T``), None otherwise.

    Raises
    ------
    RecordError
        If the letters are no chemical symbol or something else follows them.
    """
    match = _LABEL.fullmatch(label.strip())
    symbol = match[1].capitalize() if match else ""
    if symbol in ISOTOPES:
        return "H", ISOTOPES[symbol]
    if symbol not in chemical_symbols[1:]:
        raise RecordError(
            f"{label.strip()!r} is no element: expected is a symbol, then nothing, digits, or _ or - and anything"
        )
    return symbol, None
