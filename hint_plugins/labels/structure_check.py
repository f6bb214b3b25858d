"""Is a structure fit to train on? Its geometry and all of its labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.labels.checks import check_label
from hint_plugins.labels.hessian_label import HessianLabel, LabelError
from hint_plugins.labels.keys import Keys
from hint_plugins.labels.limits import MAX_ASYMMETRY, MAX_SUM_RULE
from hint_plugins.labels.numbers import not_numbers
from hint_plugins.storage.records import voigt
from hint_plugins.structures.geometry import geometry_reasons


def check_structure(
    atoms: Atoms,
    keys: Keys = Keys(),
    *,
    max_asymmetry: float = MAX_ASYMMETRY,
    max_sum_rule: float = MAX_SUM_RULE,
) -> dict[str, Any]:
    """Check geometry and every label of one structure: the one check that commands and training hosts share.

    Parameters
    ----------
    atoms
        Structure with its labels in ``info`` and ``arrays``.
    keys
        Where the labels are.
    max_asymmetry, max_sum_rule
        Relative tolerances.

    Returns
    -------
    dict
        ``formula``, ``num_atoms``, ``energy``, ``forces`` and ``stress`` (whether the structure has them), ``kind`` of
        the Hessian label ("" without one), its figures (:class:`~hint_plugins.labels.checks.LabelReport`), ``reason``:
        what is wrong, "" if nothing is, and ``wrong``: with which of energy, forces, stress, hessian and geometry.
    """
    energy, forces = atoms.info.get(keys.energy), atoms.arrays.get(keys.forces)
    stress, virials = atoms.info.get(keys.stress), atoms.info.get(keys.virials)
    row: dict[str, Any] = {
        "formula": atoms.get_chemical_formula(),
        "num_atoms": len(atoms),
        "energy": energy is not None,
        "forces": forces is not None,
        "stress": stress is not None or virials is not None,
        "kind": "",
    }
    found: dict[str, list[str]] = {name: [] for name in ("energy", "forces", "stress", "hessian", "geometry")}
    if energy is not None and (wrong := not_numbers(energy, ())):
        found["energy"].append(f"{keys.energy} is {wrong}")
    if forces is not None and (wrong := not_numbers(forces, (len(atoms), 3))):
        found["forces"].append(f"{keys.forces} is {wrong}")
        forces = None
    for name, values in ((keys.stress, stress), (keys.virials, virials)):
        try:
            if values is not None and not np.isfinite(voigt(values)).all():
                found["stress"].append(f"{name} is not finite")
        except ValueError as error:
            found["stress"].append(f"{name}: {error}")
    found["geometry"] += geometry_reasons(atoms)
    try:
        label = HessianLabel.from_info(atoms.info, len(atoms), keys.hessian)
        if label is not None and not found["geometry"]:
            report = check_label(label, atoms, forces, max_asymmetry=max_asymmetry, max_sum_rule=max_sum_rule)
            row |= {name: getattr(report, name) for name in ("kind", "asymmetry", "sum_rule", "rotation", "largest")}
            found["hessian"] += report.reasons
    except LabelError as error:
        found["hessian"].append(str(error))
    row["reason"] = "; ".join(reason for reasons in found.values() for reason in reasons)
    row["wrong"] = [name for name, reasons in found.items() if reasons]
    return row
