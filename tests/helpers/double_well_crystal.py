"""A crystal with a soft mode whose self-consistent harmonic problem, and transition temperature, can be solved.

Zincblende; in every primitive cell the displacement ``d`` of the second atom against the first has the energy
``k/2 |d|^2 + c dx dy dz + g/4 (dx^4 + dy^4 + dz^4)`` with ``k < 0``: a well at each of eight corners, which the cubic
term makes unequal. Harmonic springs ``s/2 |u_i - u_j|^2`` tie neighbouring atoms of one kind. Averaged over a Gaussian,
the second derivative of a cell needs only ``<d d^T>``, so the auxiliary force constants solve an equation for six
numbers, and the free-energy Hessian of the optical mode at Gamma is the derivative of the mean force with respect to a
uniform ``d``. The fourth derivatives do not couple to the third ones: the bubble term is the whole correction.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list
from ase.units import kB
from scipy.optimize import brentq, root

from helpers.quartic_crystal import HBAR
from hint_plugins.units import CM1
from hint_recipes.crystals.force_constants.supercells import match_sites

LATTICE = 5.6
_UPPER = np.triu_indices(3)


class DoubleWellCrystal(Calculator):
    """ASE calculator for displaced supercells of one crystal; defaults: transition near 263 K.

    Parameters
    ----------
    multiples, primitive
        The supercell and the cell that it repeats.
    k, c, g, s
        eV/A^2, eV/A^3, eV/A^4, eV/A^2.
    """

    implemented_properties = ("energy", "forces")

    def __init__(
        self, multiples: tuple[int, int, int], primitive: Atoms | None = None, k=-0.3, c=2.0, g=8.0, s=0.5
    ) -> None:
        super().__init__()
        self.k, self.c, self.g, self.s = k, c, g, s
        self.primitive = primitive or zincblende()
        self.ideal = self.primitive.repeat(multiples)
        i, j, distance = neighbor_list("ijd", self.ideal, LATTICE / np.sqrt(2) * 1.01)
        same = (np.abs(distance - LATTICE / np.sqrt(2)) < 1e-3) & (self.ideal.numbers[i] == self.ideal.numbers[j])
        n = len(self.ideal)
        springs = np.zeros((n, n))
        np.add.at(springs, (i[same], i[same]), s)  # every pair is listed from both sides
        np.add.at(springs, (i[same], j[same]), -s)
        self.springs = springs

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        small = len(atoms) == len(self.primitive)  # neighbours of one kind are images of each other
        ideal = self.primitive if small else self.ideal
        order = match_sites(ideal, atoms, tolerance=1.2)
        moved = np.linalg.solve(ideal.cell.array.T, (atoms.positions[order] - ideal.positions).T).T
        moved = (moved - np.rint(moved)) @ ideal.cell.array
        springs = np.zeros((2, 2)) if small else self.springs
        d = moved[1::2] - moved[::2]
        product = d.prod(1)
        energy = (self.k * d**2 / 2 + self.g * d**4 / 4).sum() + self.c * product.sum()
        energy += np.sum(moved * (springs @ moved)) / 2
        others = np.stack([d[:, 1] * d[:, 2], d[:, 0] * d[:, 2], d[:, 0] * d[:, 1]], 1)
        slope = self.k * d + self.g * d**3 + self.c * others
        sorted_forces = -springs @ moved
        sorted_forces[1::2] -= slope
        sorted_forces[::2] += slope
        forces = np.zeros_like(moved)
        forces[order] = sorted_forces
        self.results = {"energy": float(energy), "forces": forces}

    def curvature(self, shift: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """``(3, 3)`` averaged second derivative of a cell: ``d`` has the mean ``shift`` and the variance ``spread``."""
        matrix = np.diag(self.k + 3 * self.g * (shift**2 + np.diag(spread)))
        for a, b, third in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
            matrix[a, b] = matrix[b, a] = self.c * shift[third]
        return matrix

    def mean_slope(self, shift: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """``(3,)`` averaged first derivative of a cell."""
        others = [(1, 2), (0, 2), (0, 1)]
        crossed = np.array([shift[a] * shift[b] + spread[a, b] for a, b in others])
        return (
            self.k * shift + self.g * (shift**3 + 3 * shift * np.diag(spread)) + self.c * crossed
        )  # fmt: skip

    def modes(self, curvature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Angular frequencies (sqrt(eV/A^2/u)) and ``(3, modes)`` amplitudes of ``d`` in the first cell."""
        n = len(self.ideal)
        pairs = np.kron(np.eye(n // 2), [[1, -1], [-1, 1]])
        hessian = np.kron(self.springs, np.eye(3)) + np.kron(pairs, curvature)
        masses = np.repeat(self.ideal.get_masses(), 3)
        squares, vectors = np.linalg.eigh(hessian / np.sqrt(masses[:, None] * masses))
        patterns = vectors[:, 3:] / np.sqrt(masses)[:, None]
        return np.sqrt(squares[3:]), patterns[3:6] - patterns[:3]

    def spread(self, curvature: np.ndarray, temperature: float) -> np.ndarray:
        """``<d d^T>`` about its mean, A^2."""
        omega, pattern = self.modes(curvature)
        occupation = 0.5 / np.tanh(HBAR * omega / (2 * kB * temperature)) if temperature else 0.5
        return (pattern * (HBAR / omega * occupation)) @ pattern.T

    def self_consistent(self, temperature: float, shift: np.ndarray | None = None) -> np.ndarray:
        """Variance of ``d`` at the self-consistent solution, with all cells at the mean ``shift``."""

        def miss(value: float) -> float:
            spread = value * np.eye(3)
            return self.spread(self.curvature(np.zeros(3), spread), temperature)[0, 0] - value

        isotropic = brentq(miss, max(0.0, -self.k / (3 * self.g)) + 1e-6, 5.0, xtol=1e-15) * np.eye(3)
        if shift is None:
            return isotropic

        def full(values: np.ndarray) -> np.ndarray:
            matrix = np.zeros((3, 3))
            matrix[_UPPER] = values
            return matrix + matrix.T - np.diag(np.diag(matrix))

        found = root(
            lambda v: self.spread(self.curvature(shift, full(v)), temperature)[_UPPER] - v, isotropic[_UPPER], tol=1e-15
        )
        assert np.abs(found.fun).max() < 1e-10
        return full(found.x)

    def free_energy(self, temperature: float) -> float:
        """eV per primitive cell at the high-symmetry positions, in the supercell."""
        spread = self.self_consistent(temperature)
        omega, _ = self.modes(self.curvature(np.zeros(3), spread))
        energy = (HBAR * omega / 2).sum()
        if temperature:
            energy += kB * temperature * np.log1p(-np.exp(-HBAR * omega / (kB * temperature))).sum()
        # <V> - <V_auxiliary> of a cell: the quadratic terms cancel but for - 3/4 g <d_a^2>^2 a component
        return energy / (len(self.ideal) // 2) - 0.75 * self.g * (np.diag(spread) ** 2).sum()

    def soft_mode_squared(self, temperature: float, step: float = 1e-3) -> float:
        """Squared frequency (cm^-2) of the optical mode at Gamma, from the curvature of the free energy."""
        shift = np.array([0.0, 0.0, step])
        stiffness = self.mean_slope(shift, self.self_consistent(temperature, shift))[2] / step
        first, second = self.ideal.get_masses()[:2]
        return stiffness * (1 / first + 1 / second) * CM1**2

    def transition_temperature(self, low: float, high: float) -> float:
        """Where the soft mode vanishes, K."""
        return brentq(self.soft_mode_squared, low, high)


def zincblende() -> Atoms:
    """The primitive cell."""
    return bulk("GaAs", "zincblende", a=LATTICE)
