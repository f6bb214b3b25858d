"""Force constants of a crystal: the supercell Hessian, its symmetries, its frequencies, phonopy's view of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms, units

from hint_plugins.curvature.layouts import Layout, convert
from hint_plugins.curvature.sum_rule import acoustic_sum_rule
from hint_plugins.datasets.born import DielectricTensors
from hint_plugins.units import CM1
from hint_recipes.crystals.force_constants.dielectric import on_crystal
from hint_recipes.crystals.force_constants.phonopy_cells import from_phonopy_atoms, to_phonopy_atoms
from hint_recipes.crystals.force_constants.supercells import find_multiples, match_sites

if TYPE_CHECKING:
    from phonopy import Phonopy


@dataclass(frozen=True)
class ForceConstants:
    """Second derivatives of a crystal's energy in a supercell.

    Attributes
    ----------
    primitive
        The unit cell, with its masses (isotopes: ``primitive.set_masses``).
    multiples
        Repetitions of the unit cell along its three vectors.
    hessian
        ``(3N, 3N)`` in eV/A^2, ``H[3i+a, 3j+b]``, in the atom order of :attr:`supercell`.
    tensors
        Born effective charges and dielectric tensor of :attr:`primitive`. The Hessian holds the dipole-dipole forces
        at :attr:`q_points` (at Gamma without the macroscopic field); the tensors say how they go on between these
        points.

    Raises
    ------
    ValueError
        If the shape of ``hessian`` does not fit, or it is not finite.
    """

    primitive: Atoms
    multiples: tuple[int, int, int]
    hessian: np.ndarray
    tensors: DielectricTensors | None = None

    def __post_init__(self) -> None:
        multiples = tuple(int(m) for m in self.multiples)
        if len(multiples) != 3 or min(multiples) < 1:
            raise ValueError(f"a supercell needs three positive repetitions, not {self.multiples}")
        object.__setattr__(self, "multiples", multiples)
        n = 3 * len(self.primitive) * int(np.prod(multiples))
        if self.hessian.shape != (n, n):
            raise ValueError(
                f"a {'x'.join(map(str, multiples))} supercell of {len(self.primitive)} atoms has a ({n}, {n}) Hessian, "
                f"not {self.hessian.shape}"
            )
        if not np.isfinite(self.hessian).all():
            raise ValueError("the Hessian holds values that are not finite")

    @cached_property
    def supercell(self) -> Atoms:
        """``primitive.repeat(multiples)``: cells outer, atoms of the unit cell inner."""
        return self.primitive.repeat(self.multiples)

    @property
    def num_cells(self) -> int:
        """Number of unit cells in the supercell."""
        return int(np.prod(self.multiples))

    @cached_property
    def cell_indices(self) -> np.ndarray:
        """``(num_cells, 3)`` integer lattice vectors of the unit cells, in the supercell's order."""
        return np.stack(np.meshgrid(*[np.arange(m) for m in self.multiples], indexing="ij"), -1).reshape(-1, 3)

    @cached_property
    def q_points(self) -> np.ndarray:
        """``(num_cells, 3)`` commensurate wave vectors, reciprocal fractions in (-1/2, 1/2], Gamma first."""
        q = self.cell_indices / np.array(self.multiples)
        return q - np.ceil(q - 0.5 - 1e-12)

    @classmethod
    def from_supercell(
        cls, primitive: Atoms, supercell: Atoms, hessian: np.ndarray, *, tolerance: float = 0.05
    ) -> ForceConstants:
        """Take a Hessian whose supercell lists its atoms in any order.

        Raises
        ------
        ValueError
            If the cells are no integer multiple of each other or the sites do not match.
        """
        multiples = find_multiples(primitive, supercell)
        order = match_sites(primitive.repeat(multiples), supercell, tolerance=tolerance)
        components = (3 * order[:, None] + np.arange(3)).ravel()
        return cls(primitive, multiples, np.asarray(hessian)[np.ix_(components, components)])

    def replace(self, hessian: np.ndarray) -> ForceConstants:
        """The same crystal with another Hessian."""
        return replace(self, hessian=hessian)

    def with_tensors(self, tensors: DielectricTensors | None) -> ForceConstants:
        """The same force constants with Born effective charges, given for any cell of the crystal, or without.

        Raises
        ------
        InputError
            If the tensors belong to another crystal or orientation.
        """
        return replace(self, tensors=None if tensors is None else on_crystal(tensors, self.primitive))

    def with_masses(self, masses: dict[str, float]) -> ForceConstants:
        """The same force constants with other isotopes.

        Parameters
        ----------
        masses
            Mass in u for each chemical symbol to change, e.g. ``{"H": 2.014}``.

        Raises
        ------
        ValueError
            If a symbol does not occur in the crystal or a mass is not positive.
        """
        return replace(self, primitive=set_masses(self.primitive, masses))

    def acoustic_sum_rule(self) -> ForceConstants:
        """The same without forces on a common shift (:func:`hint_plugins.curvature.sum_rule.acoustic_sum_rule`)."""
        return self.replace(acoustic_sum_rule(self.hessian))

    def symmetrized(self, symprec: float = 1e-5) -> ForceConstants:
        """Average over the space group and over ``H = H^T`` (phonopy)."""
        phonon = self.to_phonopy(symprec=symprec)
        phonon.symmetrize_force_constants_by_space_group(show_drift=False)
        averaged = ForceConstants.from_phonopy(phonon, self.primitive).hessian
        return self.replace((averaged + averaged.T) / 2)

    def dynamical_matrices(self) -> np.ndarray:
        """Mass-weighted dynamical matrices at :attr:`q_points`.

        Returns
        -------
        ndarray
            ``(num_cells, 3n, 3n)`` complex, eV / A^2 / u; phase ``exp(-2 pi i q (R_I - R_J))``.
        """
        n = len(self.primitive)
        blocks = self.hessian.reshape(self.num_cells, 3 * n, self.num_cells, 3 * n)
        phases = np.exp(-2j * np.pi * self.q_points @ self.cell_indices.T)
        fourier = np.einsum("qI,IaJb,qJ->qab", phases, blocks, phases.conj(), optimize=True) / self.num_cells
        weights = np.repeat(self.primitive.get_masses(), 3) ** -0.5
        return fourier * weights[:, None] * weights[None, :]

    def from_dynamical_matrices(self, matrices: np.ndarray) -> ForceConstants:
        """The same crystal with the force constants that belong to mass-weighted matrices at :attr:`q_points`."""
        weights = np.repeat(self.primitive.get_masses(), 3) ** 0.5
        fourier = matrices * weights[:, None] * weights[None, :]
        phases = np.exp(2j * np.pi * self.q_points @ self.cell_indices.T)
        blocks = np.einsum("qI,qab,qJ->IaJb", phases, fourier, phases.conj(), optimize=True) / self.num_cells
        return self.replace(np.ascontiguousarray(blocks.real).reshape(self.hessian.shape))

    def positive_definite(self, floor: float = 20.0) -> tuple[ForceConstants, int]:
        """Give every mode but the uniform translations at least ``floor``: ``w^2 -> max(|w^2|, floor^2)``.

        Parameters
        ----------
        floor
            Lowest frequency, cm^-1.

        Returns
        -------
        ForceConstants, int
            The new force constants and how many modes were imaginary or below ``floor``.
        """
        matrices, changed = self.dynamical_matrices(), 0
        translations = np.sqrt(np.repeat(self.primitive.get_masses(), 3))[:, None] * np.tile(
            np.eye(3), (len(self.primitive), 1)
        )
        translations /= np.linalg.norm(translations, axis=0)
        for index, matrix in enumerate(matrices):
            values, vectors = np.linalg.eigh(matrix)
            free = (
                np.linalg.norm(translations.T @ vectors, axis=0) > 0.99 if index == 0 else np.zeros(len(values), bool)
            )
            raised = np.where(free, values, np.maximum(np.abs(values), (floor / CM1) ** 2))
            changed += int((values[~free] < (floor / CM1) ** 2).sum())
            matrices[index] = (vectors * raised) @ vectors.conj().T
        return self.from_dynamical_matrices(matrices), changed

    def frequencies(self) -> np.ndarray:
        """``(num_cells, 3n)`` frequencies in cm^-1 at :attr:`q_points`, imaginary ones negative, ascending."""
        return signed_frequencies(np.linalg.eigvalsh(self.dynamical_matrices()))

    def to_phonopy(self, symprec: float = 1e-5) -> Phonopy:
        """A ``Phonopy`` object (its own supercell order) that holds these force constants.

        With :attr:`tensors` it interpolates as Gonze and Lee (Phys. Rev. B 55, 10355): the dipole-dipole part is
        subtracted at :attr:`q_points`, the rest interpolated, and the part added again at the wanted point.
        """
        from phonopy import Phonopy

        cell = to_phonopy_atoms(self.primitive)
        phonon = Phonopy(cell, np.diag(self.multiples), primitive_matrix=np.eye(3), symprec=symprec)
        order = match_sites(from_phonopy_atoms(phonon.supercell), self.supercell)
        blocks = convert(self.hessian, Layout.FLAT, Layout.BLOCKS)
        phonon.force_constants = np.ascontiguousarray(blocks[np.ix_(order, order)])
        if self.tensors is not None:
            sites = match_sites(from_phonopy_atoms(phonon.primitive), self.primitive)
            phonon.nac_params = {
                "born": self.tensors.born[sites],
                "dielectric": self.tensors.dielectric,
                "factor": units.Hartree * units.Bohr,
                "method": "gonze",
            }
        return phonon

    @classmethod
    def from_phonopy(cls, phonon: Phonopy, primitive: Atoms | None = None) -> ForceConstants:
        """Take the force constants of a ``Phonopy`` object, full or compact.

        Raises
        ------
        ValueError
            If it holds no force constants or its supercell matrix is not diagonal over the primitive cell.
        """
        if phonon.force_constants is None:
            raise ValueError("the phonopy object holds no force constants")
        from phonopy.harmonic.force_constants import compact_fc_to_full_fc

        blocks = phonon.force_constants
        n = len(phonon.supercell)
        if blocks.shape[0] != n:
            blocks = compact_fc_to_full_fc(phonon.primitive, blocks)
        cell = from_phonopy_atoms(phonon.primitive) if primitive is None else primitive
        hessian = convert(np.asarray(blocks), Layout.BLOCKS, Layout.FLAT)
        return cls.from_supercell(cell, from_phonopy_atoms(phonon.supercell), hessian)


