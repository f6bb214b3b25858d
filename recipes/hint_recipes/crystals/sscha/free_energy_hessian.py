"""Second derivative of the SSCHA free energy: which modes of the anharmonic crystal are unstable, with errors.

Bianco et al., Phys. Rev. B 96, 014111 (2017), as python-sscha computes it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hint_plugins.errors import InputError
from hint_plugins.units import CM1
from hint_recipes.crystals.force_constants.cellconstructor import from_cellconstructor, output_to, to_cellconstructor
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.sscha.ensemble_statistics import jackknife
from hint_recipes.crystals.sscha.populations import draw
from hint_recipes.crystals.sscha.self_consistency import self_consistent
from hint_recipes.crystals.sscha.settings import SschaSettings

if TYPE_CHECKING:
    from sscha.Ensemble import Ensemble

    from hint_recipes.crystals.sscha.ensemble import EnsembleEngine


@dataclass(frozen=True)
class FreeEnergyHessian:
    """Free-energy Hessian and its statistical errors.

    Attributes
    ----------
    constants
        Second derivative of the free energy with respect to the centroids, in the supercell.
    squares, square_errors
        ``(num_q, 3n)`` squared frequencies in cm^-2 (negative: unstable), ascending at every q point, and their
        standard errors (jackknife over mirror pairs). An error is not a number where a block of the jackknife carries
        no self-consistent matrix.
    """

    constants: ForceConstants
    squares: np.ndarray
    square_errors: np.ndarray

    @property
    def frequency_errors(self) -> np.ndarray:
        """``(num_q, 3n)`` half widths of one standard error in the signed frequency, cm^-1."""
        upper, lower = self.squares + self.square_errors, self.squares - self.square_errors
        return (_signed_root(upper) - _signed_root(lower)) / 2

    @property
    def lowest(self) -> tuple[float, float]:
        """Lowest squared frequency that is no uniform translation, and its error, cm^-2."""
        flat = np.argsort(np.abs(self.squares[0]))[3:]  # the translations are the three zeros at Gamma
        squares = np.concatenate([self.squares[0][flat], self.squares[1:].ravel()])
        errors = np.concatenate([self.square_errors[0][flat], self.square_errors[1:].ravel()])
        index = int(squares.argmin())
        return float(squares[index]), float(errors[index])

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds."""
        square, error = self.lowest
        interval = _signed_root(np.array([square - error, square, square + error]))
        return {
            "frequencies_gamma_cm1": self.constants.frequencies()[0],
            "frequency_errors_gamma_cm1": self.frequency_errors[0],
            "lowest_cm1": float(interval[1]),
            "lowest_error_cm1": float((interval[2] - interval[0]) / 2),
            "lowest_squared_cm2": square,
            "lowest_squared_error_cm2": error,
            "n_unknown_errors": int((~np.isfinite(self.square_errors)).sum()),
        }


def _signed_root(squares: np.ndarray) -> np.ndarray:
    return np.sign(squares) * np.sqrt(np.abs(squares))


def free_energy_hessian(
    constants: ForceConstants,
    engine: EnsembleEngine,
    settings: SschaSettings,
    count: int,
    *,
    four_phonon: bool = False,
    log: Path | None = None,
) -> FreeEnergyHessian:
    """Second derivative of the free energy with respect to the centroids, on a fresh large ensemble.

    It belongs to the auxiliary matrix that is self-consistent on this ensemble, not to the given one: soft modes depend
    on that matrix strongly, and the error has to hold its error too. Every block of the jackknife finds its own.

    Parameters
    ----------
    constants
        Converged auxiliary force constants, from which the ensemble is drawn.
    engine, settings
        As in :func:`hint_recipes.crystals.sscha.populations.run`.
    count
        Configurations (5,000-10,000 for converged soft modes).
    four_phonon
        Include the fourth-order term; memory ``(3 N)^4 * 8`` bytes for ``N`` atoms in the supercell.

    Raises
    ------
    InputError
        If the fourth-order tensor would not fit into 32 GB.
    """
    size = (3 * len(constants.supercell)) ** 4 * 8 / 1e9
    if four_phonon and size > 32:
        raise InputError(
            f"the fourth-order term needs {size:.0f} GB for {len(constants.supercell)} atoms: leave it out"
        )

    with output_to(log):
        dyn = to_cellconstructor(constants)
        dyn.Symmetrize()
        ensemble = draw(dyn, settings.temperature, count, (settings.seed, 10**6))
        ensemble, pairs = engine.fill(ensemble, label="free-energy Hessian")

        own = self_consistent(ensemble, dyn, settings) is not None
        if not own:
            print(
                f"hint: the {count} configurations carry no self-consistent matrix: the free-energy Hessian belongs to "
                "that of the last population, whose error its errors leave out; take more configurations",
                file=sys.stderr,
            )

        def curvature(sample: Ensemble) -> ForceConstants:
            if not own:
                sample.update_weights(dyn, settings.temperature)
            return from_cellconstructor(sample.get_free_energy_hessian(include_v4=four_phonon)).acoustic_sum_rule()

        def squares(sample: Ensemble) -> np.ndarray:
            if own and self_consistent(sample, dyn, settings) is None:
                return np.full_like(values, np.nan)
            return _squares(curvature(sample))

        whole = curvature(ensemble)
        values = _squares(whole)
        return FreeEnergyHessian(whole, values, jackknife(ensemble, pairs, squares, blocks=8))


def _squares(constants: ForceConstants) -> np.ndarray:
    return np.linalg.eigvalsh(constants.dynamical_matrices()) * CM1**2
