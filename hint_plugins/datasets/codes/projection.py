"""Hessians out of which a code has projected translations and rotations, made whole again.

Under a rigid motion the forces of a molecule are known without its Hessian: a shift changes nothing, and a turn about
an axis e turns them, ``H t = -(e x F)``. So what the projection took away can be put back exactly, at any geometry.
"""

from __future__ import annotations

import numpy as np

from hint_plugins.datasets.record import RecordError

#: Largest product of a projected Hessian with a rigid motion of unit length, over max|H|. Rounding gives up to 2e-6
#: (xtb); a geometry that is 1e-4 A away gives some 1e-4.
ROUNDING = 1e-5


def rigid_motions(positions: np.ndarray) -> np.ndarray:
    """(3N, 6) shifts along and turns about three axes through the mean position."""
    n, axes = len(positions), np.eye(3)
    turns = [np.cross(axis, positions - positions.mean(axis=0)).reshape(-1) for axis in axes]
    return np.array([*(np.tile(axis, n) for axis in axes), *turns]).T


def is_projected(hessian: np.ndarray, positions: np.ndarray) -> bool:
    """Whether every rigid motion of these positions gives zero, to the digits of a file."""
    motions = rigid_motions(positions)
    sizes = np.linalg.norm(motions, axis=0)
    motions = motions[:, sizes > 1e-6] / sizes[sizes > 1e-6]
    return bool(np.abs(hessian @ motions).max() <= ROUNDING * np.abs(hessian).max())


def unprojected(
    hessian: np.ndarray, positions: np.ndarray, forces: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """The Hessian before the projection ``A^T H A``.

    Parameters
    ----------
    hessian
        (3N, 3N) projected, eV/A^2.
    positions, forces
        (N, 3) in A and eV/A.
    weights
        (N,) masses if the projection was done in mass-weighted coordinates; None for plain Cartesian ones.

    Returns
    -------
    ndarray
        (3N, 3N) in eV/A^2.

    Raises
    ------
    RecordError
        If a rigid motion does not give zero: the Hessian belongs to other positions.
    """
    if not is_projected(hessian, positions):
        raise RecordError(
            "its Hessian, out of which rotations were projected, does not belong to the geometry of the gradient: "
            "another geometry, orientation or order of atoms"
        )
    motions = rigid_motions(positions)
    known = np.zeros_like(motions)
    known[:, 3:] = np.array([-np.cross(axis, forces).reshape(-1) for axis in np.eye(3)]).T
    w = np.repeat(np.ones(len(positions)) if weights is None else weights, 3)
    content = np.linalg.pinv((motions.T * w) @ motions) @ (motions.T * w)  # a displacement's part of each rigid motion
    mixed = (known - content.T @ (motions.T @ known)) @ content
    own = motions.T @ known
    return hessian + mixed + mixed.T + content.T @ (0.5 * (own + own.T)) @ content
