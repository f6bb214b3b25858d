"""The auxiliary matrix that is self-consistent on one given ensemble, found from a matrix near it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hint_recipes.dynamical_matrices import from_cellconstructor
from hint_recipes.ensemble_averages import mean_force
from hint_recipes.force_constants import ForceConstants
from hint_recipes.sscha_state import SschaSettings

if TYPE_CHECKING:
    from cellconstructor.Phonons import Phonons
    from sscha.Ensemble import Ensemble

#: Half steps, until they are below this share of the first, or this many.
_TOLERANCE, _MAX_STEPS = 0.05, 30


def self_consistent(ensemble: Ensemble, dyn: Phonons, settings: SschaSettings) -> ForceConstants | None:
    """Half steps along ``<d2V/dR2> - Phi`` and, where the centroids are free, along the mean force over the curvature.

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
        None where a step leaves the positive definite matrices: the ensemble carries no self-consistent one.
    """
    import cellconstructor as CC

    dyn, first = dyn.Copy(), None
    ensemble.update_weights(dyn, settings.temperature)
    before = from_cellconstructor(dyn)
    for _ in range(_MAX_STEPS):
        gradient = np.array(ensemble.get_preconditioned_gradient())
        if settings.relax_positions:
            force = mean_force(ensemble, dyn) / CC.Units.RY_TO_EV * CC.Units.BOHR_TO_ANGSTROM  # Ry/Bohr
            curvature = np.linalg.pinv(np.real(dyn.dynmats[0]), rcond=1e-6, hermitian=True)
            shift = (curvature @ force.ravel()).reshape(-1, 3) * CC.Units.BOHR_TO_ANGSTROM
            dyn.structure.coords += 0.5 * shift
        for index, matrix in enumerate(gradient):
            dyn.dynmats[index] = dyn.dynmats[index] - 0.5 * matrix
        dyn.Symmetrize()
        after = from_cellconstructor(dyn)
        lowest = np.sort(after.frequencies().ravel())[3]
        if not np.isfinite(lowest) or lowest <= 0:
            return None
        ensemble.update_weights(dyn, settings.temperature)
        change = float(np.abs(after.hessian - before.hessian).max())
        first, before = first or change, after
        if change <= _TOLERANCE * first:
            break
    return before
