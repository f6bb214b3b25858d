"""Is a geometry one that atoms can have? Bounded in time and memory, whatever the numbers are."""

from __future__ import annotations

import numpy as np
from ase import Atoms

#: Two atoms nearer than this (A) are the same atom listed twice.
MIN_DISTANCE = 0.05
#: Least volume an atom (A^3) and least period (A) of a cell; hydrogen at 1 TPa has 1.2 A^3 and 1 A.
MIN_VOLUME, MIN_PERIOD = 0.5, 0.5
#: Positions further from the origin than this (A) are refused: neighbour searches divide space into boxes.
MAX_COORDINATE = 1e5
#: Contacts an atom may have on average.
_MAX_CONTACTS = 2000


def geometry_reasons(atoms: Atoms) -> list[str]:
    """What is wrong with elements, positions and cell, in words; empty when nothing is."""
    if not len(atoms):
        return ["no atoms"]
    if not ((atoms.numbers > 0) & (atoms.numbers < 119)).all():
        return [f"no element has the atomic number {atoms.numbers[(atoms.numbers < 1) | (atoms.numbers > 118)][0]}"]
    lost = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
    if len(lost):
        return [f"the position of atom {lost[0]} is not finite"]
    far = np.flatnonzero(np.abs(atoms.positions).max(axis=1) > MAX_COORDINATE)
    if len(far):
        return [f"atom {far[0]} is more than {MAX_COORDINATE:g} A from the origin"]
    return _cell(atoms) or _overlap(atoms)


def _cell(atoms: Atoms) -> list[str]:
    from ase.geometry import minkowski_reduce

    cell, periodic = np.asarray(atoms.cell), np.asarray(atoms.pbc)
    if not np.isfinite(cell).all():
        return ["the cell is not finite"]
    vectors = cell[periodic]
    if not len(vectors):
        return []
    lengths = np.linalg.norm(vectors, axis=1)
    volume = np.sqrt(max(np.linalg.det(vectors @ vectors.T), 0.0))
    if lengths.max() > MAX_COORDINATE or (lengths == 0).any() or volume < 1e-6 * np.prod(lengths):
        return [f"the periodic cell vectors have no volume, or are too long: {vectors.tolist()}"]
    shortest = np.linalg.norm(minkowski_reduce(cell, pbc=periodic)[0][periodic], axis=1).min()
    if shortest < MIN_PERIOD:
        return [f"the cell repeats every {shortest:.3g} A, less than {MIN_PERIOD} A; is it in another unit?"]
    if periodic.all() and volume < MIN_VOLUME * len(atoms):
        return [f"the cell has {volume / len(atoms):.3g} A^3 per atom, less than {MIN_VOLUME}; is it in another unit?"]
    return []


def _overlap(atoms: Atoms) -> list[str]:
    from scipy.spatial import cKDTree

    from hint_plugins.models.neighbours import neighbour_list

    places = atoms.get_positions(wrap=True) if atoms.pbc.any() else atoms.positions
    if len(atoms) > 1:
        distance, other = cKDTree(places).query(places, k=2)
        first = int(distance[:, 1].argmin())
        if distance[first, 1] < MIN_DISTANCE:
            pair = sorted({first, *other[first].tolist()} - {len(atoms)})[:2]
            return [
                f"atoms {pair[0]} and {pair[1]} are {distance[first, 1]:.3g} A apart (limit {MIN_DISTANCE}); "
                "remove the duplicate or check the units"
            ]
    if atoms.pbc.any():
        try:
            neighbour_list(atoms.positions, 2 * MIN_DISTANCE, atoms.cell, atoms.pbc, MIN_DISTANCE)
        except ValueError as error:
            return [str(error)]
    return []


def contacts(atoms: Atoms, scaled: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of atoms (periodic images included) nearer than ``scaled`` times the sum of their covalent radii.

    Parameters
    ----------
    atoms
        A structure without :func:`geometry_reasons`.
    scaled
        Largest distance over the sum of covalent radii.

    Returns
    -------
    i, j, vectors, ratio
        (P,) indices with i <= j, (P, 3) from i to j in A, (P,) scaled lengths. Empty where atoms are so crowded that
        the list would not fit into memory.
    """
    from ase.data import covalent_radii
    from scipy.spatial import cKDTree

    from hint_plugins.models.neighbours import neighbour_list

    radii = covalent_radii[atoms.numbers]
    cutoff = 2 * scaled * radii.max()
    if atoms.pbc.any():
        edges, shifts = neighbour_list(atoms.positions, cutoff, atoms.cell, atoms.pbc)
        j, i = edges.numpy()
        vectors = atoms.positions[j] - atoms.positions[i] + shifts.numpy()
        keep = i <= j
        i, j, vectors = i[keep], j[keep], vectors[keep]
    else:
        tree = cKDTree(atoms.positions)
        crowded = tree.count_neighbors(tree, cutoff) > _MAX_CONTACTS * len(atoms)
        i, j = np.empty((2, 0), dtype=int) if crowded else tree.query_pairs(cutoff, output_type="ndarray").T
        vectors = atoms.positions[j] - atoms.positions[i]
    ratio = np.linalg.norm(vectors, axis=1) / (radii[i] + radii[j])
    near = ratio <= scaled
    return i[near], j[near], vectors[near], ratio[near]
