"""Electron-phonon coupling of Quantum ESPRESSO carried over to other (anharmonic) phonons.

Two routes. *Stock Quantum ESPRESSO*: ``q2r.x`` and ``matdyn.x`` project the Cartesian coupling matrices
(``elph_dir/a2Fmatdyn.*``) on the polarisation vectors of any dynamical matrices; exact, interpolated to a dense mesh.
*Projection of mode-resolved couplings* (``elph_dir/elph.inp_lambda.*``) where only these exist: off-diagonal couplings
are lost. Both follow Errea et al., Phys. Rev. Lett. 111, 177002 (2013), who keep the deformation potential and change
the phonons.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hint_plugins.errors import InputError
from hint_plugins.units import CM1
from hint_recipes.crystals.force_constants.cellconstructor import from_cellconstructor
from hint_recipes.crystals.force_constants.dynamical_matrices import read_dynamical_matrices
from hint_recipes.crystals.force_constants.force_constants import ForceConstants, signed_frequencies
from hint_recipes.crystals.superconductivity.alpha2f import Alpha2F, from_modes
from hint_recipes.crystals.superconductivity.alpha2f_header import FREQUENCY_UNITS

#: Acoustic modes at Gamma: below this (cm^-1) a mode carries no coupling.
ACOUSTIC_BELOW = 20.0


@dataclass(frozen=True)
class ModeCouplings:
    """Mode-resolved couplings on the irreducible q points."""

    q_points: np.ndarray  #: ``(Q, 3)`` reciprocal fractions
    weights: np.ndarray  #: ``(Q,)`` number of q points in the star
    frequencies: np.ndarray  #: ``(Q, m)`` cm^-1
    couplings: np.ndarray  #: ``(Q, m)`` lambda of each mode

    def spectrum(self, smearing: float = 0.5) -> Alpha2F:
        """alpha2F with Gaussian ``smearing`` in meV."""
        energies = self.frequencies * FREQUENCY_UNITS["cm-1"]
        return from_modes(energies, self.couplings, self.weights, smearing)


def read_mode_couplings(
    elph_dir: str | Path, dyn_prefix: str | Path, broadening: int
) -> tuple[ModeCouplings, ForceConstants]:
    """Read ``elph.inp_lambda.*`` and the dynamical matrices they were made with.

    Parameters
    ----------
    elph_dir
        Directory that ``ph.x`` wrote.
    dyn_prefix
        Prefix of the harmonic dynamical matrix files of the same run.
    broadening
        Number of the electronic broadening, from 1.

    Returns
    -------
    ModeCouplings, ForceConstants
        The couplings and the harmonic force constants, in the setting of the files.

    Raises
    ------
    InputError
        If files are missing, the broadening does not exist, or the frequencies of the two differ.
    """
    dyn = read_dynamical_matrices(dyn_prefix)
    harmonic = from_cellconstructor(dyn)
    q_points, weights, frequencies, couplings = [], [], [], []
    for number, star in enumerate(dyn.q_stars, 1):
        path = Path(elph_dir) / f"elph.inp_lambda.{number}"
        squares, values = _read_elph_file(path, broadening)
        q = np.asarray(star[0]) @ dyn.structure.unit_cell.T
        q_points.append(q)
        weights.append(len(star))
        frequencies.append(
            np.sign(squares) * np.sqrt(np.abs(squares)) * FREQUENCY_UNITS["Ry"] / FREQUENCY_UNITS["cm-1"]
        )
        couplings.append(np.where(np.abs(frequencies[-1]) < ACOUSTIC_BELOW, 0.0, values))
        own = signed_frequencies(np.linalg.eigvalsh(_matrix_at(harmonic, q)))
        worst = np.abs(own - frequencies[-1]).max()
        if worst > 1.0:
            raise InputError(
                f"{path}: its frequencies differ from those of {dyn_prefix}{number} by up to {worst:.1f} cm^-1: "
                "give the dynamical matrices of the same ph.x run, without sum rule"
            )
    return ModeCouplings(
        np.array(q_points), np.array(weights, float), np.array(frequencies), np.array(couplings)
    ), harmonic


def _read_elph_file(path: Path, broadening: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared frequencies (Ry^2) and lambda of each mode."""
    try:
        lines = path.read_text().splitlines()
        modes = int(lines[0].split()[4])
        rows = -(-modes // 6)
        squares = np.array(" ".join(lines[1 : 1 + rows]).split(), dtype=float)
        found = [
            [float(m[1]) for m in re.finditer(r"lambda\(\s*\d+\)=\s*(\S+)", block)]
            for block in "\n".join(lines[1 + rows :]).split("Gaussian Broadening:")[1:]
        ]
    except (OSError, IndexError, ValueError) as error:
        raise InputError(f"{path}: not a coupling file of ph.x: {error}") from None
    if not 1 <= broadening <= len(found):
        raise InputError(f"{path}: there is no broadening {broadening}: the file has {len(found)}")
    values = np.array(found[broadening - 1])
    if len(values) != modes or len(squares) != modes:
        raise InputError(
            f"{path}: {modes} modes announced, {len(values)} couplings and {len(squares)} frequencies found"
        )
    return squares, values


def _matrix_at(constants: ForceConstants, q: np.ndarray) -> np.ndarray:
    difference = constants.q_points - q
    distance = np.abs(difference - np.rint(difference)).max(1)
    if distance.min() > 1e-4:
        raise InputError(f"q = {np.round(q, 4)} is not on the {constants.multiples} grid of the force constants")
    return constants.dynamical_matrices()[int(distance.argmin())]


def reproject(couplings: ModeCouplings, harmonic: ForceConstants, anharmonic: ForceConstants) -> ModeCouplings:
    """Project mode-resolved couplings on other phonons of the same crystal.

    The coupling of a mode times its squared frequency, ``lambda_nu w_nu^2``, is the expectation value of the squared
    deformation potential in the displacement pattern ``M^(-1/2) e_nu``; it is averaged in degenerate subspaces, taken
    as diagonal in the harmonic modes, and evaluated in the new patterns:
    ``lambda'_mu w'_mu^2 = sum_nu |<e'_mu| M'^(-1/2) M^(1/2) |e_nu>|^2 lambda_nu w_nu^2``.

    Parameters
    ----------
    couplings, harmonic
        From :func:`read_mode_couplings`.
    anharmonic
        New force constants in the same setting, with their own masses (isotopes).

    Returns
    -------
    ModeCouplings
    """
    masses = [np.repeat(c.primitive.get_masses(), 3) for c in (harmonic, anharmonic)]
    change = np.sqrt(masses[0] / masses[1])
    frequencies, values = [], []
    for q, old_frequencies, old_values in zip(
        couplings.q_points, couplings.frequencies, couplings.couplings, strict=True
    ):
        _, old = np.linalg.eigh(_matrix_at(harmonic, q))
        strength = _average_degenerate(old_values * (old_frequencies / CM1) ** 2, old_frequencies)
        new_squares, new = np.linalg.eigh(_matrix_at(anharmonic, q))
        overlap = np.abs(new.conj().T @ (change[:, None] * old)) ** 2
        new_frequencies = signed_frequencies(new_squares)
        carried = overlap @ strength / np.where(np.abs(new_frequencies) < ACOUSTIC_BELOW, np.inf, np.abs(new_squares))
        frequencies.append(new_frequencies)
        values.append(carried)
    return ModeCouplings(couplings.q_points, couplings.weights, np.array(frequencies), np.array(values))


def _average_degenerate(values: np.ndarray, frequencies: np.ndarray, tolerance: float = 0.5) -> np.ndarray:
    groups = np.concatenate([[0], np.cumsum(np.diff(frequencies) > tolerance)])
    sums = np.bincount(groups, values)
    return (sums / np.bincount(groups))[groups]


def in_setting(constants: ForceConstants, primitive) -> ForceConstants:
    """The same force constants described with the cell vectors and atom order of ``primitive``; masses are kept.

    Raises
    ------
    InputError
        If it is not the same crystal.
    """
    from hint_recipes.crystals.force_constants.supercells import match_sites

    try:
        order = match_sites(primitive, constants.primitive, tolerance=0.1)
        cell = primitive.copy()
        cell.set_masses(constants.primitive.get_masses()[order])
        return ForceConstants.from_supercell(cell, constants.supercell, constants.hessian, tolerance=0.1)
    except ValueError as error:
        raise InputError(
            f"the anharmonic force constants belong to another crystal than the couplings: {error}"
        ) from None
