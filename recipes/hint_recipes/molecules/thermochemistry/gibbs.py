"""The Gibbs energy of a molecule with a potential: its stationary point, its Hessian, its thermochemistry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hint_plugins.labelling.engine import EngineError
from hint_plugins.structures.charges import charge_and_multiplicity
from hint_plugins.structures.frozen import free_components
from hint_recipes.molecules.thermochemistry.free_energy import check_molecule, free_energy
from hint_recipes.molecules.thermochemistry.settings import GibbsSettings

if TYPE_CHECKING:
    from hint_plugins.potential import Potential

#: Roles of stationary points; all but ``ts`` are minima, as is a structure without a role.
ROLES = ("", "reactant", "product", "ts", "molecule", "minimum")


def gibbs_energies(
    potential: Potential, structures: Sequence[Atoms], settings: GibbsSettings | None = None, *, relax: bool = False
) -> list[dict[str, Any]]:
    """Gibbs energies of many structures with one potential, in this process and without files.

    Parameters
    ----------
    potential
        Energies, forces and Hessians.
    structures
        Molecules, and structures with frozen atoms; ``info`` as in
        :func:`~hint_recipes.molecules.thermochemistry.free_energy.free_energy`, and ``name``,
        ``reaction``, ``role``.
    settings
        Conditions.
    relax
        As in :func:`gibbs_energy`.

    Returns
    -------
    list of dict
        The entries of :func:`label` and of :func:`gibbs_energy`.
    """
    return [
        label(atoms, index) | gibbs_energy(atoms, potential, settings, relax) for index, atoms in enumerate(structures)
    ]


def gibbs_energy(
    atoms: Atoms, potential: Potential, settings: GibbsSettings | None = None, relax: bool = False
) -> dict[str, Any]:
    """Gibbs energy of one structure.

    Parameters
    ----------
    atoms, potential, settings
        As in :func:`gibbs_energies`.
    relax
        Move the structure to the potential's own stationary point first: a minimum, or a first-order saddle for
        ``role`` "ts". Otherwise the geometry is taken as it is, as for a comparison at a reference's geometries.

    Returns
    -------
    dict
        The entries of :func:`~hint_recipes.molecules.thermochemistry.free_energy.free_energy`, ``fmax`` (largest force
        on free atoms, eV/A) and ``positions`` (A); or ``error`` alone.
    """
    try:
        return _gibbs_energy(atoms, potential, settings or GibbsSettings(), relax)
    except Exception as error:  # a potential's own failures differ; the rest of the set goes on
        return {"error": f"{type(error).__name__}: {error}"}


def _gibbs_energy(atoms: Atoms, potential: Potential, settings: GibbsSettings, relax: bool) -> dict[str, Any]:
    from hint_recipes.molecules.transition_states.stationary import find_saddle, minimise

    check_molecule(atoms)
    if (found := role(atoms)) not in ROLES:
        raise ValueError(
            f"role {found!r} is no stationary point that is known here: it must be one of "
            f"{', '.join(name for name in ROLES if name)}, or be left out for a minimum"
        )
    if relax and len(atoms) > 1:
        if found == "ts":
            atoms, converged, _ = find_saddle(atoms, potential, fmax=settings.fmax)
        else:
            atoms, converged = minimise(atoms, potential, fmax=settings.fmax, steps=2000)
        if not converged:
            raise RuntimeError(f"the relaxation did not reach {settings.fmax} eV/A")
    predictions = potential.evaluate([atoms])
    free = free_components(atoms)
    largest = float(np.linalg.norm(np.where(free, np.asarray(predictions.forces[0]), 0.0), axis=1).max())
    row = {"fmax": largest, "positions": atoms.positions.tolist()}
    row |= free_energy(atoms, float(predictions.energies[0]), potential.hessian(atoms, free=not free.all()), settings)
    imaginary = sum(wave < -10.0 for wave in row["frequencies_cm1"])
    if relax and found == "ts" and imaginary != 1:
        raise RuntimeError(f"the saddle search ended at a point with {imaginary} imaginary modes instead of one")
    return row


def role(atoms: Atoms) -> str:
    """``info["role"]`` in small letters; empty where there is none."""
    return str(atoms.info.get("role", "")).strip().lower()


def label(atoms: Atoms, index: int) -> dict[str, Any]:
    """What a row says of its structure: ``name``, ``role``, ``reaction``, ``formula`` and total ``charge``."""
    try:
        charge = charge_and_multiplicity(atoms)[0]
    except EngineError:
        charge = None  # the row's error says it
    return {
        "name": structure_name(atoms, index),
        "role": role(atoms) or None,
        "reaction": atoms.info.get("reaction"),
        "formula": atoms.get_chemical_formula(),
        "charge": charge,
    }


def structure_name(atoms: Atoms, index: int) -> str:
    """``info["name"]``, else reaction and role, else formula and position in the file."""
    if "name" in atoms.info:
        return str(atoms.info["name"])
    parts = [str(atoms.info[key]) for key in ("reaction", "role") if key in atoms.info]
    return "-".join(parts) if parts else f"{atoms.get_chemical_formula()}-{index}"
