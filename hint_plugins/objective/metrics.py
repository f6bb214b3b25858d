"""Errors of a predicted Hessian, as the literature states them.

Hessian MAE and eigenvalue MAE follow HORM (arXiv:2505.12447): mean over the entries (sorted eigenvalues) of one
structure, then mean over structures; Cartesian, in eV/A^2. Frequencies are those of the mass-weighted Hessian with
translations and rotations projected out; imaginary ones count as negative. Where atoms are frozen (``FixAtoms``,
``FixCartesian``), all errors are those of the block of the free components, which has no translations or rotations.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from ase import Atoms

from hint_plugins.errors import HintError
from hint_plugins.structures.frozen import free_components
from hint_plugins.units import CM1


class NotFiniteError(HintError, ValueError):
    """A model gave numbers that are not finite, so there are no errors to speak of."""


def symmetrised(hessian: np.ndarray) -> np.ndarray:
    """(H + H^T) / 2."""
    return 0.5 * (hessian + hessian.T)


def mean_asymmetry(hessian: np.ndarray) -> float:
    """Mean |H_ij - H_ji| in eV/A^2 (as in HORM)."""
    return float(np.abs(hessian - hessian.T).mean())


def external_modes(atoms: Atoms) -> np.ndarray:
    """Orthonormal mass-weighted translations and, for a molecule, rotations: (3N, k).

    Frozen atoms hold the rest in place: then these are the coordinates of the frozen atoms instead.
    """
    free = free_components(atoms).reshape(-1)
    if not free.all():
        return np.eye(len(free))[:, ~free]
    roots = np.sqrt(atoms.get_masses())
    vectors = [np.outer(roots, axis).reshape(-1) for axis in np.eye(3)]
    if not atoms.pbc.any():
        r = atoms.positions - atoms.get_center_of_mass()
        vectors += [(roots[:, None] * np.cross(axis, r)).reshape(-1) for axis in np.eye(3)]
    u, s, _ = np.linalg.svd(np.stack(vectors, axis=1), full_matrices=False)
    return u[:, s > 1e-4 * s[0]]


def frequencies(hessian: np.ndarray, atoms: Atoms) -> np.ndarray:
    """Harmonic wavenumbers, sorted, imaginary ones negative.

    Parameters
    ----------
    hessian
        (3N, 3N) in eV/A^2.
    atoms
        The structure; its masses (amu), its periodicity (rotations are projected out of molecules only) and its
        frozen atoms, without which the matrix is taken.

    Returns
    -------
    numpy.ndarray
        (3N - k,) cm^-1, where k is the number of translations and rotations, or of frozen components.
    """
    roots = np.sqrt(np.repeat(atoms.get_masses(), 3))
    weighted = symmetrised(hessian) / np.outer(roots, roots)
    external = external_modes(atoms)
    full, _ = np.linalg.qr(np.concatenate([external, np.eye(len(roots))], axis=1))
    internal = full[:, external.shape[1] :]
    values = np.linalg.eigvalsh(internal.T @ weighted @ internal)
    return np.sign(values) * np.sqrt(np.abs(values)) * CM1


def hessian_errors(predicted: np.ndarray, reference: np.ndarray, atoms: Atoms) -> dict[str, float]:
    """Errors of one structure's Hessian, (3N, 3N); of its free block where atoms are frozen.

    Returns
    -------
    dict
        ``hessian_mae``, ``eigenvalue_mae`` (eV/A^2), ``frequency_mae_cm1`` (cm^-1; 0 for one atom),
        ``asymmetry`` (eV/A^2, of the prediction).

    Raises
    ------
    NotFiniteError
        If the predicted Hessian is not finite.
    """
    if not np.isfinite(predicted).all():
        raise NotFiniteError(f"the model's Hessian of {atoms.get_chemical_formula()} is not finite")
    waves = frequencies(predicted, atoms) - frequencies(reference, atoms)
    free = free_components(atoms).reshape(-1)
    predicted, reference = predicted[free][:, free], reference[free][:, free]
    eigen = np.linalg.eigvalsh(symmetrised(predicted)) - np.linalg.eigvalsh(symmetrised(reference))
    return {
        "hessian_mae": float(np.abs(predicted - reference).mean()),
        "eigenvalue_mae": float(np.abs(eigen).mean()),
        "frequency_mae_cm1": float(np.abs(waves).mean()) if waves.size else 0.0,
        "asymmetry": mean_asymmetry(predicted),
    }


def average(errors: Iterable[dict[str, float]]) -> dict[str, float]:
    """Mean over structures of each error; empty for no structure."""
    rows = list(errors)
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} if rows else {}
