"""Harmonic phonons: bands, density of states and thermal properties from force constants (through phonopy)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.units import THZ_TO_CM1
from hint_recipes.crystals.force_constants.dielectric import missing_charges
from hint_recipes.crystals.force_constants.files import read_force_constants, save_force_constants
from hint_recipes.crystals.force_constants.force_constants import ForceConstants, signed_frequencies
from hint_recipes.crystals.force_constants.phonopy_cells import from_phonopy_atoms

if TYPE_CHECKING:
    from phonopy import Phonopy

#: kJ/mol in eV.
KJ_MOL = 0.01036426965
#: Modes below this (cm^-1, negative = imaginary) count as imaginary; noise of the acoustic modes at Gamma does not.
IMAGINARY_BELOW = -5.0


@dataclass
class Bands:
    """Phonon bands along the standard path of the cell's Bravais lattice."""

    distances: list[np.ndarray]  #: one array per segment, reciprocal A
    frequencies: list[np.ndarray]  #: ``(points, 3n)`` per segment, cm^-1, imaginary negative
    labels: list[tuple[float, str]]  #: distance and name of the special points


@dataclass
class Harmonic:
    """What the harmonic approximation gives for one set of force constants."""

    constants: ForceConstants
    frequencies: np.ndarray  #: ``(num_cells, 3n)`` at the commensurate q points, cm^-1
    bands: Bands
    dos: np.ndarray  #: ``(points, 2)``: cm^-1, states per cm^-1 and unit cell
    thermal: list[dict[str, float]] = field(default_factory=list)
    meshes: list[dict[str, Any]] = field(default_factory=list)
    dos_of_elements: dict[str, np.ndarray] = field(default_factory=dict)  #: its part of ``dos``, ``(points,)``

    def splitting(self) -> dict[str, np.ndarray]:
        """Frequencies (cm^-1) at Gamma in the limit towards the special points; none without Born charges."""
        if self.constants.tensors is None:
            return {}
        ends = zip(self.bands.labels[0::2], self.bands.labels[1::2], self.bands.frequencies, strict=True)
        towards: dict[str, np.ndarray] = {}
        for (_, start), (_, stop), rows in ends:
            for gamma, other, row in ((start, stop, rows[0]), (stop, start, rows[-1])):
                if gamma == "G":
                    towards.setdefault(other, row)
        return towards

    def without_charges(self) -> str:
        """What is missing without Born effective charges, in words; empty when that is nothing."""
        if self.constants.tensors is not None:
            return ""
        return missing_charges(self.constants.primitive) or ""

    def left_out(self) -> str:
        """What the thermal properties leave out, in words; empty when that is nothing."""
        finest = self.meshes[-1]
        if not finest["num_imaginary"]:
            return ""
        divisions = "x".join(map(str, finest["mesh"]))
        return (
            f"{finest['num_imaginary']} of {finest['num_modes']} modes on the {divisions} mesh are imaginary and left "
            "out of free energy, entropy and heat capacity"
        )

    @property
    def num_imaginary(self) -> int:
        """Imaginary modes at the commensurate q points (no interpolation involved)."""
        return int((self.frequencies < IMAGINARY_BELOW).sum())


def band_path(primitive: Atoms, points: int = 60) -> tuple[list[np.ndarray], list[tuple[str, str]]]:
    """Segments of the standard path (ASE) as fractional q points, with the names of their ends.

    Parameters
    ----------
    primitive
        The cell; the path follows its Bravais lattice in the user's own setting.
    points
        Points of an average segment.
    """
    path = primitive.cell.bandpath()
    from ase.dft.kpoints import parse_path_string

    segments, names = [], []
    for piece in parse_path_string(path.path):
        for start, stop in pairwise(piece):
            a, b = path.special_points[start], path.special_points[stop]
            segments.append(a + np.linspace(0, 1, points)[:, None] * (b - a))
            names.append((start, stop))
    return segments, names


def bands(constants: ForceConstants, points: int = 60) -> Bands:
    """Frequencies along the standard path, Fourier-interpolated by phonopy.

    Of a polar crystal with tensors, Gamma at the end of a segment is the limit along that segment.
    """
    phonon = constants.to_phonopy()
    segments, names = band_path(constants.primitive, points)
    reciprocal = constants.primitive.cell.reciprocal().array
    offset, distances, frequencies, labels = 0.0, [], [], []
    for segment, (start, stop) in zip(segments, names, strict=True):
        lengths = np.linalg.norm((segment - segment[0]) @ reciprocal, axis=1)
        distances.append(offset + lengths)
        direction = segment[-1] - segment[0]
        frequencies.append(phonon.run_qpoints(segment, nac_q_direction=direction).frequencies * THZ_TO_CM1)
        labels += [(offset, start), (offset + lengths[-1], stop)]
        offset += lengths[-1]
    return Bands(distances, frequencies, labels)


