"""Repetitions of a unit cell, as numbers or as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

from hint_plugins.errors import InputError

#: What the help shows for an option that takes three repetitions, ``2x2x2`` or ``2 2 2``.
METAVAR = "N1xN2xN3"
#: What the help shows for an option that also takes the nine numbers of a supercell matrix.
MATRIX_METAVAR = "N1xN2xN3|MATRIX"


def parse_supercell(value: str | Sequence[int], option: str = "supercell") -> tuple[int, int, int]:
    """``2x2x2``, ``2 2 2``, ``2,2,2`` or ``[2, 2, 2]`` -> ``(2, 2, 2)``.

    Parameters
    ----------
    value
        Text of the command line or of a configuration file, or three numbers.
    option
        For messages.

    Raises
    ------
    InputError
        If it is malformed.
    """
    text, numbers = _integers(value)
    if numbers is None or len(numbers) != 3:
        raise InputError(f"{option} {text!r}: expected three repetitions like 2x2x2")
    n1, n2, n3 = numbers
    if min(n1, n2, n3) < 1:
        raise InputError(f"{option} {text!r}: repetitions must be positive")
    return n1, n2, n3


def parse_supercell_matrix(value: str | Sequence[int], option: str = "--supercell") -> tuple[int, ...]:
    """Three repetitions (:func:`parse_supercell`), or the nine numbers of a supercell matrix row by row.

    Raises
    ------
    InputError
        If it is neither, or the matrix is singular.
    """
    text, numbers = _integers(value)
    if numbers is None or len(numbers) != 9:
        return parse_supercell(value, option)
    a, b, c, d, e, f, g, h, i = numbers
    if a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) == 0:
        raise InputError(f"{option} {text!r}: the three supercell vectors lie in one plane (determinant 0)")
    return numbers


def _integers(value: str | Sequence[int]) -> tuple[str, tuple[int, ...] | None]:
    """The text of the numbers, and they themselves where it holds nothing else."""
    text = value if isinstance(value, str) else " ".join(map(str, value))
    parts = re.split(r"\s*[x,;\s]\s*", text.strip(" []()").lower())
    try:
        return text, tuple(int(part) for part in parts)
    except ValueError:
        return text, None


def _stages(value: Any) -> tuple[tuple[int, int, int], ...]:
    return tuple(parse_supercell(stage, "--stage") for stage in value or ())


#: Fields of settings that take text or numbers.
Mesh = Annotated[tuple[int, int, int], BeforeValidator(lambda value: parse_supercell(value, "--mesh"))]
Supercell = Annotated[tuple[int, ...], BeforeValidator(parse_supercell_matrix)]
Stages = Annotated[tuple[tuple[int, int, int], ...], BeforeValidator(_stages)]
