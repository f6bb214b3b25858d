"""Errors of a model, and of the harmonic approximation, on labelled structures that no training saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from ase.units import GPa

from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.supercells import match_sites

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


def held_out(potential: Potential, structures: Sequence[Atoms], zero: float) -> dict[str, float]:
    """Errors on labelled structures.

    Parameters
    ----------
    potential
        The model.
    structures
        With reference energies and forces.
    zero
        Energy per atom of the undisplaced crystal by the reference minus that by the model, eV: removed from energies.
    """
    found = potential.evaluate([Atoms(a.symbols, positions=a.positions, cell=a.cell, pbc=a.pbc) for a in structures])
    sizes = np.array([len(a) for a in structures])
    reference = np.array([a.calc.results["energy"] for a in structures])
    energy = (np.asarray(found.energies) - reference) / sizes + zero
    force = np.concatenate(
        [(f - a.calc.results["forces"]).ravel() for f, a in zip(found.forces, structures, strict=True)]
    )
    scale = np.concatenate([a.calc.results["forces"].ravel() for a in structures])
    return {
        **_stress_errors(potential, structures),
        "n_structures": len(structures),
        "energy_mae_per_atom": float(np.abs(energy).mean()),
        "forces_mae": float(np.abs(force).mean()),
        "forces_rmse": float(np.sqrt((force**2).mean())),
        "forces_rms_reference": float(np.sqrt((scale**2).mean())),
    }


def stress_of(potential: Potential, atoms: Atoms) -> np.ndarray | None:
    """(3, 3) stress of the model in eV/A^3, ASE's sign; None where it gives none."""
    found = potential.evaluate([atoms], stress=True).stresses
    if found is None or not np.isfinite(np.asarray(found[0], dtype=float)).all():
        return None
    return voigt_6_to_full_3x3_stress(np.asarray(found[0]))


def _stress_errors(potential: Potential, structures: Sequence[Atoms]) -> dict[str, float]:
    """Mean absolute error of the stress components where the structures carry stresses, GPa."""
    errors = []
    for atoms in structures:
        if "stress" not in atoms.calc.results:
            continue
        bare = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        found = stress_of(potential, bare)
        if found is not None:
            errors.append(np.abs(found - atoms.get_stress(voigt=False)).mean())
    return {"stress_mae_GPa": float(np.mean(errors)) / GPa} if errors else {}


def harmonic_errors(constants: ForceConstants, structures: Sequence[Atoms]) -> dict[str, float]:
    """The same errors for the harmonic approximation of the reference: what a model must beat."""
    reference = constants.acoustic_sum_rule()
    force, energy, scale = [], [], []
    for atoms in structures:
        order = match_sites(reference.supercell, atoms, tolerance=1.5)
        moved = np.linalg.solve(atoms.cell.array.T, (atoms.positions[order] - reference.supercell.positions).T).T
        shift = ((moved - np.rint(moved)) @ atoms.cell.array).ravel()
        predicted = -(reference.hessian @ shift)
        known = atoms.calc.results["forces"][order].ravel()
        force.append(predicted - known)
        scale.append(known)
        energy.append(shift @ reference.hessian @ shift / 2)
    errors, scales = np.concatenate(force), np.concatenate(scale)
    return {
        "forces_mae": float(np.abs(errors).mean()),
        "forces_rmse": float(np.sqrt((errors**2).mean())),
        "forces_rms_reference": float(np.sqrt((scales**2).mean())),
        "harmonic_energies": [float(e) for e in energy],  # type: ignore[dict-item]
    }