def harmonic(
    constants: ForceConstants,
    *,
    mesh: Sequence[int] = (12, 12, 12),
    temperatures: Sequence[float] = (0.0, 100.0, 200.0, 300.0),
    points: int = 60,
    smearing: float = 10.0,
) -> Harmonic:
    """Bands, density of states and thermal properties of one set of force constants.

    Parameters
    ----------
    constants
        Force constants, already symmetrised as wanted.
    mesh
        q mesh for density of states and free energy; the free energy is repeated on half the mesh to show convergence.
    temperatures
        K.
    points
        Points a band segment.
    smearing
        Gaussian width of the density of states, cm^-1.

    Returns
    -------
    Harmonic
        Free energies in eV per unit cell; imaginary modes are left out of them and counted.
    """
    mesh = tuple(int(m) for m in mesh)
    if min(mesh) < 1 or min(temperatures, default=0) < 0:
        raise InputError("mesh divisions must be positive and temperatures not negative")
    phonon = constants.to_phonopy()
    result = Harmonic(constants, constants.frequencies(), bands(constants, points), np.zeros((0, 2)))
    for divisions in dict.fromkeys((tuple(max(1, m // 2) for m in mesh), mesh)):
        grid = phonon.run_mesh(divisions, is_gamma_center=True)
        frequencies = np.asarray(grid.frequencies) * THZ_TO_CM1
        count = ((frequencies < IMAGINARY_BELOW) * np.asarray(grid.weights)[:, None]).sum()
        thermal = phonon.run_thermal_properties(
            temperatures=np.array(temperatures, dtype=float), exclude_gamma_acoustic=True
        )
        free_energy = np.asarray(thermal.free_energy) * KJ_MOL
        result.meshes.append(
            {
                "mesh": divisions,
                "num_imaginary": int(count),
                "num_modes": int(np.asarray(grid.weights).sum()) * frequencies.shape[1],
                "free_energy": dict(zip(temperatures, free_energy, strict=True)),
            }
        )
    entropy, capacity = np.asarray(thermal.entropy), np.asarray(thermal.heat_capacity)
    result.thermal = [
        {
            "temperature_K": float(t),
            "free_energy_eV": float(free_energy[i]),
            "entropy_eV_per_K": float(entropy[i] * KJ_MOL / 1000),
            "heat_capacity_eV_per_K": float(capacity[i] * KJ_MOL / 1000),
            "imaginary_modes_left_out": int(count),
        }
        for i, t in enumerate(temperatures)
    ]
    result.dos = density_of_states(frequencies, np.asarray(grid.weights), smearing)
    result.dos_of_elements = _element_densities(constants, phonon, mesh, result.dos[:, 0], smearing)
    return result


def _element_densities(
    constants: ForceConstants, phonon: Phonopy, mesh: Sequence[int], axis: np.ndarray, smearing: float
) -> dict[str, np.ndarray]:
    """Density of states (per cm^-1 and unit cell) weighted with what each element has of the eigenvectors."""
    grid = phonon.run_mesh(mesh, is_gamma_center=True, with_eigenvectors=True, is_mesh_symmetry=False)
    frequencies = np.asarray(grid.frequencies) * THZ_TO_CM1  # (q, band)
    shares = (np.abs(np.asarray(grid.eigenvectors)) ** 2).reshape(len(frequencies), -1, 3, frequencies.shape[1]).sum(2)
    own = np.array(from_phonopy_atoms(phonon.primitive).get_chemical_symbols())
    bins = np.histogram_bin_edges(axis, bins=4 * len(axis), range=(axis[0], axis[-1]))
    centres = (bins[1:] + bins[:-1]) / 2
    kernel = np.exp(-0.5 * ((axis[:, None] - centres) / smearing) ** 2) / (smearing * np.sqrt(2 * np.pi))
    densities = {}
    for symbol in dict.fromkeys(constants.primitive.get_chemical_symbols()):
        weights = shares[:, own == symbol].sum(1) / len(frequencies)
        densities[symbol] = kernel @ np.histogram(frequencies, bins, weights=weights)[0]
    return densities


def density_of_states(frequencies: np.ndarray, weights: np.ndarray, smearing: float) -> np.ndarray:
    """Gaussian-smeared density of states; integrates to the number of modes of the unit cell.

    Parameters
    ----------
    frequencies
        ``(Q, 3n)`` in cm^-1.
    weights
        ``(Q,)`` multiplicities of the q points.
    smearing
        cm^-1.
    """
    low, high = frequencies.min() - 5 * smearing, frequencies.max() + 5 * smearing
    axis = np.linspace(low, high, max(600, int(4 * (high - low) / smearing)))
    shares = np.repeat(weights / weights.sum(), frequencies.shape[1])
    gaussians = np.exp(-0.5 * ((axis[:, None] - frequencies.ravel()) / smearing) ** 2)
    return np.stack([axis, gaussians @ shares / (smearing * np.sqrt(2 * np.pi))], axis=1)


def compare(constants: ForceConstants, reference: ForceConstants) -> dict[str, float]:
    """Differences of Hessian (eV/A^2) and commensurate frequencies (cm^-1, mode by mode in ascending order).

    Raises
    ------
    InputError
        If the two crystals or supercells differ.
    """
    if constants.multiples != reference.multiples:
        raise InputError(f"supercells differ: {constants.multiples} and {reference.multiples} (reference)")
    try:
        aligned = ForceConstants.from_supercell(
            constants.primitive, reference.supercell, reference.hessian, tolerance=0.1
        )
    except ValueError as error:
        raise InputError(f"the reference is another crystal: {error}") from None
    difference = constants.frequencies() - aligned.frequencies()
    return {
        "hessian_mae": float(np.abs(constants.hessian - aligned.hessian).mean()),
        "hessian_max_error": float(np.abs(constants.hessian - aligned.hessian).max()),
        "frequency_mae_cm1": float(np.abs(difference).mean()),
        "frequency_rmse_cm1": float(np.sqrt((difference**2).mean())),
        "frequency_max_error_cm1": float(np.abs(difference).max()),
    }


__all__ = [
    "Bands",
    "Harmonic",
    "bands",
    "compare",
    "density_of_states",
    "harmonic",
    "read_force_constants",
    "save_force_constants",
    "signed_frequencies",
]
