"""Identities that every Hessian label keeps: symmetry, translation, rotation, and the size of its directions."""

from __future__ import annotations

import numpy as np

from hint_plugins.curvature.layouts import Layout, convert
from hint_plugins.labels.hessian_label import HessianLabel

#: Products smaller than this (eV/A^2) are noise, as those of a direction that is a rigid shift or turn.
FLOOR = 0.3
#: Largest ``|z_i.H z_j - z_j.H z_i|`` relative to the size of the products; real labels reach 4e-3, products that
#: belong to other directions have 1 and more.
MAX_MUTUAL = 0.05


def directions_of(label: HessianLabel) -> np.ndarray:
    """(m, 3N) the directions whose products the label knows; for columns, blocks and whole matrices one-hot."""
    dim = 3 * label.num_atoms
    if label.kind == "projections":
        assert label.directions is not None
        return label.directions
    rows = np.arange(dim) if label.kind == "full" else label.directions
    z = np.zeros((len(label.products), dim))
    z[np.arange(len(z)), rows] = 1.0
    return z


def size_reasons(label: HessianLabel) -> list[str]:
    """Directions have unit covariance: ``|z|^2`` is 3N, exactly or (Gaussian) as chi squared with 3N degrees."""
    from scipy.stats import chi2

    if label.kind != "projections":
        return []
    assert label.directions is not None
    count, dim = label.directions.shape
    with np.errstate(over="ignore"):
        squares = np.square(label.directions).sum(axis=1)
    if np.allclose(squares, dim, rtol=1e-3):
        return []
    low, high = chi2.ppf(1e-9, dim * count), chi2.isf(1e-9, dim * count)
    equal = np.allclose(squares, squares[0], rtol=1e-6) and (count > 1 or abs(squares[0] - 1) < 1e-6)
    if low <= squares.sum() <= high and not equal:
        return []
    mean = float(squares.mean())
    way = f"; multiply directions and products by {np.sqrt(dim / mean):.3g}" if 0 < mean < np.inf else ""
    return [f"the directions have |z|^2 = {mean:.3g} on average where 3N = {dim} is expected{way}"]


def is_rigid(z: np.ndarray, positions: np.ndarray, periodic: bool) -> bool:
    """Whether all directions (m, 3N) are rigid motions, for which the products may be zero."""
    n = len(positions)
    motions = [np.tile(axis, n) for axis in np.eye(3)]
    if not periodic:
        motions += [np.cross(axis, positions - positions.mean(axis=0)).reshape(-1) for axis in np.eye(3)]
    basis, sizes, _ = np.linalg.svd(np.array(motions).T, full_matrices=False)
    basis = basis[:, sizes > 1e-6 * sizes.max()]
    return bool(np.abs(z - (z @ basis) @ basis.T).max() < 1e-6 * np.abs(z).max())


def relative_asymmetry(label: HessianLabel) -> float:
    """Largest violation of symmetry: of the matrix or the known part of it, or of ``z_i.H z_j`` under exchange."""
    values = label.products
    if label.kind == "projections":
        assert label.directions is not None
        mutual = label.directions @ values.T
        spread = np.square(label.directions).sum(axis=1).mean() / values.shape[1]
        scale = np.sqrt(np.square(values).sum(axis=1).mean() * spread)
        return float(np.abs(mutual - mutual.T).max() / max(scale, 3 * FLOOR))
    block = values[:, label.directions] if label.kind == "columns" else values
    floor = FLOOR if label.kind == "columns" else 0.0
    return float(np.abs(block - block.T).max() / max(float(np.abs(values).max()), floor))


def implied_forces(hessian: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forces (N, 3) that a whole Hessian of a molecule fits best, and ``H t`` (3, N, 3) for rotations about each atom.

    A rigid turn about axis e with the atom at rest gives it ``-(e x F)``.
    """
    axes = np.eye(3)
    blocks = convert(hessian, Layout.FLAT, Layout.ASE)
    apart = positions[None] - positions[:, None]
    turned = np.stack([np.einsum("iajb,ijb->ia", blocks, np.cross(axis, apart)) for axis in axes])
    return 0.5 * np.cross(axes[:, None], turned).sum(axis=0), turned


def rotation(label: HessianLabel, positions: np.ndarray, forces: np.ndarray | None) -> float | None:
    """Largest violation of ``H t = -(e x F)`` over three axes e, relative to what its terms could add up to.

    For a full label every row turns about its own atom, so that only its neighbours count. What noise explains is
    taken off: its size, from asymmetry and translational sum rule (both about three standard deviations of one
    number), times the root of the sum of squared distances. 2 % of max|H| at 1 A is added to the scale, since rows
    that are nearly zero carry nothing but noise. None for blocks, and for columns and products without forces.
    """
    if label.kind == "block":
        return None
    n, axes = len(positions), np.eye(3)
    largest = float(np.abs(label.products).max())
    if label.kind == "full":
        blocks = convert(label.products, Layout.FLAT, Layout.ASE)
        apart = np.linalg.norm(positions[None] - positions[:, None], axis=2)
        fitted, turned = implied_forces(label.products, positions)
        forces = fitted if forces is None else forces
        noise = max(np.abs(blocks.sum(axis=2)).max() / np.sqrt(n), np.abs(label.products - label.products.T).max())
        violation = np.abs(turned + np.cross(axes[:, None], forces)).max(axis=(0, 2))
        violation = np.maximum(violation - noise * np.linalg.norm(apart, axis=1), 0.0)
        scale = (np.linalg.norm(blocks, axis=(1, 3)) * apart).sum(axis=1)
        return float((violation / (scale + 0.02 * largest)).max())
    if forces is None:
        return None
    products = label.products.reshape(-1, n, 3)
    centred = positions - positions.mean(axis=0)
    z = directions_of(label).reshape(-1, n, 3)
    worst = 0.0
    for axis in axes:
        violation = np.abs((products * np.cross(axis, centred) + z * np.cross(axis, forces)).sum(axis=(1, 2)))
        scale = (np.linalg.norm(products, axis=2) * np.linalg.norm(centred, axis=1)).sum(axis=1)
        worst = max(worst, float((violation / (scale + max(0.02 * largest, FLOOR))).max()))
    return worst
