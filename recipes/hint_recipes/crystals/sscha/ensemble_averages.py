"""Free energy, stress and mean force of an evaluated ensemble, by python-sscha's formulas, in eV and A."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hint_recipes.crystals.sscha.ensemble_statistics import jackknife, mean_and_error

if TYPE_CHECKING:
    from cellconstructor.Phonons import Phonons
    from sscha.Ensemble import Ensemble


def free_energy(ensemble: Ensemble, pairs: np.ndarray) -> tuple[float, float]:
    """Free energy of the supercell at the ensemble's present weights, and its standard error, eV."""
    import cellconstructor as CC

    value = float(np.real(ensemble.get_free_energy()))
    _, error = mean_and_error(ensemble.energies - ensemble.sscha_energies, pairs, ensemble.rho)
    return value * CC.Units.RY_TO_EV, error * CC.Units.RY_TO_EV


def stress_and_error(ensemble: Ensemble, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stress tensor, positive under compression, at the present weights, and its standard error, eV/A^3."""
    import cellconstructor as CC

    def tensor(sample: Ensemble) -> np.ndarray:
        return np.asarray(sample.get_stress_tensor()[0]) * CC.Units.RY_TO_EV / CC.Units.BOHR_TO_ANGSTROM**3

    return tensor(ensemble), jackknife(ensemble, pairs, tensor)


def mean_force(ensemble: Ensemble, dyn: Phonons) -> np.ndarray:
    """``(n, 3)`` mean force on the centroids of the unit cell, symmetrised, eV/A."""
    import cellconstructor as CC

    forces = np.array(ensemble.get_average_forces(False))
    symmetry = CC.symmetries.QE_Symmetry(dyn.structure)
    symmetry.SetupQPoint(verbose=False)
    symmetry.SymmetrizeVector(forces)
    return forces * CC.Units.RY_TO_EV
