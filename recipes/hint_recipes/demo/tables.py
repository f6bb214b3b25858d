"""Errors of the two trainings, compared."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Errors that are compared, and how tables and plots call them.
ERRORS = {
    "hessian_mae": "Hessian MAE (eV/Å²)",
    "eigenvalue_mae": "eigenvalue MAE (eV/Å²)",
    "frequency_mae_cm1": "frequency MAE (cm⁻¹)",
    "forces_mae": "force MAE (eV/Å)",
    "energy_mae_per_atom": "energy MAE (eV/atom)",
}
#: Names of the errors in the tables that are written, with their units.
KEYS = {
    "hessian_mae": "hessian_mae_eV_per_A2",
    "eigenvalue_mae": "eigenvalue_mae_eV_per_A2",
    "frequency_mae_cm1": "frequency_mae_cm1",
    "forces_mae": "forces_mae_eV_per_A",
    "energy_mae_per_atom": "energy_mae_eV_per_atom",
}


def with_units(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose errors are called by :data:`KEYS`."""
    return [{KEYS.get(key, key): value for key, value in row.items()} for row in rows]


def compare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds, and the ratio E/F/H : E/F, by size."""
    out = []
    for size in sorted({(row["structures"], row["labelled"]) for row in rows}):
        for key in ERRORS:
            values = {
                kind: np.array(
                    [r[key] for r in rows if (r["structures"], r["labelled"]) == size and r["training"] == kind]
                )
                for kind in ("E/F", "E/F/H")
            }
            plain, ours = values["E/F"], values["E/F/H"]
            out.append(
                {
                    "structures": size[0],
                    "labelled": size[1],
                    "error": key,
                    "quantity": ERRORS[key],
                    "ef": plain.mean(),
                    "ef_std": plain.std(),
                    "efh": ours.mean(),
                    "efh_std": ours.std(),
                    "ratio": ours.mean() / plain.mean(),
                }
            )
    return out


def sentences(table: list[dict[str, Any]]) -> list[str]:
    """What the rows of :func:`compare` say, in words: what gets better and what gets worse with Hessians."""
    lines = []
    for size in dict.fromkeys((row["structures"], row["labelled"]) for row in table):
        mine = [row for row in table if (row["structures"], row["labelled"]) == size]
        lines.append(f"With Hessians in training ({size[0]} structures per reaction, {size[1]} with a Hessian),")
        for row in mine:
            name, _, unit = ERRORS[row["error"]].removesuffix(")").partition(" (")
            change = "falls" if row["ratio"] < 1 else "rises"
            values = f"from {row['ef']:.3g} to {row['efh']:.3g} {unit}"
            lines.append(f"  the {name} {change} {values}, {row['ratio']:.2f} times as much")
    return lines
