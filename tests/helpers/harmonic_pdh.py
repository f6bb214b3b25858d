"""PdH with the harmonic energy of the reference Hessian: a model whose anharmonic phonons are known."""

from __future__ import annotations

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from pdh_study import REFERENCES, palladium_hydride

from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.supercells import match_sites
from hint_recipes.crystals.phonons.harmonic import read_force_constants


class HarmonicPdH(Calculator):
    """Energy 1/2 u H u for the unit cell and the 2x2x2 supercell."""

    implemented_properties = ("energy", "forces")

    def __init__(self) -> None:
        super().__init__()
        constants = read_force_constants(REFERENCES[6].hessian, palladium_hydride()).acoustic_sum_rule()
        n = len(constants.primitive)
        folded = constants.hessian.reshape(constants.num_cells, 3 * n, constants.num_cells, 3 * n).mean(0).sum(1)
        self.crystals = {len(constants.supercell): constants}
        self.crystals[n] = ForceConstants(constants.primitive, (1, 1, 1), folded)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        constants = self.crystals[len(atoms)]
        ideal = constants.supercell
        order = match_sites(ideal, atoms, tolerance=2.0)
        moved = np.linalg.solve(ideal.cell.array.T, (atoms.positions[order] - ideal.positions).T).T
        shift = ((moved - np.rint(moved)) @ ideal.cell.array).ravel()
        force = -(constants.hessian @ shift)
        forces = np.zeros((len(atoms), 3))
        forces[order] = force.reshape(-1, 3)
        self.results = {"energy": float(-0.5 * shift @ force), "forces": forces}
