"""Rotational symmetry number and linearity of a molecule, within a tolerance.

Optimised geometries are symmetric to perhaps 0.01 A, while pyscf's point-group search asks for 1e-5 Bohr; a symmetry
number that is lost this way costs kT ln 2 = 18 meV.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms


def is_linear(atoms: Atoms, tolerance: float = 0.02) -> bool:
    """Whether all atoms lie within ``tolerance`` (A) of one line; true for two atoms, false for one."""
    if len(atoms) < 3:
        return len(atoms) == 2
    centred = atoms.positions - atoms.positions.mean(axis=0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    return bool(np.linalg.norm(centred - np.outer(centred @ axis, axis), axis=1).max() < tolerance)


def straightened(atoms: Atoms) -> Atoms:
    """A copy with every atom moved onto the axis of the (linear) molecule."""
    straight = atoms.copy()
    centre = straight.get_center_of_mass()
    centred = straight.positions - centre
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    straight.positions = centre + np.outer(centred @ axis, axis)
    return straight


def symmetry_number(atoms: Atoms, tolerance: float = 0.02) -> int:
    """Number of proper rotations that only interchange identical atoms (same element and mass).

    Parameters
    ----------
    atoms
        A molecule.
    tolerance
        Largest distance (A) between a rotated atom and the atom whose place it takes.

    Returns
    -------
    int
        1 for one atom; 1 or 2 for a linear molecule (the continuous rotation about the axis is not counted).
    """
    if len(atoms) == 1:
        return 1
    labels = _labels(atoms)
    positions = atoms.positions - _centre(atoms, labels)
    if is_linear(atoms, tolerance):
        return 1 if _matching(positions, -positions, labels, tolerance) is None else 2
    first, second = _frame_atoms(positions, labels)
    frame = _frame(positions[first], positions[second])
    radii = np.linalg.norm(positions, axis=1)
    found: set[tuple[int, ...]] = set()
    for i in np.flatnonzero((labels == labels[first]) & (abs(radii - radii[first]) < 2 * tolerance)):
        for j in np.flatnonzero((labels == labels[second]) & (abs(radii - radii[second]) < 2 * tolerance)):
            separation = np.linalg.norm(positions[i] - positions[j])
            if i == j or abs(separation - np.linalg.norm(positions[first] - positions[second])) > 4 * tolerance:
                continue
            rotation = _frame(positions[i], positions[j]).T @ frame
            rough = _matching(positions, positions @ rotation.T, labels, 20 * tolerance)
            if rough is None or tuple(rough) in found:
                continue
            if np.linalg.norm(_fitted(positions, positions[rough]) - positions[rough], axis=1).max() < tolerance:
                found.add(tuple(rough))
    return max(len(found), 1)


def _labels(atoms: Atoms) -> np.ndarray:
    kinds = np.stack([atoms.numbers, np.round(atoms.get_masses(), 2)], axis=1)
    return np.unique(kinds, axis=0, return_inverse=True)[1].reshape(-1)


def _centre(atoms: Atoms, labels: np.ndarray) -> np.ndarray:
    return np.average(atoms.positions, axis=0, weights=1.0 + labels)


def _frame_atoms(positions: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    """Two atoms that fix an orientation: of rare kinds, far from the centre and from one line with it."""
    counts = np.bincount(labels)[labels]
    radii = np.linalg.norm(positions, axis=1)
    first = min(np.flatnonzero(radii > 0.3 * radii.max()), key=lambda i: (counts[i], -radii[i]))
    offset = np.linalg.norm(np.cross(positions, positions[first] / radii[first]), axis=1)
    second = min(np.flatnonzero(offset > 0.5 * offset.max()), key=lambda i: (counts[i], -offset[i]))
    return int(first), int(second)


def _frame(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Right-handed orthonormal rows fixed by two vectors."""
    x = a / np.linalg.norm(a)
    z = np.cross(a, b)
    z /= np.linalg.norm(z)
    return np.stack([x, np.cross(z, x), z])


def _matching(target: np.ndarray, moved: np.ndarray, labels: np.ndarray, tolerance: float) -> np.ndarray | None:
    """For each moved atom the atom of its kind whose place it takes; None if one finds no place."""
    distances = np.linalg.norm(moved[:, None] - target[None], axis=-1)
    distances[labels[:, None] != labels[None]] = np.inf
    nearest = distances.argmin(axis=1)
    if distances.min(axis=1).max() > tolerance or len(set(nearest)) < len(nearest):
        return None
    return nearest


def _fitted(mobile: np.ndarray, target: np.ndarray) -> np.ndarray:
    """``mobile`` rotated (properly, about the origin) onto ``target`` with the least squared distance."""
    u, _, vt = np.linalg.svd(mobile.T @ target)
    u[:, -1] *= np.sign(np.linalg.det(u @ vt))
    return mobile @ (u @ vt)
