"""New geometries from known ones: Gaussian displacements, normal-mode samples, geodesic paths."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.units import _e, _hbar, _k
from scipy.constants import atomic_mass
from scipy.spatial.distance import pdist

from hint_plugins.errors import HintError

#: eV/(A^2 u) to (rad/s)^2.
_OMEGA2 = _e / (1e-20 * atomic_mass)
#: cm^-1 to rad/s.
_CM = 2.0 * np.pi * 2.99792458e10


class DisplacementError(HintError, ValueError):
    """Displacements that cannot be made, and why."""


def gaussian(
    atoms: Atoms, sigma: float, count: int, rng: np.random.Generator, *, keep_centre: bool = True
) -> list[Atoms]:
    """Displace every Cartesian component by a normal deviate (HINT: 30 unit cells, sigma 0.4 A).

    Parameters
    ----------
    atoms
        Structure, periodic or not.
    sigma
        Standard deviation in A.
    count
        How many structures.
    rng
        Source of randomness.
    keep_centre
        Take the mean displacement away, so that the centre of the atoms does not move; not where atoms are frozen,
        which stay in their places.

    Returns
    -------
    list of Atoms
        Labels and results (:data:`hint_plugins.structures.copies.RESULTS`) are not copied; the rest of ``info`` is.
    """
    if sigma <= 0 or count < 1:
        raise DisplacementError(f"sigma and count must be positive, got {sigma} and {count}")
    free = _free_components(atoms)
    structures = []
    for shift in rng.normal(0.0, sigma, (count, len(atoms), 3)):
        shift[~free] = 0.0
        if keep_centre and free.all():
            shift -= shift.mean(axis=0)
        structures.append(_moved(atoms, shift))
    return structures


def normal_modes(
    atoms: Atoms,
    hessian: np.ndarray,
    temperature: float,
    count: int,
    rng: np.random.Generator,
    *,
    quantum: bool = True,
    softest_cm1: float = 200.0,
    closest: float = 0.75,
) -> list[Atoms]:
    """Sample the harmonic distribution of a molecule at a temperature.

    Translations and rotations are projected out. Imaginary modes are sampled with the width of a real mode of
    the same |frequency|, and softer modes than ``softest_cm1`` with the width of that one: along them the
    harmonic picture ends before the harmonic width does. A sample that would bring two atoms below
    ``closest`` of their distance is halved until it does not.

    Parameters
    ----------
    atoms
        Molecule.
    hessian
        (3N, 3N) in eV/A^2.
    temperature
        K.
    count
        How many structures.
    rng
        Source of randomness.
    quantum
        Width ``hbar coth(hbar w / 2kT) / 2w`` (with zero-point motion) instead of ``kT / w^2``.
    softest_cm1
        Smallest frequency used for a width, cm^-1.
    closest
        Least allowed ratio of a distance to the same distance in ``atoms``.
    """
    if atoms.pbc.any():
        raise DisplacementError("normal-mode sampling is for molecules; use Gaussian displacements for crystals")
    if not _free_components(atoms).all():
        raise DisplacementError("normal-mode sampling is for free molecules; with frozen atoms use --method gaussian")
    if temperature < 0 or (temperature == 0 and not quantum):
        raise DisplacementError(f"the temperature must be positive, got {temperature} K")
    dim = 3 * len(atoms)
    if np.shape(hessian) != (dim, dim) or not np.isfinite(hessian).all():
        raise DisplacementError(f"the Hessian must be a finite ({dim}, {dim}) matrix")
    root = np.sqrt(np.repeat(atoms.get_masses(), 3))
    inner = vibrational_space(atoms)
    weighted = 0.5 * (hessian + hessian.T) / np.outer(root, root)
    values, vectors = np.linalg.eigh(inner.T @ weighted @ inner)
    omega = np.maximum(np.sqrt(np.abs(values) * _OMEGA2), softest_cm1 * _CM)
    if quantum:
        argument = _hbar * omega / (2 * _k * temperature) if temperature else np.full_like(omega, np.inf)
        variance = _hbar / (2 * omega * np.tanh(argument))
    else:
        variance = _k * temperature / omega**2
    width = np.sqrt(variance / atomic_mass) * 1e10
    modes = inner @ vectors
    structures = []
    for _ in range(count):
        shift = ((modes @ (width * rng.normal(size=len(width)))) / root).reshape(-1, 3)
        while _compression(atoms.positions, shift) < closest:
            shift *= 0.5
        structures.append(_moved(atoms, shift))
    return structures


def _compression(positions: np.ndarray, shift: np.ndarray) -> float:
    """Smallest ratio of a distance after the shift to the one before."""
    if len(positions) < 2:
        return 1.0
    before, after = pdist(positions), pdist(positions + shift)
    return float((after / before).min())


def vibrational_space(atoms: Atoms) -> np.ndarray:
    """Orthonormal (3N, 3N-6 or 3N-5) basis of mass-weighted vibrations: no translation, no rotation."""
    masses = atoms.get_masses()
    r = atoms.positions - atoms.get_center_of_mass()
    frame = [np.tile(e, len(atoms)) for e in np.eye(3)] + [np.cross(e, r).ravel() for e in np.eye(3)]
    weighted = np.array(frame).T * np.sqrt(np.repeat(masses, 3))[:, None]
    scale = np.linalg.norm(weighted, axis=0)
    left, singular, _ = np.linalg.svd(weighted / np.where(scale > 1e-6, scale, 1.0), full_matrices=True)
    return left[:, int((singular > 1e-4).sum()) :]


def interpolate(start: Atoms, end: Atoms, count: int) -> list[Atoms]:
    """Geodesic path in redundant internal coordinates (Zhu et al., J. Chem. Phys. 150, 164103 (2019)).

    Parameters
    ----------
    start, end
        Same atoms in the same order.
    count
        Images, both ends included.

    Raises
    ------
    DisplacementError
        Different atoms, fewer than two images, periodic input, or no path found.
    """
    if count < 2:
        raise DisplacementError(f"a path needs at least 2 images, got {count}")
    if len(start) != len(end) or (start.numbers != end.numbers).any():
        raise DisplacementError("start and end of a path must hold the same atoms in the same order")
    if start.pbc.any():
        raise DisplacementError("geodesic interpolation is for molecules")
    try:
        from geodesic_interpolate.geodesic import Geodesic
        from geodesic_interpolate.interpolation import redistribute
    except ImportError as error:
        raise DisplacementError(f"paths need `pip install geodesic-interpolate` ({error})") from error
    symbols = start.get_chemical_symbols()
    np_state = np.random.get_state()  # noqa: NPY002  (the library draws from numpy's global generator)
    try:
        np.random.seed(0)  # noqa: NPY002
        raw = redistribute(symbols, [start.positions, end.positions], count, tol=1e-2)
        smoother = Geodesic(symbols, raw, 1.7, threshold=3, friction=1e-2)
        smoother.smooth(tol=2e-3, max_iter=15)
    except (ValueError, np.linalg.LinAlgError, RuntimeError) as error:
        raise DisplacementError(f"no geodesic path found: {error}") from error
    finally:
        np.random.set_state(np_state)  # noqa: NPY002
    return [_moved(start, positions - start.positions) for positions in smoother.path]


def _free_components(atoms: Atoms) -> np.ndarray:
    """(N, 3) of bool: which components may be displaced."""
    from hint_plugins.labels.hessian_label import LabelError
    from hint_plugins.structures.frozen import free_components

    try:
        return free_components(atoms)
    except LabelError as error:
        raise DisplacementError(str(error)) from None


def _moved(atoms: Atoms, shift: np.ndarray) -> Atoms:
    from hint_plugins.labelling.record import strip_labels
    from hint_plugins.structures.copies import RESULTS

    copy = atoms.copy()
    strip_labels(copy)
    for name in RESULTS:
        copy.info.pop(name, None)
    copy.positions = atoms.positions + shift
    return copy
