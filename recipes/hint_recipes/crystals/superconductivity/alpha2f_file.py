"""Reading the Eliashberg spectral function alpha2F."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hint_plugins.errors import InputError
from hint_recipes.crystals.superconductivity.alpha2f import Alpha2F
from hint_recipes.crystals.superconductivity.alpha2f_header import (
    FREQUENCY_UNITS,
    check_column,
    check_not_integrated,
    check_plausible,
    frequency_unit,
)


def read_alpha2f(path: str | Path, *, unit: str | None = None, column: int = 1, clip_negative: bool = False) -> Alpha2F:
    """Read alpha2F from Quantum ESPRESSO (``a2F.dosN``, ``alpha2F.dat``), EPW (``prefix.a2f``) or columns of numbers.

    Parameters
    ----------
    path
        The file. Lines that do not begin with a number are comments; those before the numbers state the unit.
    unit
        Unit of the first column, one of :data:`FREQUENCY_UNITS`, where the file states none.
    column
        Which alpha2F column to take, from 1 (EPW and ``lambda.x`` write one for each smearing).
    clip_negative
        Set negative values to zero instead of refusing them.

    Raises
    ------
    InputError
        If the unit is not stated, is not known or contradicts ``unit``; the grid does not rise; values are negative
        or not finite; weight lies at imaginary or zero frequency or where no crystal has phonons; the column is an
        integral or of a single mode; or the file holds fewer than three points.
    """
    path = Path(path)
    if unit is not None and unit not in FREQUENCY_UNITS:
        raise InputError(f"unknown unit {unit!r}: choose one of {', '.join(FREQUENCY_UNITS)}")
    table, header = _read_table(path)
    width = table.shape[1]
    if not 1 <= column < width:
        raise InputError(f"{path}: there is no alpha2F column {column}: the file has {width - 1}")
    name = check_column(header, column, width, str(path))
    known = frequency_unit(header, unit, str(path))
    factor = FREQUENCY_UNITS[known or "meV"]
    spectrum = check_alpha2f(table[:, 0] * factor, table[:, column], source=str(path), clip_negative=clip_negative)
    if known is None:
        raise InputError(
            f"{path}: it does not state the unit of its frequencies: give --unit, one of {', '.join(FREQUENCY_UNITS)}"
        )
    check_not_integrated(spectrum.values, column, str(path))
    highest = check_plausible(spectrum.omega, spectrum.values, known, str(path))
    read_as = (
        f"frequencies in {known} ({'as the file says' if unit is None else 'as given'}), column {column} of "
        f"{width - 1}{f' ({name})' if name else ''}; highest phonon energy {highest:.4g} meV"
    )
    return Alpha2F(spectrum.omega, spectrum.values, read_as)


def _read_table(path: Path) -> tuple[np.ndarray, list[str]]:
    """Rows of numbers, and the comment lines before them."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read: {error}") from None
    rows: list[list[float]] = []
    numbers, header = [], []
    for number, line in enumerate(lines, 1):
        try:
            row = [float(field.upper().replace("D", "E")) for field in line.split()]
        except ValueError:
            if not rows:
                header.append(line)
            continue
        if row:
            rows.append(row)
            numbers.append(number)
    width = len(rows[0]) if rows else 0
    if len(rows) < 3 or width < 2:
        raise InputError(f"{path}: expected rows of frequency and alpha2F, found {len(rows)} rows of {width} numbers")
    short = next((n for n, row in zip(numbers, rows, strict=True) if len(row) != width), None)
    if short is not None:
        raise InputError(f"{path}, line {short}: {width} numbers expected as in the rows before")
    return np.array(rows), header


def check_alpha2f(
    omega: np.ndarray, values: np.ndarray, *, source: str = "alpha2F", clip_negative: bool = False
) -> Alpha2F:
    """Refuse what is no spectral function; drop the weightless points at and below zero frequency.

    Raises
    ------
    InputError
        See :func:`read_alpha2f`.
    """
    if not (np.isfinite(omega).all() and np.isfinite(values).all()):
        raise InputError(
            f"{source}: values that are not finite at row {int(np.argmin(np.isfinite(omega + values))) + 1}"
        )
    falls = np.flatnonzero(np.diff(omega) <= 0)
    if len(falls):
        row = int(falls[0]) + 2
        raise InputError(
            f"{source}: frequencies must rise, but row {row} ({omega[row - 1]:g} meV) follows {omega[row - 2]:g} meV"
        )
    if clip_negative:
        values = np.maximum(values, 0.0)
    lowest = int(values.argmin())
    if values[lowest] < 0:
        raise InputError(
            f"{source}: alpha2F is negative ({values[lowest]:g}) at {omega[lowest]:g} meV (row {lowest + 1}); "
            "if this is noise, add --clip-negative"
        )
    below = omega <= 0
    if values[below].any():
        raise InputError(
            f"{source}: alpha2F has weight at imaginary or zero frequency (up to {values[below].max():g}): the "
            "crystal is unstable in this approximation, so lambda is not defined; use anharmonic phonons"
        )
    spectrum = Alpha2F(omega[~below], values[~below])
    if len(spectrum.omega) < 3 or not spectrum.values.any():
        raise InputError(f"{source}: no weight at positive frequencies")
    return spectrum
