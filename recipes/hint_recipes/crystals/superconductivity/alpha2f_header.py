"""What the comment lines of a spectral function say: the unit of its frequencies, the meaning of its columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from ase import units as ase_units

from hint_plugins.errors import InputError

#: Frequency units as factors to meV.
FREQUENCY_UNITS = {
    "meV": 1.0,
    "eV": 1000.0,
    "Ry": 1000 * ase_units.Rydberg,
    "Ha": 1000 * ase_units.Hartree,
    "THz": 1000 * 1e12 * ase_units._hplanck / ase_units._e,
    "cm-1": 1000 * 100 * ase_units._c * ase_units._hplanck / ase_units._e,
    "K": 1000 * ase_units.kB,
}
_SPELLINGS = {
    "meV": "mev",
    "eV": "ev",
    "Ry": "ry ryd rydberg rydbergs",
    "Ha": "ha hartree hartrees",
    "THz": "thz terahertz",
    "cm-1": "cm-1 cm^-1 cm^{-1} cm^(-1) cm**-1 cm**(-1) cm⁻¹ 1/cm",
    "K": "k kelvin",
}
_NAMES = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_KNOWN = "|".join(sorted(map(re.escape, _NAMES), key=len, reverse=True))
_FREQUENCY = r"(?<![\w*/])(?:w|e|f|nu|omega|ω|ν|Ω|freq\w*|energ\w*)"
#: ``E(THz)``, ``w [meV]``, ``omega (cm^(-1))``.
_BRACKETED = re.compile(
    rf"{_FREQUENCY}\.?\s*(?:\[\s*([^\[\]]*?)\s*\]|\(\s*((?:[^()]|\([^()]*\))*?)\s*\))", re.IGNORECASE
)
#: ``frequencies in Rydberg``, ``omega/meV``, ``E_THz``, ``frequency, cm-1``, ``energy unit: meV``, ``w meV``; a short
#: name (K, Ha) after nothing but blanks is more likely a word.
_END = r"(?![\w^*{(-])"
_WORDED = re.compile(
    rf"(?:{_FREQUENCY}\.?|\bunits?)(?:(?:\s*(?:\b(?:units?|in|are|is|of|frequenc\w*)\b|[/,_:=-]))+\s*({_KNOWN})|"
    rf"\s+((?=\S{{3}})(?:{_KNOWN}))){_END}",
    re.IGNORECASE,
)
#: ``(meV)`` anywhere.
_ALONE = re.compile(rf"[\[(]\s*({_KNOWN})\s*[\])]", re.IGNORECASE)
#: An alpha2F column that never falls by more than this share of its maximum is taken for an integral.
FALL = 0.05
#: Highest phonon energies, meV: below the first no crystal, above the second not even hydrogen.
PLAUSIBLE = (1.0, 600.0)


def frequency_unit(header: Sequence[str], given: str | None, source: str) -> str | None:
    """Unit of the frequencies: what the header states, else what is given.

    Parameters
    ----------
    header
        Comment lines before the numbers.
    given
        The user's choice, one of :data:`FREQUENCY_UNITS`, or None.
    source
        Name of the file, for messages.

    Returns
    -------
    str or None
        One of :data:`FREQUENCY_UNITS`; None if there is neither statement nor choice.

    Raises
    ------
    InputError
        If the statement is not understood, there are several, or it contradicts the choice.
    """
    bracketed = [match[1] or match[2] or "" for line in header for match in _BRACKETED.finditer(line)]
    unknown = [text for text in bracketed if text.lower().replace(" ", "") not in _NAMES]
    if unknown and given is None:
        raise InputError(
            f"{source}: the unit {unknown[0]!r} of its frequencies is not known; convert them to one of "
            f"{', '.join(FREQUENCY_UNITS)}, and give --unit if the header still says otherwise"
        )
    names = [text for text in bracketed if text not in unknown]
    names += [match[1] or match[2] for line in header for match in _WORDED.finditer(line)]
    names = names or [match[1] for line in header for match in _ALONE.finditer(line)]
    stated = {_NAMES[name.lower().replace(" ", "")] for name in names}
    if given is not None:
        if stated and given not in stated:
            raise InputError(f"{source}: the file says that its frequencies are in {min(stated)}, --unit says {given}")
        return given
    if len(stated) > 1:
        raise InputError(f"{source}: its header names several units ({', '.join(sorted(stated))}); give --unit")
    return next(iter(stated), None)


def check_column(header: Sequence[str], column: int, width: int, source: str) -> str:
    """Refuse columns that are not a total spectral function by the header; a name of the column from the header.

    Parameters
    ----------
    header
        Comment lines before the numbers.
    column
        From 1, the frequencies not counted.
    width
        Numbers in a row, the frequencies counted.
    """
    text = "\n".join(header).lower()
    if "a2f_total" in text and column > 1:
        raise InputError(f"{source}: column {column} is alpha2F of a single mode; the total is column 1")
    last = header[-1].split() if header else []
    numbers = [word for word in last if re.fullmatch(r"[-+]?\d*\.?\d+(e[-+]?\d+)?", word, re.IGNORECASE)]
    return numbers[column - 1] if len(numbers) == width - 1 else ""


def check_not_integrated(values: np.ndarray, column: int, source: str) -> None:
    """Refuse a column that is ``lambda(w)``, the integral of ``2 alpha2F / w``: it rises to its largest value.

    Raises
    ------
    InputError
        If the column never falls.
    """
    top = values.max(initial=0.0)
    falls = np.max(np.maximum.accumulate(values) - values, initial=0.0)
    if top > 0 and falls < FALL * top and values[0] < FALL * top:
        raise InputError(
            f"{source}: column {column} never falls, so it is lambda(w), the integral of 2 alpha2F / w; alpha2F ends "
            "at zero. Give the column of alpha2F (in EPW's files the first half of the columns)"
        )


def check_plausible(omega: np.ndarray, values: np.ndarray, unit: str, source: str) -> float:
    """Highest energy with weight, meV.

    Raises
    ------
    InputError
        If no crystal has phonons of this energy.
    """
    highest = float(omega[values > 1e-3 * values.max()].max())
    if not PLAUSIBLE[0] <= highest <= PLAUSIBLE[1]:
        raise InputError(
            f"{source}: read in {unit}, its highest phonon energy is {highest:.3g} meV; phonons reach at least "
            f"{PLAUSIBLE[0]:g} and at most {PLAUSIBLE[1]:g} meV. Give the unit of the frequencies as --unit"
        )
    return highest
