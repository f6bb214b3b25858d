"""Probes that estimate a part of the Hessian error: an active region, or what acts between molecules.

A part is a mask on the matrix: probes are zero outside its sources, and products are compared on its receivers alone.
With probes z of unit covariance the expectation of ``|(dH z)_R|^2`` is the squared Frobenius norm of the block
``dH_RS`` (Hutchinson). Of an active region the block is one and the same. Between molecules the blocks of all pairs are
wanted: a random split of M molecules into sources and receivers, neither of them empty, has a given ordered pair on
its two sides with probability ``2^(M-2) / (2^M - 2)``, by which the square is divided.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms

from hint_plugins.labels.hessian_label import HessianLabel, LabelError
from hint_plugins.structures.geometry import contacts

#: Entries of ``arrays`` that mark a part.
DEFAULT_KEYS = {"active": "active", "intermolecular": "molecule"}
#: Atoms closer than so many times the sum of their covalent radii belong to one molecule.
BONDED = 1.3


def groups_of(part: str, atoms: Atoms, key: str | None = None) -> np.ndarray:
    """What marks the part in a structure.

    Parameters
    ----------
    part
        ``active`` or ``intermolecular``.
    atoms
        The structure, with one number per atom under ``key``.
    key
        Name in ``arrays``; by default :data:`DEFAULT_KEYS`. Without one, molecules are found by their bonds.

    Returns
    -------
    numpy.ndarray
        (N,) integers: 1 in the active region and 0 elsewhere; or the number of the molecule.

    Raises
    ------
    LabelError
        If there is no such array, it is not made of integers, the region is empty, or there are fewer than two
        molecules.
    """
    name = key or DEFAULT_KEYS[part]
    stores = (atoms.arrays, atoms.info, atoms.info.get("__arrays__") or {})  # the last: databases read by other codes
    values = next((np.asarray(store[name]) for store in stores if name in store), None)
    if values is None:
        if part == "active" or key is not None:
            raise LabelError(
                f"hessian_part {part} needs the array {name!r} with one number per atom, and there is none"
            )
        values = _bonded(atoms)
    if values.shape != (len(atoms),) or values.dtype.kind not in "biuf" or (values != np.round(values)).any():
        raise LabelError(f"the array {name!r} (hessian_part {part}) is not made of one integer per atom")
    groups = values.astype(np.int64)
    if part == "active" and not groups.any():
        raise LabelError(f"the active region is empty: {name!r} is 0 for every atom")
    if part == "intermolecular" and len(np.unique(groups)) < 2:
        raise LabelError("the structure is one molecule, so nothing acts between molecules")
    return groups


def _bonded(atoms: Atoms) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    i, j, _, _ = contacts(atoms, BONDED)
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(len(atoms),) * 2)
    return connected_components(graph, directed=False)[1]


def require_part(part: str, label: HessianLabel, groups: np.ndarray, free: np.ndarray) -> None:
    """Refuse a label that cannot tell the part.

    Parameters
    ----------
    part, label, groups
        As in :func:`pairs_of_part`.
    free
        (N, 3) of bool.

    Raises
    ------
    LabelError
        For projections, whose directions are what they are, and where label and free atoms leave nothing of the part.
    """
    if label.kind == "projections":
        raise LabelError(f"projections have directions of their own, which hessian_part {part} cannot restrict")
    inside = np.repeat(groups, 3)[label.known & free.reshape(-1)]
    if (part == "active" and not inside.any()) or (part == "intermolecular" and len(np.unique(inside)) < 2):
        raise LabelError(f"nothing of hessian_part {part} is among the coordinates that the label knows and are free")


def pairs_of_part(
    part: str, label: HessianLabel, groups: np.ndarray, free: np.ndarray, z: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Probes and products for a part.

    Parameters
    ----------
    part
        ``active`` or ``intermolecular``.
    label
        Any kind but projections.
    groups
        (N,) as :func:`groups_of` gives them.
    free
        (3N,) of bool: coordinates that are not frozen.
    z
        (m, 3N) as :meth:`HessianLabel.pairs` draws them.
    rng
        Source of the splits of molecules.

    Returns
    -------
    z, hz
        Both (m, 3N). Products that are not compared are NaN. The mean square of the others is unbiased for the squared
        Frobenius norm of the part of the error, divided by the number of coordinates of the active region, or
        (intermolecular) by that of all known and free ones, as for the whole Hessian.
    """
    usable, group = label.known & free, np.repeat(groups, 3)
    if part == "active":
        receivers = sources = np.broadcast_to(usable & (group != 0), z.shape)
        factor = np.ones(len(z))
    else:
        molecules = np.unique(group[usable])
        sides = _splits(len(z), len(molecules), rng)[:, np.searchsorted(molecules, group).clip(0, len(molecules) - 1)]
        sources, receivers = usable & sides, usable & ~sides
        factor = (4.0 - 2.0 ** (3 - len(molecules))) * receivers.sum(axis=1) / usable.sum()
    z = np.where(sources, z, 0.0) * np.sqrt(factor)[:, None]
    return z, np.where(receivers, label.times(z), np.nan)


def _splits(count: int, molecules: int, rng: np.random.Generator) -> np.ndarray:
    """(count, molecules) of bool, uniform among those with both values in every row."""
    sides = rng.integers(0, 2, size=(count, molecules)).astype(bool)
    while (one_sided := sides.all(axis=1) | ~sides.any(axis=1)).any():
        sides[one_sided] = rng.integers(0, 2, size=(int(one_sided.sum()), molecules)).astype(bool)
    return sides
