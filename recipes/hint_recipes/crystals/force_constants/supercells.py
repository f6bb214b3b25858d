"""Sites of a supercell: how often the unit cell repeats, which atom is which, what lattice translations give."""

from __future__ import annotations

import numpy as np
from ase import Atoms


def find_multiples(primitive: Atoms, supercell: Atoms, *, tolerance: float = 1e-3) -> tuple[int, int, int]:
    """How often the unit cell repeats along each of its vectors to give the supercell's lattice.

    The supercell may be described by other vectors of the same lattice (another setting of the same cell).

    Raises
    ------
    ValueError
        If no three repetitions of the unit cell give this supercell, or the number of atoms does not fit.
    """
    matrix = find_matrix(primitive, supercell, tolerance=tolerance)
    multiples = repetitions(matrix.T)
    if multiples is None:
        raise ValueError(
            f"the supercell's lattice is no n1 x n2 x n3 repetition of the unit cell (supercell matrix\n{matrix})"
        )
    return multiples


def find_matrix(primitive: Atoms, supercell: Atoms, *, tolerance: float = 1e-3) -> np.ndarray:
    """Supercell matrix ``(3, 3)`` as in phonopy: column ``j`` is supercell vector ``j`` in terms of the unit cell's.

    Raises
    ------
    ValueError
        If the ratio is not whole, or the number of atoms does not fit.
    """
    ratio = supercell.cell.array @ np.linalg.inv(primitive.cell.array)
    whole = np.rint(ratio)
    cells = round(abs(np.linalg.det(whole)))
    if np.abs(ratio - whole).max() > tolerance or cells == 0:
        raise ValueError(
            "the supercell's vectors are no integer multiples of the unit cell's vectors (ratio\n"
            f"{np.array2string(ratio, precision=4, suppress_small=True)}): check lattice constants and setting of both"
        )
    if len(supercell) != len(primitive) * cells:
        raise ValueError(
            f"a supercell of {cells} unit cells of {len(primitive)} atoms holds {len(primitive) * cells} atoms, "
            f"not {len(supercell)}"
        )
    return whole.astype(int).T


def repetitions(rows: np.ndarray) -> tuple[int, int, int] | None:
    """How often the unit cell repeats along its own vectors to give a supercell; None where it is no such repetition.

    Parameters
    ----------
    rows
        ``(3, 3)`` integers: the supercell's vectors, or others of the same lattice, in terms of the unit cell's.
    """
    cells = round(abs(np.linalg.det(rows)))
    divisors = [d for d in range(1, cells + 1) if cells % d == 0]
    for n1, n2 in ((a, b) for a in divisors for b in divisors if cells % (a * b) == 0):
        multiples = (n1, n2, cells // (n1 * n2))
        change = rows / np.array(multiples)  # vectors of one lattice in terms of the other's
        if np.allclose(change, np.rint(change), atol=1e-9):
            return multiples
    return None


def multiples_of_length(primitive: Atoms, length: float) -> tuple[int, int, int]:
    """Fewest repetitions of the unit cell whose opposite faces are at least ``length`` (A) apart in every direction."""
    widths = 1 / np.linalg.norm(primitive.cell.reciprocal().array, axis=1)
    n1, n2, n3 = (int(n) for n in np.maximum(np.ceil(length / widths - 1e-6), 1))
    return n1, n2, n3


def match_sites(reference: Atoms, other: Atoms, *, tolerance: float = 0.05) -> np.ndarray:
    """Index array with ``other[index]`` in the order of ``reference``, sites compared under periodicity.

    Raises
    ------
    ValueError
        If a site finds no partner of its element within ``tolerance`` (A).
    """
    if len(reference) != len(other):
        raise ValueError(f"{len(other)} atoms cannot be matched with {len(reference)}")
    fractions = np.linalg.solve(reference.cell.array.T, other.positions.T).T
    difference = reference.get_scaled_positions(wrap=False)[:, None] - fractions[None]
    difference -= np.rint(difference)
    distance = np.linalg.norm(difference @ reference.cell.array, axis=-1)
    distance[reference.numbers[:, None] != other.numbers[None]] = np.inf
    order = distance.argmin(1)
    worst = int(distance.min(1).argmax())
    if distance[worst].min() > tolerance or len(set(order)) != len(order):
        raise ValueError(
            f"site {worst} ({reference.symbols[worst]}) has no partner: the nearest atom of its element is "
            f"{distance[worst].min():.3f} A away (at most {tolerance} A). Same cell, same origin, same structure?"
        )
    return order


def translate_columns(columns: np.ndarray, multiples: tuple[int, int, int]) -> np.ndarray:
    """Whole Hessian from the columns of the first unit cell.

    Parameters
    ----------
    columns
        ``(3n, 3N)``: ``columns[a] = H[:, a]`` for the coordinates of the first unit cell.
    multiples
        Repetitions of the unit cell.

    Returns
    -------
    ndarray
        ``(3N, 3N)``, averaged with its transpose.
    """
    n = len(columns)
    grid = columns.reshape(n, *multiples, n)
    rows = [np.roll(grid, shift, axis=(1, 2, 3)).reshape(n, -1) for shift in np.ndindex(*multiples)]
    hessian = np.concatenate(rows)
    return (hessian + hessian.T) / 2
