"""Free energies of reactions between molecules, and errors of one level of theory against another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.formula import Formula

from hint_plugins.units import KCAL

#: 1 kcal/mol, "chemical accuracy", in eV.
CHEMICAL_ACCURACY = KCAL


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
        Rows of :func:`~hint_recipes.molecules.thermochemistry.gibbs.gibbs_energies` for the same structures in the same
        order.

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
