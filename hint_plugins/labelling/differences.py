"""Hessian products from central differences of forces, and what they say about their own quality."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hint_plugins.curvature.probes import rademacher

Forces = Callable[[np.ndarray], np.ndarray]


def products(forces: Forces, positions: np.ndarray, directions: np.ndarray, step: float) -> np.ndarray:
    """``H z`` for every row z of ``directions``, from two force evaluations each.

    ``H z = (F(r - h z) - F(r + h z)) / 2h + O(h^2)``.

    Parameters
    ----------
    forces
        Positions (N, 3) in A to forces (N, 3) in eV/A.
    positions
        (N, 3) in A.
    directions
        (m, 3N), dimensionless.
    step
        h in A.

    Returns
    -------
    numpy.ndarray
        (m, 3N) in eV/A^2.
    """
    rows = np.empty(directions.shape)
    for row, z in zip(rows, directions, strict=True):
        shift = step * z.reshape(-1, 3)
        row[:] = ((forces(positions - shift) - forces(positions + shift)) / (2.0 * step)).reshape(-1)
    return rows


def largest_asymmetry(directions: np.ndarray, rows: np.ndarray) -> float:
    """Largest ``|z_i H z_j - z_j H z_i|`` over pairs of unit directions, eV/A^2; zero for an exact Hessian.

    For all one-hot directions this is max|H - H^T|.

    Parameters
    ----------
    directions, rows
        (m, 3N): the z, dimensionless, and their products ``H z`` in eV/A^2.
    """
    unit = np.linalg.norm(directions, axis=1)
    bilinear = (directions @ rows.T) / np.outer(unit, unit)
    return float(np.abs(bilinear - bilinear.T).max())


def disagreement(directions: np.ndarray, products: np.ndarray, others: np.ndarray) -> float:
    """Largest component by which two measurements of ``H z`` differ, for unit directions: eV/A^2.

    Parameters
    ----------
    directions
        (m, 3N), dimensionless.
    products, others
        (m, 3N) in eV/A^2.
    """
    return float((np.abs(products - others).max(axis=1) / np.linalg.norm(directions, axis=1)).max())


def sum_rule_residual(directions: np.ndarray, rows: np.ndarray) -> float:
    """Largest net force component that a unit direction raises, ``|sum_i (H z)_ia| / |z|`` in eV/A^2.

    Parameters are those of :func:`largest_asymmetry`.
    """
    net = rows.reshape(len(rows), -1, 3).sum(axis=1) / np.linalg.norm(directions, axis=1)[:, None]
    return float(np.abs(net).max())


def signs(count: int, dimension: int, seed: int, key: str) -> np.ndarray:
    """Directions of independent signs, (count, dimension), fixed by the seed and the structure's key (hexadecimal)."""
    return rademacher(count, dimension, np.random.default_rng([seed, int(key[:16], 16)]))


def choose_columns(count: int, dimension: int, seed: int, key: str) -> np.ndarray:
    """Distinct column indices, (min(count, dimension),), ascending, fixed by the seed and the structure's key."""
    rng = np.random.default_rng([seed, int(key[:16], 16)])
    return np.sort(rng.choice(dimension, size=min(count, dimension), replace=False))
