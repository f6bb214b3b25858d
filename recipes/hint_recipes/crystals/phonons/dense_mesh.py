"""What the supercell leaves out of a free energy: the harmonic part on a dense q mesh.

A supercell sums over few wave vectors. The auxiliary force constants interpolate to all others, so that
``F_harm[Phi](dense mesh) - F_harm[Phi](commensurate points)`` removes most of the dependence on the supercell, and
crystals with different unit cells can be compared.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import units

from hint_plugins.units import THZ_TO_CM1
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.phonons.harmonic import IMAGINARY_BELOW, KJ_MOL

#: Length (A) that sets the mesh: divisions along a reciprocal vector are its length (no 2 pi) times this.
MESH_LENGTH = 60.0


@dataclass(frozen=True)
class DenseMesh:
    """Harmonic free energy on a dense mesh minus that at the supercell's wave vectors, eV per unit cell.

    Attributes
    ----------
    mesh
        Divisions, Gamma-centred.
    difference
        To be added to a free energy from the supercell.
    uncertainty
        What half the mesh changes.
    num_imaginary
        Imaginary modes on the mesh (interpolated); the difference means nothing when there are any.
    """

    mesh: tuple[int, int, int]
    difference: float
    uncertainty: float
    num_imaginary: int

    @property
    def usable(self) -> bool:
        return self.num_imaginary == 0

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds."""
        return {**asdict(self), "usable": self.usable}


def harmonic_free_energy(frequencies: np.ndarray, temperature: float) -> np.ndarray:
    """``h nu / 2 + k T ln(1 - exp(-h nu / k T))`` of every mode, eV; ``frequencies`` in cm^-1, all positive."""
    energies = np.asarray(frequencies) * units.invcm
    if temperature <= 0:
        return energies / 2
    thermal = units.kB * temperature
    return energies / 2 + thermal * np.log(-np.expm1(-energies / thermal))


def dense_mesh(constants: ForceConstants, temperature: float, length: float = MESH_LENGTH) -> DenseMesh:
    """The harmonic free energy that the supercell's wave vectors miss.

    Parameters
    ----------
    constants
        Auxiliary force constants of a finished SSCHA run.
    temperature
        K.
    length
        Fineness of the mesh, A; larger is finer.
    """
    own = np.sort(constants.frequencies().ravel())[3:]  # without the uniform translations
    commensurate = harmonic_free_energy(own, temperature).sum() / constants.num_cells
    reciprocal = np.linalg.norm(constants.primitive.cell.reciprocal().array, axis=1)
    mesh = np.maximum(np.ceil(length * reciprocal), 2).astype(int)
    phonon = constants.to_phonopy()
    values, count = [], 0
    for divisions in ((mesh + 1) // 2, mesh):
        grid = phonon.run_mesh(divisions, is_gamma_center=True)
        low = np.asarray(grid.frequencies) * THZ_TO_CM1 < IMAGINARY_BELOW
        count = int((low * np.asarray(grid.weights)[:, None]).sum())
        thermal = phonon.run_thermal_properties(
            temperatures=np.array([float(temperature)]), exclude_gamma_acoustic=True
        )
        values.append(float(np.asarray(thermal.free_energy)[0]) * KJ_MOL)
    coarse, fine = values
    n1, n2, n3 = (int(m) for m in mesh)
    return DenseMesh((n1, n2, n3), fine - float(commensurate), abs(fine - coarse), count)
