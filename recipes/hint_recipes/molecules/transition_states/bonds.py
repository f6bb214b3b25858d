"""Bond graphs from geometry, with the atoms' order: who is bonded to whom."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from scipy.sparse.csgraph import connected_components


def bond_matrix(atoms: Atoms, factor: float = 1.2, hydrogen_factor: float = 1.5) -> np.ndarray:
    """Which pairs are bonded: closer than ``factor`` times the sum of covalent radii (``hydrogen_factor`` for H-H).

    Returns
    -------
    numpy.ndarray
        (N, N) boolean, symmetric, False on the diagonal.
    """
    hydrogen = atoms.numbers == 1
    factors = np.where(hydrogen[:, None] & hydrogen[None], hydrogen_factor, factor)
    radii = covalent_radii[atoms.numbers]
    bonded = atoms.get_all_distances(mic=bool(atoms.pbc.any())) < factors * (radii[:, None] + radii[None])
    np.fill_diagonal(bonded, False)
    return bonded


def num_fragments(bonded: np.ndarray) -> int:
    """Number of molecules."""
    return int(connected_components(bonded, directed=False)[0])


def changed_bonds(before: np.ndarray, after: np.ndarray, atoms: Atoms) -> dict[str, list[str]]:
    """Bonds formed and broken, as ``C1-H4`` (atoms counted from 0)."""
    names = [f"{symbol}{i}" for i, symbol in enumerate(atoms.get_chemical_symbols())]

    def listed(mask: np.ndarray) -> list[str]:
        return [f"{names[i]}-{names[j]}" for i, j in zip(*np.nonzero(np.triu(mask)), strict=True)]

    return {"formed": listed(after & ~before), "broken": listed(before & ~after)}
