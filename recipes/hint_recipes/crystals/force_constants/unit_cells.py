"""Which unit cell describes a crystal: the primitive one, and the one that a supercell repeats n1 x n2 x n3 times.

Every supercell, also one whose matrix is not diagonal, is a repetition of *some* unit cell of the same lattice (the
Smith normal form of the matrix gives its vectors). Described by that cell, it needs no treatment of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import gcd

import numpy as np
from ase import Atoms

from hint_plugins.structures.charges import raw_info
from hint_recipes.crystals.force_constants.phonopy_cells import from_phonopy_atoms, to_phonopy_atoms
from hint_recipes.crystals.force_constants.supercells import repetitions

#: Two atoms of a conventional cell are equivalent when a lattice translation joins them to this accuracy, A.
TOLERANCE = 1e-4


def primitive_matrix(crystal: Atoms) -> np.ndarray:
    """``(3, 3)`` columns: vectors of a primitive cell in terms of the given cell's, in phonopy's convention."""
    from phonopy.structure.cells import guess_primitive_matrix

    return np.asarray(guess_primitive_matrix(to_phonopy_atoms(crystal), symprec=TOLERANCE))


def num_primitive_cells(crystal: Atoms) -> int:
    """How many primitive cells the given cell holds; atoms of different mass count as the same."""
    return round(1 / abs(np.linalg.det(primitive_matrix(crystal))))


def primitive_cell(crystal: Atoms) -> Atoms:
    """The primitive cell of a crystal in the same orientation; the crystal itself where it is primitive.

    Raises
    ------
    ValueError
        If equivalent atoms have different masses, charges or magnetic moments, or the cell states a total charge or
        spin.
    """
    if num_primitive_cells(crystal) == 1:
        return crystal
    if raw_info(crystal):
        raise ValueError("the primitive cell cannot be taken: the cell states a total charge or spin")
    from phonopy.structure.cells import get_primitive

    cell = get_primitive(to_phonopy_atoms(crystal), primitive_matrix(crystal), symprec=TOLERANCE)
    kinds = np.asarray(cell.p2s_map)[[list(cell.p2s_map).index(s) for s in cell.s2p_map]]
    arrays = {
        "masses": crystal.get_masses(),
        "charges": crystal.get_initial_charges(),
        "magnetic moments": crystal.get_initial_magnetic_moments(),
    }
    for name, values in arrays.items():
        if np.abs(values - values[kinds]).max() > 1e-6:
            raise ValueError(f"the primitive cell cannot be taken: equivalent atoms have different {name}")
    found = from_phonopy_atoms(cell)
    found.set_initial_charges(arrays["charges"][cell.p2s_map])
    found.set_initial_magnetic_moments(arrays["magnetic moments"][cell.p2s_map])
    return found


def supercell_matrix(numbers: Sequence[int]) -> np.ndarray:
    """Three repetitions, or nine numbers row by row as phonopy's ``DIM``, as phonopy's ``(3, 3)`` supercell matrix.

    Column ``j`` holds supercell vector ``j`` in terms of the unit cell's vectors.
    """
    return np.diag(numbers) if len(numbers) == 3 else np.array(numbers, dtype=int).reshape(3, 3)


def describe_matrix(matrix: np.ndarray) -> str:
    """A supercell matrix as ``--supercell`` takes it: ``2x2x2``, or nine numbers."""
    if np.array_equal(matrix, np.diag(np.diag(matrix))):
        return "x".join(str(n) for n in np.abs(np.diag(matrix)))
    return " ".join(str(n) for n in np.asarray(matrix).ravel())


def for_supercell(crystal: Atoms, matrix: np.ndarray) -> tuple[Atoms, tuple[int, int, int]]:
    """A unit cell of the same crystal that the supercell repeats n1 x n2 x n3 times.

    Parameters
    ----------
    crystal
        The given cell; positions, order and masses of its atoms are kept.
    matrix
        ``(3, 3)`` integers, phonopy's supercell matrix.

    Returns
    -------
    Atoms, tuple of int
        The crystal itself where the supercell is a repetition of its own vectors.
    """
    own = repetitions(np.asarray(matrix).T)
    if own is not None:
        return crystal, own
    from phonopy.structure.snf import SNF3x3

    form = SNF3x3(np.array(matrix, dtype=int))
    # diag = P M Q: the supercell's lattice A M has the vectors A P^-1 diag
    divisors = np.abs(np.diag(form.D)).astype(int)
    vectors = np.rint(np.linalg.inv(form.P)).astype(int).T  # rows, in terms of the given cell's
    changed = crystal.copy()
    changed.set_cell(_compact(vectors @ crystal.cell.array, divisors), scale_atoms=False)
    n1, n2, n3 = (int(n) for n in divisors)
    return changed, (n1, n2, n3)


def _compact(cell: np.ndarray, divisors: np.ndarray) -> np.ndarray:
    """Short vectors of the same lattice for which the same repetitions give the same supercell; right-handed."""
    cell, improved = cell.copy(), True
    while improved:
        improved = False
        for i, j in ((i, j) for i in range(3) for j in range(3) if i != j):
            step = divisors[j] // gcd(int(divisors[i]), int(divisors[j]))  # else n_i a_i leaves the supercell's lattice
            count = step * np.rint(cell[i] @ cell[j] / (cell[j] @ cell[j]) / step)
            shorter = cell[i] - count * cell[j]
            if shorter @ shorter < cell[i] @ cell[i] * (1 - 1e-9):
                cell[i], improved = shorter, True
    return cell if np.linalg.det(cell) > 0 else -cell


def in_supercell(crystal: Atoms, numbers: Sequence[int]) -> tuple[Atoms, tuple[int, int, int]]:
    """:func:`for_supercell` of what ``--supercell`` was given, with a message where the cell's vectors change."""
    changed, multiples = for_supercell(crystal, supercell_matrix(numbers))
    if changed is not crystal:
        rows = "; ".join(" ".join(f"{x:.4f}" for x in vector) for vector in changed.cell.array)
        print(
            f"hint: this supercell is {'x'.join(map(str, multiples))} of the same crystal with the cell vectors {rows} "
            "A: wave vectors, meshes and files refer to these",
            file=sys.stderr,
        )
    return changed, multiples


def tell_folded(crystal: Atoms, name: str = "") -> None:
    """Say that a conventional cell gives folded bands, and how to have the primitive one."""
    try:
        count = round(len(crystal) / len(primitive_cell(crystal)))
    except ValueError:  # there is no smaller cell with the same masses or magnetic order
        return
    if count > 1:
        bands = 3 * len(crystal)
        print(
            f"hint: {name + ': ' if name else ''}the cell holds {count} primitive cells, so its {bands} bands are the "
            f"{bands // count} of the primitive cell, folded; --primitive takes the primitive cell instead",
            file=sys.stderr,
        )