def with_tensors_of(constants: ForceConstants, tensors: DielectricTensors | None) -> ForceConstants:
    """Force constants with the tensors of the same atoms in the same order, in a cell that may have been strained.

    Parameters
    ----------
    constants
        As they are returned where ``tensors`` is None.
    tensors
        Of the unstrained cell.
    """
    if tensors is None:
        return constants
    return replace(constants, tensors=replace(tensors, crystal=constants.primitive))


def signed_frequencies(eigenvalues: np.ndarray) -> np.ndarray:
    """Eigenvalues of dynamical matrices (eV / A^2 / u) as cm^-1; negative stands for imaginary."""
    return np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues)) * CM1


def set_masses(primitive: Atoms, masses: dict[str, float]) -> Atoms:
    """A copy of the crystal in which the named elements have other masses (u).

    Raises
    ------
    ValueError
        If a symbol does not occur in the crystal or a mass is not positive.
    """
    symbols = np.array(primitive.get_chemical_symbols())
    values = primitive.get_masses()
    for symbol, mass in masses.items():
        if symbol not in symbols:
            raise ValueError(f"cannot set the mass of {symbol}: the crystal holds {', '.join(sorted(set(symbols)))}")
        if not mass > 0:
            raise ValueError(f"the mass of {symbol} must be positive, not {mass}")
        values[symbols == symbol] = mass
    crystal = primitive.copy()
    crystal.set_masses(values)
    return crystal
