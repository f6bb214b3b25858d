"""Free energies of candidate structures at one temperature and pressure, sorted."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hint_plugins.cli.common import InputError, write_csv, write_summary
from hint_recipes.crystal_input import read_crystal
from hint_recipes.ensemble import EnsembleEngine
from hint_recipes.phonon_plots import figure, save
from hint_recipes.sscha_state import GPA, SschaSettings
from hint_recipes.sscha_study import run_sscha

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


def rank(
    cells: Sequence[Path],
    potential: Potential,
    out: Path,
    settings: SschaSettings,
    stages: Sequence[tuple[int, int, int]],
    *,
    reference: Potential | None = None,
    reference_configurations: int = 20,
    label: str = "",
    **options: Any,
) -> dict[str, Any]:
    """SSCHA Gibbs free energy ``F + p V`` of every candidate; unfinished candidates are continued, finished ones kept.

    Parameters
    ----------
    cells
        Structure files of one composition.
    potential, settings, stages
        As in :func:`hint_recipes.sscha_study.run_sscha`.
    out
        One subdirectory a candidate, and ``summary.json, ranking.csv, ranking.png``.
    reference, reference_configurations
        Potential and configurations for the free-energy correction of each candidate.
    label
        Identifies the model in checkpoints.

    Returns
    -------
    dict
        ``ranking`` (best first; eV an atom), ``failed`` (names and reasons).

    Raises
    ------
    InputError
        If candidates have the same name or different compositions.
    """
    names = [_name(cell) for cell in cells]
    if len(set(names)) != len(names):
        raise InputError("candidates need different file names: " + ", ".join(sorted(names)))
    crystals = [read_crystal(cell, options.get("masses", ())) for cell in cells]
    formulas = {c.symbols.formula.reduce()[0].format("hill") for c in crystals}
    if len(formulas) != 1:
        raise InputError(f"only structures of one composition can be ranked, not {', '.join(sorted(formulas))}")
    rows, failed = [], []
    for name, crystal in zip(names, crystals, strict=True):
        directory = out / name
        directory.mkdir(exist_ok=True)
        try:
            if (directory / "summary.json").exists():
                summary = json.loads((directory / "summary.json").read_text())
            else:
                summary = run_sscha(
                    crystal,
                    potential,
                    directory,
                    settings,
                    stages,
                    engine=EnsembleEngine(potential, directory=directory),
                    reference=reference,
                    reference_configurations=reference_configurations,
                    label=f"{label} {name}",
                )
        except (InputError, ValueError, RuntimeError, ArithmeticError) as error:
            failed.append({"name": name, "reason": str(error).strip().split("\n")[0]})
            print(f"hint: {name}: {failed[-1]['reason']}", file=sys.stderr)
            continue
        rows.append(_row(name, summary, len(crystal), settings.pressure))
    rows.sort(key=lambda row: row["gibbs_eV_per_atom"])
    for row in rows:
        row["above_best_meV_per_atom"] = 1000 * (row["gibbs_eV_per_atom"] - rows[0]["gibbs_eV_per_atom"])
    result = {
        "temperature_K": settings.temperature,
        "pressure_GPa": settings.pressure,
        "ranking": rows,
        "failed": failed,
        "n_converged": sum(row["converged"] for row in rows),
    }
    if rows:
        write_csv(out / "ranking.csv", rows)
        _plot(rows, out / "ranking.png")
    write_summary(out, result)
    return result


def _name(cell: Path) -> str:
    return Path(cell).name.split(".")[0]


def _row(name: str, summary: dict[str, Any], atoms: int, pressure: float) -> dict[str, Any]:
    import numpy as np

    volume = abs(np.linalg.det(np.array(summary["cell"])))
    energy, error = summary["free_energy"], summary["free_energy_error"]
    row: dict[str, Any] = {"name": name, "converged": summary["converged"], "volume_A3_per_atom": volume / atoms}
    if "correction" in summary:
        correction = summary["correction"]
        kind = "first_order" if correction["exponential"] is None else "exponential"
        energy += correction[kind]
        error = float(np.hypot(error, correction[f"{kind}_error"]))
        row["correction_eV_per_atom"] = correction[kind] / atoms
    return {
        **row,
        "static_eV_per_atom": summary["static_energy"] / atoms,
        "gibbs_eV_per_atom": (energy + pressure * GPA * volume) / atoms,
        "error_eV_per_atom": error / atoms,
        "lowest_cm1": min(min(q["cm1"]) for q in summary["frequencies_cm1"][1:])
        if summary["frequencies_cm1"][1:]
        else None,
    }


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    fig, axes = figure(6.4, 1.2 + 0.4 * len(rows))
    values = [row["above_best_meV_per_atom"] for row in rows]
    errors = [1000 * row["error_eV_per_atom"] for row in rows]
    axes.barh([row["name"] for row in rows], values, xerr=errors, color="C0")
    axes.invert_yaxis()
    axes.set_xlabel("free energy above the best (meV per atom)")
    save(fig, path)
