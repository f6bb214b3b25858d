"""Gibbs energies of sets of molecules, reactions between them, and errors against a reference level."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units
from ase.formula import Formula

from hint_plugins.labelling.engine import EngineError
from hint_plugins.runs.items import write_frames
from hint_plugins.structures.charges import charge_and_multiplicity
from hint_plugins.structures.copies import bare
from hint_recipes.molecules.thermochemistry import GibbsSettings, check_molecule, free_energy

if TYPE_CHECKING:
    from hint_plugins.potential import Potential

#: 1 kcal/mol, "chemical accuracy", in eV.
CHEMICAL_ACCURACY = units.kcal / units.mol
#: Roles of stationary points; all but ``ts`` are minima, as is a structure without a role.
ROLES = ("", "reactant", "product", "ts", "molecule", "minimum")


def gibbs_energies(
    potential: Potential,
    structures: Sequence[Atoms],
    settings: GibbsSettings | None = None,
    *,
    relax: bool = False,
    fmax: float = 0.001,
    known: Callable[[int], dict[str, Any] | None] = lambda index: None,
    done: Callable[[int, dict[str, Any]], None] = lambda index, row: None,
) -> list[dict[str, Any]]:
    """Gibbs energies of many structures with one potential.

    Parameters
    ----------
    potential
        Energies, forces and Hessians.
    structures
        Molecules; ``info`` as in :func:`~hint_recipes.molecules.thermochemistry.free_energy`, and ``name``,
        ``reaction``, ``role``.
    settings
        Conditions.
    relax
        Move each structure to the potential's own stationary point first: a minimum, or a first-order saddle for
        ``role`` "ts". Otherwise the geometries are taken as they are, as for a comparison at a reference's geometries.
    fmax
        Force at which the relaxation stops, eV/A.
    known
        Gives the row of a structure that was done earlier, or None.
    done
        Told of every new row.

    Returns
    -------
    list of dict
        The entries of :func:`label` and of :func:`~hint_recipes.molecules.thermochemistry.free_energy`, ``fmax``
        (largest force, eV/A) and ``positions`` (A); or the former and ``error``.
    """
    rows = []
    for index, atoms in enumerate(structures):
        row = known(index) if role(atoms) in ROLES else None
        if row is None:
            row = label(atoms, index)
            try:
                row |= _one(potential, atoms, settings, fmax if relax else None)
            except Exception as error:  # a potential's own failures differ; the rest of the set goes on
                row["error"] = f"{type(error).__name__}: {error}"
            done(index, row)
        rows.append(row)
    return rows


def _one(potential: Potential, atoms: Atoms, settings: GibbsSettings | None, fmax: float | None) -> dict[str, Any]:
    from hint_recipes.molecules.transition_states.stationary import find_saddle, minimise

    check_molecule(atoms)
    if (found := role(atoms)) not in ROLES:
        raise ValueError(
            f"role {found!r} is no stationary point that is known here: it must be one of "
            f"{', '.join(name for name in ROLES if name)}, or be left out for a minimum"
        )
    if fmax is not None and len(atoms) > 1:
        if found == "ts":
            atoms, converged, _ = find_saddle(atoms, potential, fmax=fmax)
        else:
            atoms, converged = minimise(atoms, potential, fmax=fmax, steps=2000)
        if not converged:
            raise RuntimeError(f"the relaxation did not reach {fmax} eV/A")
    predictions = potential.evaluate([atoms])
    largest = float(np.linalg.norm(np.asarray(predictions.forces[0]), axis=1).max())
    row = {"fmax": largest, "positions": atoms.positions.tolist()}
    row |= free_energy(atoms, float(predictions.energies[0]), potential.hessian(atoms), settings)
    imaginary = sum(wave < -10.0 for wave in row["frequencies_cm1"])
    if fmax is not None and found == "ts" and imaginary != 1:
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


def reaction_free_energies(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reaction and activation free energies (eV) of the reactions among ``rows`` (several molecules a side add up).

    A reaction whose sides differ in their atoms or charge gets the entry ``error`` instead.
    """
    reactions: dict[str, dict[str, float]] = {}
    contents: dict[str, dict[str, Counter[str]]] = {}
    broken = {row.get("reaction") for row in rows if "error" in row}
    for row in rows:
        name, part = row.get("reaction"), row.get("role")
        if name is not None and part in ("reactant", "product", "ts") and name not in broken:
            sides = reactions.setdefault(str(name), {})
            sides[part] = sides.get(part, 0.0) + row["gibbs"]
            content = contents.setdefault(str(name), {}).setdefault(part, Counter())
            content.update(Formula(row["formula"]).count() if "formula" in row else {})
            content["charge"] += row.get("charge") or 0
    table = []
    for name, sides in reactions.items():
        if "reactant" not in sides or len(sides) == 1:
            continue
        row = {"reaction": name}
        uneven = [part for part, content in contents[name].items() if content != contents[name]["reactant"]]
        if uneven:
            row["error"] = f"the {uneven[0]} structures do not add up to the atoms and the charge of the reactants"
            table.append(row)
            continue
        if "product" in sides:
            row["reaction_gibbs"] = sides["product"] - sides["reactant"]
        if "ts" in sides:
            row["activation_gibbs"] = sides["ts"] - sides["reactant"]
        table.append(row)
    return table


