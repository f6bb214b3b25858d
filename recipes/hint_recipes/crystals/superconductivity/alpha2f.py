"""The Eliashberg spectral function alpha2F: reading it, its moments, the Allen-Dynes critical temperature."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import units as ase_units

from hint_plugins.errors import InputError
from hint_recipes.crystals.superconductivity.alpha2f_header import (
    FREQUENCY_UNITS,
    check_column,
    check_not_integrated,
    check_plausible,
    frequency_unit,
)

#: meV in one kelvin.
KELVIN = 1000 * ase_units.kB


@dataclass(frozen=True)
class Alpha2F:
    """An Eliashberg spectral function on a grid.

    Parameters
    ----------
    omega
        ``(n,)`` phonon energies, meV, positive and strictly rising.
    values
        ``(n,)`` alpha2F, dimensionless, not negative.
    read_as
        How the file was understood: unit, column.
    """

    omega: np.ndarray
    values: np.ndarray
    read_as: str = ""

    @property
    def coupling(self) -> float:
        """``lambda = 2 int alpha2F(w) / w dw``."""
        return float(2 * np.trapezoid(self.values / self.omega, self.omega))

    @property
    def omega_log(self) -> float:
        """Logarithmic average in K: ``exp(2 / lambda int alpha2F ln(w) / w dw)``."""
        integral = np.trapezoid(self.values * np.log(self.omega) / self.omega, self.omega)
        return float(np.exp(2 * integral / self.coupling) / KELVIN)

    @property
    def omega_2(self) -> float:
        """Second moment in K: ``sqrt(2 / lambda int alpha2F w dw)``."""
        return float(np.sqrt(2 * np.trapezoid(self.values * self.omega, self.omega) / self.coupling) / KELVIN)

    def cumulative_coupling(self) -> np.ndarray:
        """``lambda(w)`` integrated up to each grid point."""
        from scipy.integrate import cumulative_trapezoid

        return 2 * cumulative_trapezoid(self.values / self.omega, self.omega, initial=0)


@dataclass(frozen=True)
class AllenDynes:
    """Critical temperature of Allen and Dynes, Phys. Rev. B 12, 905 (1975)."""

    tc: float  #: K, with both strong-coupling factors
    tc_mcmillan: float  #: K, without them
    f1: float
    f2: float


def allen_dynes(coupling: float, omega_log: float, omega_2: float, mu_star: float) -> AllenDynes:
    """``Tc = f1 f2 wlog / 1.2 exp(-1.04 (1 + l) / (l - mu* (1 + 0.62 l)))``.

    Parameters
    ----------
    coupling
        lambda.
    omega_log, omega_2
        K.
    mu_star
        Coulomb pseudopotential.

    Returns
    -------
    AllenDynes
        Tc is 0 where the exponent's denominator is not positive.
    """
    if coupling <= 0 or omega_log <= 0 or omega_2 <= 0:
        raise InputError(f"lambda, omega_log and omega_2 must be positive, not {coupling}, {omega_log}, {omega_2}")
    ratio = omega_2 / omega_log
    lambda_1, lambda_2 = 2.46 * (1 + 3.8 * mu_star), 1.82 * (1 + 6.3 * mu_star) * ratio
    f1 = (1 + (coupling / lambda_1) ** 1.5) ** (1 / 3)
    f2 = 1 + (ratio - 1) * coupling**2 / (coupling**2 + lambda_2**2)
    denominator = coupling - mu_star * (1 + 0.62 * coupling)
    bare = omega_log / 1.2 * np.exp(-1.04 * (1 + coupling) / denominator) if denominator > 0 else 0.0
    return AllenDynes(float(f1 * f2 * bare), float(bare), float(f1), float(f2))


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


def from_modes(frequencies: np.ndarray, couplings: np.ndarray, weights: np.ndarray, smearing: float) -> Alpha2F:
    """alpha2F of single modes: ``1/2 sum_q w_q sum_nu lambda_qnu w_qnu delta(w - w_qnu)``, Gaussian delta.

    Parameters
    ----------
    frequencies
        ``(Q, m)`` in meV, positive where there is coupling.
    couplings
        ``(Q, m)`` mode-resolved lambda.
    weights
        ``(Q,)``, normalised to 1 here.
    smearing
        meV.

    Returns
    -------
    Alpha2F
        Each mode keeps its lambda exactly: the Gaussian is normalised with the weight ``1/w``.
    """
    shares = np.repeat(weights / weights.sum(), frequencies.shape[1])
    omega, coupling = frequencies.ravel(), couplings.ravel()
    used = coupling * shares > 0
    if (omega[used] <= 0).any():
        raise InputError("coupling at an imaginary frequency: alpha2F is not defined for an unstable crystal")
    if not used.any():
        raise InputError("no electron-phonon coupling in these modes")
    top = omega[used].max() + 6 * smearing
    axis = np.linspace(top / 4000, top, 4000)
    peaks = np.exp(-0.5 * ((axis[:, None] - omega[used]) / smearing) ** 2)
    peaks /= 2 * np.trapezoid(peaks / axis[:, None], axis, axis=0)
    return Alpha2F(axis, peaks @ (coupling * shares)[used])


def broadening_label(path: Path) -> str:
    """``a2F.dos3`` -> ``3``; other names unchanged."""
    match = re.search(r"a2F\.dos(\d+)$", path.name)
    return match[1] if match else path.stem
