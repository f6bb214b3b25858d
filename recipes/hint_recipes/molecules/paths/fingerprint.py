"""Hessians and frequencies along a path.

The frequencies against the reaction coordinate are the "vibrational fingerprint" of Rodriguez, Smith and
Mendoza-Cortes; orthogonal to the path they are those of the reaction-path Hamiltonian (Miller, Handy and Adams,
J. Chem. Phys. 72, 99 (1980)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from hint_plugins.objective.metrics import external_modes, frequencies, symmetrised
from hint_plugins.structures.frozen import free_components, with_zeros
from hint_plugins.units import CM1, KCAL
from hint_recipes.molecules.paths.elastic_band import evaluate_images, path_length

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


@dataclass
class Fingerprint:
    """Vibrations along a path of M images with N atoms.

    Attributes
    ----------
    coordinate
        (M,) mass-weighted arc length, amu^(1/2) A.
    energies
        (M,) eV.
    frequencies
        (M, K) cm^-1, translations and rotations projected out, sorted, imaginary ones negative.
    orthogonal
        (M, K - 1) cm^-1, the direction of the path projected out too.
    hessians
        (M, 3N, 3N) eV/A^2; rows and columns of frozen coordinates are zero.
    """

    coordinate: np.ndarray
    energies: np.ndarray
    frequencies: np.ndarray
    orthogonal: np.ndarray
    hessians: np.ndarray


def fingerprint(images: Sequence[Atoms], potential: Potential) -> Fingerprint:
    """Energies, Hessians and frequencies of all images (at least 3), in batches.

    Raises
    ------
    ValueError
        For fewer than 3 images, or two neighbours at the same place.
    """
    if len(images) < 3:
        raise ValueError(f"a path needs at least 3 images, got {len(images)}")
    coordinate = path_length(images)
    if (np.diff(coordinate) < 1e-8).any():
        at = int(np.argmin(np.diff(coordinate)))
        raise ValueError(f"images {at} and {at + 1} of the path are the same structure")
    frames = list(images)
    energies = evaluate_images(potential, frames)
    free = [free_components(atoms) for atoms in frames]
    if all(mask.all() for mask in free):
        hessians = potential.hessians(frames)
    else:
        blocks = potential.hessians(frames, free=True)
        hessians = [with_zeros(block, mask) for block, mask in zip(blocks, free, strict=True)]
    tangents = mass_weighted_tangents(frames, coordinate)
    waves = _padded([frequencies(h, atoms) for h, atoms in zip(hessians, frames, strict=True)])
    orthogonal = _padded(
        [orthogonal_frequencies(h, atoms, t) for h, atoms, t in zip(hessians, frames, tangents, strict=True)]
    )
    return Fingerprint(coordinate, energies, waves, orthogonal, np.array(hessians))


def _padded(rows: list[np.ndarray]) -> np.ndarray:
    """Rows of unequal length (a linear image has one mode more) as one array, filled with NaN."""
    width = max(map(len, rows))
    return np.array([np.concatenate([row, np.full(width - len(row), np.nan)]) for row in rows])


def mass_weighted_tangents(images: Sequence[Atoms], coordinate: np.ndarray) -> np.ndarray:
    """(M, 3N) unit tangents in mass-weighted coordinates, by finite differences along the path."""
    roots = np.sqrt(np.repeat(images[0].get_masses(), 3))
    curve = np.array([image.positions.reshape(-1) * roots for image in images])
    tangents = np.gradient(curve, coordinate, axis=0)
    return tangents / np.linalg.norm(tangents, axis=1, keepdims=True)


def orthogonal_frequencies(hessian: np.ndarray, atoms: Atoms, tangent: np.ndarray) -> np.ndarray:
    """Frequencies (cm^-1) orthogonal to translations, rotations and the path.

    Parameters
    ----------
    hessian
        (3N, 3N) eV/A^2.
    atoms
        The image.
    tangent
        (3N,) direction of the path in mass-weighted coordinates.
    """
    roots = np.sqrt(np.repeat(atoms.get_masses(), 3))
    weighted = symmetrised(hessian) / np.outer(roots, roots)
    external = external_modes(atoms)
    along = tangent - external @ (external.T @ tangent)
    removed = np.concatenate([external, (along / np.linalg.norm(along))[:, None]], axis=1)
    full, _ = np.linalg.qr(np.concatenate([removed, np.eye(len(roots))], axis=1))
    rest = full[:, removed.shape[1] :]
    values = np.linalg.eigvalsh(rest.T @ weighted @ rest)
    return np.sign(values) * np.sqrt(np.abs(values)) * CM1


def plot_fingerprint(found: Fingerprint, path: Path, *, title: str = "", width: float = 25.0) -> None:
    """Energy profile above the spectrum (Gaussians of ``width`` cm^-1) against the reaction coordinate."""
    from hint_plugins.runs.figures import new_figure, save_figure, wrapped

    waves = found.frequencies
    grid = np.linspace(min(-200.0, np.nanmin(waves) - 150), np.nanmax(waves) + 150, 700)
    density = np.nansum(np.exp(-0.5 * ((grid[:, None, None] - waves[None]) / width) ** 2), axis=2)
    figure, (top, bottom) = new_figure(5.6, 5.4, nrows=2, sharex=True, height_ratios=[1, 2.4])
    top.plot(found.coordinate, (found.energies - found.energies[0]) / KCAL, "o-", markersize=3)
    top.set(ylabel="energy (kcal/mol)", title=wrapped(title, 5.0, 12))
    bottom.pcolormesh(found.coordinate, grid, density, shading="nearest", cmap="magma_r", rasterized=True)
    bottom.axhline(0, color="0.5", linewidth=0.7)
    bottom.set(xlabel="reaction coordinate (amu$^{1/2}$ Å)", ylabel="frequency (cm⁻¹; imaginary below 0)")
    save_figure(figure, path)
