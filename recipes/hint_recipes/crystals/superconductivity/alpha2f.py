"""The Eliashberg spectral function alpha2F: its moments, the Allen-Dynes critical temperature."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import units as ase_units

from hint_plugins.errors import InputError

#: meV in one kelvin.
KELVIN = 1000 * ase_units.kB


@dataclass(frozen=True)
class Alpha2F:
    """An Eliashberg spectral function on a grid.

    Attributes
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