def errors_against(
    rows: Sequence[dict[str, Any]], reference: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Deviations from a reference level, by structure and as mean absolute errors.

    Parameters
    ----------
    rows, reference
        From :func:`gibbs_energies` for the same structures in the same order.

    Returns
    -------
    list of dict, dict
        Per structure ``name``, ``role`` and the differences of ``energy``, ``gibbs`` and ``gibbs_correction`` (eV);
        and the MAEs: ``gibbs_mae``, ``gibbs_correction_mae``, ``energy_mae``, each also ``_minima`` and ``_ts``,
        ``reaction_gibbs_mae``, ``activation_gibbs_mae`` (eV) and each with the suffix ``_kcal_mol``.
    """
    differences = [
        {"name": row["name"], "role": row.get("role")}
        | {f"{key}_error": row[key] - ref[key] for key in ("energy", "gibbs", "gibbs_correction")}
        for row, ref in zip(rows, reference, strict=True)
        if "error" not in row and "error" not in ref
    ]
    groups = {
        "": differences,
        "_minima": [d for d in differences if d["role"] != "ts"],
        "_ts": [d for d in differences if d["role"] == "ts"],
    }
    maes = {
        f"{key}_mae{suffix}": float(np.mean([abs(d[f"{key}_error"]) for d in group]))
        for key in ("gibbs", "gibbs_correction", "energy")
        for suffix, group in groups.items()
        if group
    }
    theirs = {row["reaction"]: row for row in reaction_free_energies(reference)}  # an uneven one has no energies
    ours = {row["reaction"]: row for row in reaction_free_energies(rows)}
    for key in ("reaction_gibbs", "activation_gibbs"):
        gaps = [abs(ours[n][key] - theirs[n][key]) for n in ours if n in theirs and key in ours[n] and key in theirs[n]]
        if gaps:
            maes[f"{key}_mae"] = float(np.mean(gaps))
    return differences, maes | {f"{key}_kcal_mol": value / CHEMICAL_ACCURACY for key, value in maes.items()}


def plot_gibbs_errors(differences: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Mean absolute errors of G and of G - E for minima and transition states, with chemical accuracy as a line.

    Two panels, since the total energies of two levels may differ by much more than their corrections.

    Parameters
    ----------
    differences
        Model name -> first result of :func:`errors_against`.
    path
        PNG file.
    """
    from hint_plugins.runs.figures import legend_below, new_figure, save_figure

    figure, panels = new_figure(6.4, 3.4, ncols=2)
    width = 0.8 / len(differences)
    for axis, (quantity, key) in zip(panels, (("G", "gibbs_error"), ("G − E", "gibbs_correction_error")), strict=True):
        for k, (name, rows) in enumerate(differences.items()):
            for place, saddles in enumerate((False, True)):
                errors = [abs(row[key]) for row in rows if (row["role"] == "ts") == saddles]
                if errors:
                    x = place + (k - (len(differences) - 1) / 2) * width
                    bar = axis.bar([x], [np.mean(errors)], width, color=f"C{k}", label=name)
                    axis.bar_label(bar, fmt="%.3f", fontsize=7, padding=3)
                    axis.plot(np.full(len(errors), x), errors, ".", color="0.3", markersize=3)
        axis.axhline(CHEMICAL_ACCURACY, color="0.4", linestyle="--", linewidth=1, label="1 kcal/mol")
        axis.margins(y=0.1)
        axis.set_xticks((0, 1), ("minima", "saddles"))
        axis.set(xlabel="stationary points", ylabel=f"mean absolute error of {quantity} (eV)", xlim=(-0.6, 1.6))
    legend_below(figure)
    save_figure(figure, path)


def write_stationary_points(structures: Sequence[Atoms], rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The structures at which the Gibbs energies hold, with these in ``info`` (eV), as extended XYZ.

    Charge, spin, masses, reaction, role and a given symmetry number stay (:func:`hint_plugins.structures.copies.bare`).
    """
    frames = []
    for atoms, row in zip(structures, rows, strict=True):
        if "error" not in row:
            frame = bare(atoms, row["positions"])
            frame.info |= {key: row[key] for key in ("name", "energy", "gibbs", "gibbs_correction", "n_imaginary")}
            frame.info["frequencies_cm1"] = np.array(row["frequencies_cm1"])
            frames.append(frame)
    write_frames(path, frames)
