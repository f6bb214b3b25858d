"""The auxiliary matrix that is self-consistent on one given ensemble, found from a matrix near it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hint_recipes.crystals.force_constants.cellconstructor import from_cellconstructor
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.sscha.ensemble_averages import mean_force
from hint_recipes.crystals.sscha.settings import SschaSettings

if TYPE_CHECKING:
    from cellconstructor.Phonons import Phonons
    from sscha.Ensemble import Ensemble

#: Share of the first gradient below which it is small; largest number of steps.
_TOLERANCE, _MAX_STEPS = 0.05, 30
#: First and smallest step; at a soft mode half the gradient can be too far.
_STEP, _SMALLEST_STEP = 0.5, 1 / 64


def self_consistent(ensemble: Ensemble, dyn: Phonons, settings: SschaSettings) -> ForceConstants | None:
    """Steps along ``<d2V/dR2> - Phi`` and, where the centroids are free, along the mean force over the curvature.

    The step length follows from how the gradient changed in the step before (Barzilai and Borwein); a step that leaves
    the positive definite matrices, or after which the gradient is larger, is halved.

    Parameters
    ----------
    ensemble
        With energies and forces; left with the weights of the matrix that is found.
    dyn
        The matrix from which the ensemble was drawn, or one near it; not changed.
    settings
        Temperature, and whether the centroids are free.

    Returns
    -------
    ForceConstants or None
        None where no step leads to half the gradient: the ensemble carries no self-consistent matrix.
    """

    def weighted(matrix: Phonons) -> tuple[np.ndarray, float]:
        ensemble.update_weights(matrix, settings.temperature)
        gradient = matrix.Copy()
        gradient.dynmats = list(np.array(ensemble.get_preconditioned_gradient()))
        gradient.Symmetrize()
        values = np.array(gradient.dynmats)
        return values, float(np.linalg.norm(values))

    gradient, norm = weighted(dyn)
    step, first = _STEP, norm
    for _ in range(_MAX_STEPS):
        if norm <= _TOLERANCE * first:
            break
        tried = _moved(dyn, gradient, ensemble, step, settings)
        if _positive(tried):
            new_gradient, new_norm = weighted(tried)
            if new_norm < norm:
                change = gradient - new_gradient
                length = step * float(np.vdot(gradient, change).real / np.vdot(change, change).real)
                step = min(max(length, _SMALLEST_STEP), 1.0)
                dyn, gradient, norm = tried, new_gradient, new_norm
                continue
            ensemble.update_weights(dyn, settings.temperature)
        step /= 2
        if step < _SMALLEST_STEP:
            break
    return from_cellconstructor(dyn) if norm <= 0.5 * first or not first else None


def _moved(dyn: Phonons, gradient: np.ndarray, ensemble: Ensemble, step: float, settings: SschaSettings) -> Phonons:
    import cellconstructor as CC

    moved = dyn.Copy()
    if settings.relax_positions:
        force = mean_force(ensemble, dyn) / CC.Units.RY_TO_EV * CC.Units.BOHR_TO_ANGSTROM  # Ry/Bohr
        curvature = np.linalg.pinv(np.real(dyn.dynmats[0]), rcond=1e-6, hermitian=True)
        shift = (curvature @ force.ravel()).reshape(-1, 3) * CC.Units.BOHR_TO_ANGSTROM
        moved.structure.coords += step * shift
    for index, matrix in enumerate(gradient):
        moved.dynmats[index] = moved.dynmats[index] - step * matrix
    moved.Symmetrize()
    return moved


def _positive(dyn: Phonons) -> bool:
    lowest = np.sort(from_cellconstructor(dyn).frequencies().ravel())[3]
    return bool(np.isfinite(lowest) and lowest > 0)
