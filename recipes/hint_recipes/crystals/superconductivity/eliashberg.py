"""Isotropic Migdal-Eliashberg equations on the imaginary (Matsubara) axis.

Allen and Mitrovic, Solid State Physics 37, 1 (1982). Energies in meV, temperatures in K.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hint_plugins.errors import InputError
from hint_recipes.crystals.superconductivity.alpha2f import KELVIN, Alpha2F, allen_dynes

#: Largest number of positive Matsubara frequencies; it sets the lowest temperature that is attempted.
MAX_FREQUENCIES = 3000


@dataclass(frozen=True)
class Gap:
    """The gap function at one temperature."""

    temperature: float  #: K
    matsubara: np.ndarray  #: ``(N,)`` positive Matsubara energies, meV
    delta: np.ndarray  #: ``(N,)`` gap, meV
    renormalisation: np.ndarray  #: ``(N,)`` Z
    iterations: int

    @property
    def edge(self) -> float:
        """Gap at the lowest Matsubara energy, meV."""
        return float(self.delta[0])


class Eliashberg:
    """Isotropic Migdal-Eliashberg equations for one spectral function.

    Parameters
    ----------
    spectrum
        alpha2F.
    mu_star
        Coulomb pseudopotential, as it enters the Allen-Dynes formula (cutoff: highest phonon energy).
    cutoff
        Matsubara cutoff in units of the highest phonon energy.
    rescale_mu
        Bring ``mu_star`` from the highest phonon energy to the Matsubara cutoff,
        ``1 / mu*(wc) = 1 / mu* - ln(wc / w_max)``; without it the value is used as it stands.

    Raises
    ------
    InputError
        If ``mu_star`` or ``cutoff`` make no sense.
    """

    def __init__(self, spectrum: Alpha2F, mu_star: float, *, cutoff: float = 10.0, rescale_mu: bool = True) -> None:
        if not 0 <= mu_star < 1:
            raise InputError(f"mu* must lie in [0, 1), not {mu_star}")
        if cutoff < 2:
            raise InputError(
                f"the Matsubara cutoff must be at least twice the highest phonon energy, not {cutoff} times"
            )
        self.spectrum = spectrum
        self.top = float(spectrum.omega[spectrum.values > 1e-6 * spectrum.values.max()].max())
        self.cutoff = cutoff * self.top
        self.mu = mu_star
        if rescale_mu and mu_star > 0:
            inverse = 1 / mu_star - np.log(cutoff)
            if inverse <= 1:
                raise InputError(
                    f"mu* = {mu_star} cannot be rescaled to a cutoff of {cutoff} phonon energies: lower it"
                )
            self.mu = 1 / inverse

    def count(self, temperature: float) -> int:
        """Number of positive Matsubara energies below the cutoff."""
        return max(4, int(np.ceil(self.cutoff / (2 * np.pi * KELVIN * temperature))))

    @property
    def lowest_temperature(self) -> float:
        """Temperature that :data:`MAX_FREQUENCIES` reaches, K."""
        return 1.01 * self.cutoff / (2 * np.pi * KELVIN * MAX_FREQUENCIES)

    def kernel(self, temperature: float, count: int) -> np.ndarray:
        """``lambda(n) = int 2 w alpha2F / (w^2 + nu_n^2) dw`` for ``nu_n = 2 pi n T``, ``n = 0 ... count - 1``."""
        nu = 2 * np.pi * KELVIN * temperature * np.arange(count)
        omega, values = self.spectrum.omega, self.spectrum.values
        spacing = np.diff(omega)
        weights = (np.append(spacing, 0) + np.append(0, spacing)) * omega * values  # trapezoid, times the factor 2
        used = weights > 0
        return np.concatenate(
            [weights[used] @ (1 / (omega[used, None] ** 2 + v**2)) for v in np.array_split(nu, 1 + count // 500)]
        )

    def _pair_kernels(self, temperature: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``lambda(n - m) - lambda(n + m + 1)``, their sum, and the tail of the first beyond the cutoff."""
        n = self.count(temperature)
        if n > MAX_FREQUENCIES:
            raise InputError(
                f"{temperature:.3g} K needs {n} Matsubara energies (at most {MAX_FREQUENCIES}): lower the cutoff"
            )
        coupling = self.kernel(temperature, 2 * n)
        index = np.arange(n)
        near = coupling[np.abs(index[:, None] - index)]
        far = coupling[index[:, None] + index + 1]
        total = np.concatenate([[0.0], np.cumsum(coupling)])
        tail = total[n + index + 1] - total[n - index]
        return near - far, near + far, tail

    def largest_eigenvalue(self, temperature: float) -> float:
        """Largest eigenvalue of the linearised equations; it passes through zero at Tc."""
        from scipy.linalg import eigh

        n = self.count(temperature)
        _, plus, _ = self._pair_kernels(temperature)
        coupling = self.kernel(temperature, n)
        diagonal = 2 * np.arange(n) + 1 + coupling[0] + 2 * np.concatenate([[0.0], np.cumsum(coupling[1:])])
        matrix = plus - 2 * self.mu - np.diag(diagonal)
        return float(eigh(matrix, eigvals_only=True, subset_by_index=[n - 1, n - 1])[0])

    def critical_temperature(self, *, tolerance: float = 1e-4) -> float:
        """Tc in K from the linearised equations; 0 where it lies below what :data:`MAX_FREQUENCIES` reaches.

        Parameters
        ----------
        tolerance
            Relative accuracy.
        """
        lowest = self.lowest_temperature
        guess = allen_dynes(self.spectrum.coupling, self.spectrum.omega_log, self.spectrum.omega_2, self.mu).tc
        low = high = max(guess, lowest)
        while self.largest_eigenvalue(high) > 0:
            low, high = high, high * 1.5
        while self.largest_eigenvalue(low) <= 0:
            if low <= lowest:
                return 0.0
            low, high = max(low / 1.5, lowest), low
        from scipy.optimize import brentq

        return float(brentq(self.largest_eigenvalue, low, high, rtol=tolerance, xtol=tolerance * low))

    def gap(self, temperature: float, *, tolerance: float = 1e-7, max_iterations: int = 5000) -> Gap:
        """Solve the full equations at one temperature by fixed-point iteration.

        Raises
        ------
        InputError
            If the temperature is too low for the cutoff, or the iteration does not converge (just below Tc).
        """
        minus, plus, tail = self._pair_kernels(temperature)
        energies = np.pi * KELVIN * temperature * (2 * np.arange(len(tail)) + 1)
        scale = np.pi * KELVIN * temperature
        delta = np.where(energies < self.top, 3 * KELVIN * temperature + 0.2 * self.top, 0.0)
        for iteration in range(1, max_iterations + 1):
            root = np.hypot(energies, delta)
            renormalisation = 1 + scale / energies * (minus @ (energies / root) + tail)
            update = scale * (plus @ (delta / root) - 2 * self.mu * (delta / root).sum()) / renormalisation
            change = np.abs(update - delta).max()
            delta = update
            if delta[0] < 1e-6 * KELVIN * temperature:
                return Gap(temperature, energies, np.zeros_like(delta), renormalisation, iteration)
            if change < tolerance * np.abs(delta).max():
                return Gap(temperature, energies, delta, renormalisation, iteration)
        raise InputError(
            f"the gap equations did not converge at {temperature:.4g} K: too close to Tc, leave this point out"
        )
