"""A crystal whose self-consistent harmonic problem has an exact solution.

Nearest neighbours of an fcc crystal are tied by ``k/2 d^2 + g/4 d^4`` for each Cartesian component ``d`` of their
relative displacement (invariant under the cubic group). Averaged over a Gaussian, the second derivative of a bond is
``k + 3 g <d^2>``: the auxiliary force constants solve a fixed-point equation without any sampling.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.units import _amu, _e, _hbar, kB

from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.supercells import match_sites
from hint_recipes.crystals.force_constants.unit_cells import for_supercell

#: hbar in units where eV, A and u give time: sqrt(u A^2 / eV) * eV.
HBAR = _hbar / np.sqrt(_amu * 1e-20 * _e)


class QuarticCrystal(Calculator):
    """ASE calculator for displaced supercells of one fcc crystal."""

    implemented_properties = ("energy", "forces")

    def __init__(
        self,
        k: float = 0.5,
        g: float = 4.0,
        multiples: tuple[int, int, int] = (2, 2, 2),
        matrix: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.k, self.g, self.multiples = k, g, multiples
        self.primitive = bulk("Al", a=4.05)
        if matrix is not None:
            self.primitive, self.multiples = for_supercell(self.primitive, matrix)
        self.ideal = self.primitive.repeat(self.multiples)
        self.bonds = self._find_bonds(self.ideal)

    @staticmethod
    def _find_bonds(atoms: Atoms) -> np.ndarray:
        from ase.neighborlist import neighbor_list

        i, j = neighbor_list("ij", atoms, 4.05 / np.sqrt(2) * 1.1)
        return np.stack([i, j])[:, i < j]

    def displacements(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
        """Displacements in the order of the ideal supercell, and that order."""
        order = match_sites(self.ideal, atoms, tolerance=2.0)
        moved = np.linalg.solve(self.ideal.cell.array.T, (atoms.positions[order] - self.ideal.positions).T).T
        return (moved - np.rint(moved)) @ self.ideal.cell.array, order

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        if len(atoms) == len(self.primitive):
            self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}
            return
        moved, order = self.displacements(atoms)
        i, j = self.bonds
        d = moved[i] - moved[j]
        slope = self.k * d + self.g * d**3
        sorted_forces = np.zeros_like(moved)
        np.add.at(sorted_forces, i, -slope)
        np.add.at(sorted_forces, j, slope)
        forces = np.zeros_like(sorted_forces)
        forces[order] = sorted_forces
        self.results = {"energy": float((self.k * d**2 / 2 + self.g * d**4 / 4).sum()), "forces": forces}

    def springs(self, stiffness: np.ndarray) -> np.ndarray:
        """Hessian ``(3N, 3N)`` for stiffnesses ``(bonds, 3)``."""
        n = len(self.ideal)
        hessian = np.zeros((n, 3, n, 3))
        i, j = self.bonds
        for a in range(3):
            np.add.at(hessian, (i, a, i, a), stiffness[:, a])
            np.add.at(hessian, (j, a, j, a), stiffness[:, a])
            np.add.at(hessian, (i, a, j, a), -stiffness[:, a])
            np.add.at(hessian, (j, a, i, a), -stiffness[:, a])
        return hessian.reshape(3 * n, 3 * n)

    def solve(self, temperature: float) -> tuple[ForceConstants, float]:
        """The auxiliary force constants and the free energy (eV a unit cell) of the self-consistent solution."""
        masses = np.repeat(self.ideal.get_masses(), 3)
        i, j = self.bonds
        spread = np.full((len(i), 3), 0.1)
        for _ in range(2000):
            hessian = self.springs(self.k + 3 * self.g * spread)
            values, vectors = np.linalg.eigh(hessian / np.sqrt(masses[:, None] * masses))
            omega = np.sqrt(values[3:])
            occupation = 0.5 if temperature == 0 else 0.5 / np.tanh(HBAR * omega / (2 * kB * temperature))
            patterns = (vectors[:, 3:] / np.sqrt(masses)[:, None]).reshape(-1, 3, len(omega))
            bond = patterns[i] - patterns[j]
            update = (bond**2 * (HBAR / omega) * occupation).sum(-1)
            if np.abs(update - spread).max() < 1e-14:
                break
            spread = (spread + update) / 2
        energy = (HBAR * omega / 2).sum()
        if temperature:
            energy += kB * temperature * np.log(1 - np.exp(-HBAR * omega / (kB * temperature))).sum()
        # <V> - <V_auxiliary>: k and 3 g <d^2> cancel but for - 3/4 g <d^2>^2 a bond and component
        energy -= 0.75 * self.g * (spread**2).sum()
        return ForceConstants(self.primitive, self.multiples, hessian), energy / len(self.ideal)
