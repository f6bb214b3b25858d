"""Energies along the softest mode of a crystal: the double well, by models and by the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.io import write

from hint_plugins.errors import InputError
from hint_plugins.runs.figures import legend_below, new_figure, save_figure
from hint_plugins.runs.files import replacing
from hint_recipes.crystals.force_constants.force_constants import ForceConstants, signed_frequencies

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


def soft_mode(constants: ForceConstants) -> tuple[np.ndarray, float]:
    """Displacement pattern ``(N, 3)`` of the lowest mode of the supercell that is no translation, and its cm^-1.

    The pattern is real and normalised so that its largest atomic displacement is 1 A.
    """
    masses = np.repeat(constants.supercell.get_masses(), 3)
    hessian = constants.acoustic_sum_rule().hessian
    values, vectors = np.linalg.eigh(hessian / np.sqrt(masses[:, None] * masses))
    order = np.argsort(np.abs(values))
    free = set(order[:3].tolist())
    index = next(i for i in range(len(values)) if i not in free)
    pattern = (vectors[:, index] / np.sqrt(masses)).reshape(-1, 3)

    return pattern / np.linalg.norm(pattern, axis=1).max(), float(signed_frequencies(values[index]))


def line_scan(
    potential: Potential, constants: ForceConstants, pattern: np.ndarray, amplitudes: np.ndarray
) -> np.ndarray:
    """Energies (eV a supercell, relative to no displacement) along ``pattern``."""
    structures = []
    for amplitude in (0.0, *amplitudes):
        atoms = constants.supercell.copy()
        atoms.positions += amplitude * pattern
        structures.append(atoms)
    energies = np.asarray(potential.evaluate(structures).energies)
    return energies[1:] - energies[0]


def scanned_pattern(scan: Sequence[Atoms], constants: ForceConstants) -> np.ndarray:
    """The displacement that the structures of a line scan share, for 1 A."""
    try:
        farthest = max(scan, key=lambda atoms: abs(atoms.info["amplitude_A"]))
        shift = farthest.positions - constants.supercell.positions
        return shift / farthest.info["amplitude_A"]
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"the line scan is not line_scan.extxyz of this crystal with labels: {error!r}") from None


def write_scan(constants: ForceConstants, pattern: np.ndarray, amplitudes: np.ndarray, path: Path) -> None:
    """Structures along the scan, to be labelled."""
    structures = []
    for amplitude in amplitudes:
        atoms = constants.supercell.copy()
        atoms.positions += amplitude * pattern
        atoms.info["amplitude_A"] = round(float(amplitude), 6)
        structures.append(atoms)
    with replacing(path) as temporary:
        write(temporary, structures, format="extxyz")


def plot_scan(
    amplitudes: np.ndarray, curves: Mapping[str, np.ndarray], points: Sequence[Mapping], soft: float, path: Path
) -> None:
    figure, axes = new_figure()
    for name, values in curves.items():
        axes.plot(amplitudes, values, "k:" if name.startswith("harmonic") else "-", label=name)
    if points:
        x, y = zip(*((p["amplitude_A"], p["energy"]) for p in points), strict=True)
        axes.plot(x, y, "ko", label="reference")
    wave = f"{abs(soft):.0f}{'i' if soft < 0 else ''} cm⁻¹"
    axes.set(xlabel=f"displacement along the softest mode, {wave} (Å)", ylabel="energy (eV per supercell)")
    legend_below(figure)
    save_figure(figure, path)
