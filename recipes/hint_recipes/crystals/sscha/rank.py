"""Free energies of candidate structures at one temperature and pressure, sorted."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hint_plugins.errors import InputError
from hint_plugins.runs.directory import write_config, write_summary
from hint_plugins.runs.figures import new_figure, save_figure, wrapped
from hint_plugins.runs.files import write_csv
from hint_recipes.crystals.force_constants.supercells import multiples_of_length
from hint_recipes.crystals.inputs import read_crystal
from hint_recipes.crystals.sscha.ensemble import EnsembleEngine
from hint_recipes.crystals.sscha.request import (
    check_request,
    correction_mark,
    discard_run,
    earlier_run,
    finished_run,
    identity,
    supercell_stages,
)
from hint_recipes.crystals.sscha.state import GPA, SschaSettings
from hint_recipes.crystals.sscha.study import run_sscha

if TYPE_CHECKING:
    from ase import Atoms

    from hint_plugins.potential import Potential


def rank(
    cells: Sequence[Path],
    potential: Potential,
    out: Path,
    settings: SschaSettings,
    stages: Sequence[Sequence[int]],
    *,
    supercell_length: float | None = None,
    reference: Potential | None = None,
    reference_configurations: int = 20,
    label: str = "",
    reference_label: str = "",
    masses: Sequence[str] = (),
    primitive: bool = False,
    overwrite: bool = False,
    config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """SSCHA Gibbs free energy ``F + p V`` of every candidate; unfinished candidates are continued, finished ones kept.

    A candidate that did not converge is continued when more populations are allowed. With a reference the free energy
    gets the first-order correction (:mod:`hint_recipes.crystals.sscha.perturbation`); the exponential one is only
    shown beside it.

    Parameters
    ----------
    cells
        Structure files of one composition.
    potential, settings, stages
        As in :func:`hint_recipes.crystals.sscha.study.run_sscha`; the last stage may be a matrix of nine numbers.
    supercell_length
        The last supercell of every candidate reaches at least this far in every direction, A; replaces the last of
        ``stages``.
    out
        One subdirectory a candidate, and ``summary.json, ranking.csv, ranking.png``.
    reference, reference_configurations
        Potential and configurations for the free-energy correction of each candidate.
    label, reference_label
        Specifications of model and reference; where they name files, a changed file is another model.
    masses
        Isotopes, ``SYMBOL=MASS`` in u.
    primitive
        Reduce every cell to its primitive cell.
    overwrite
        Discard earlier runs of these candidates.
    config
        Options for ``config.yaml``, written once it is clear that the ranking may go on.

    Returns
    -------
    dict
        ``ranking`` (best first; eV an atom), ``failed`` (names and reasons).

    Raises
    ------
    InputError
        If candidates have the same name or different compositions, if options cannot work, and if a candidate's
        directory holds a run with other options, another crystal or another model.
    """
    names = [_name(cell) for cell in cells]
    if len(set(names)) != len(names):
        raise InputError("candidates need different file names: " + ", ".join(sorted(names)))
    crystals = [read_crystal(cell, masses, primitive=primitive) for cell in cells]
    formulas = {c.symbols.formula.reduce()[0].format("hill") for c in crystals}
    if len(formulas) != 1:
        raise InputError(f"only structures of one composition can be ranked, not {', '.join(sorted(formulas))}")
    own_last = [multiples_of_length(c, supercell_length) if supercell_length else stages[-1] for c in crystals]
    described = [supercell_stages(c, [*stages[:-1], last]) for c, last in zip(crystals, own_last, strict=True)]
    crystals, wanted_stages = [crystal for crystal, _ in described], [own for _, own in described]
    for own in wanted_stages:
        check_request(settings, own, reference_configurations=None if reference is None else reference_configurations)
    _warn_of_sizes(names, crystals, wanted_stages)
    engines = [EnsembleEngine(potential, directory=out / name) for name in names]
    marks = [
        identity(crystal, engine, settings, own, label=label)
        for crystal, engine, own in zip(crystals, engines, wanted_stages, strict=True)
    ]
    for name, mark in zip(names, marks, strict=True):
        if overwrite:
            discard_run(out / name)
        else:
            earlier_run(out / name, mark)
    if config is not None:
        write_config(out, "rank", config)
    (out / "summary.json").unlink(missing_ok=True)
    wanted = None if reference is None else correction_mark(reference_label, reference_configurations)
    rows, failed = [], []
    for name, crystal, engine, own, mark in zip(names, crystals, engines, wanted_stages, marks, strict=True):
        directory = out / name
        directory.mkdir(exist_ok=True)
        try:
            summary = finished_run(directory, mark, settings)
            if summary is None or (wanted is not None and not wanted.items() <= summary.get("correction", {}).items()):
                summary = run_sscha(
                    crystal,
                    potential,
                    directory,
                    settings,
                    own,
                    engine=engine,
                    reference=reference,
                    reference_configurations=reference_configurations,
                    label=label,
                    reference_label=reference_label,
                )
        except (InputError, ValueError, RuntimeError, ArithmeticError) as error:
            failed.append({"name": name, "reason": str(error).strip().split("\n")[0]})
            print(f"hint: {name}: {failed[-1]['reason']}", file=sys.stderr)
            continue
        rows.append(_row(name, summary, len(crystal), settings.pressure, corrected=reference is not None))
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


def _warn_of_sizes(names: Sequence[str], crystals: Sequence[Atoms], stages: Sequence[Sequence[Any]]) -> None:
    """Free energies converge with the supercell; those of different sizes are compared only after a warning."""
    sizes = [len(crystal) * math.prod(own[-1]) for crystal, own in zip(crystals, stages, strict=True)]
    if max(sizes) > 1.3 * min(sizes):
        listed = ", ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=True))
        print(
            f"hint: the supercells hold different numbers of atoms ({listed}); the harmonic part of the difference is "
            "corrected on a dense mesh, the rest is not: --supercell-length gives all candidates the same range",
            file=sys.stderr,
        )


def _name(cell: Path) -> str:
    return Path(cell).name.split(".")[0]


def holds_ranking(out: Path) -> bool:
    """Whether ``out`` is the directory of an earlier ranking, which may be continued."""
    import yaml

    config = Path(out) / "config.yaml"
    return config.is_file() and (yaml.safe_load(config.read_text()) or {}).get("command") == "rank"


def _row(name: str, summary: dict[str, Any], atoms: int, pressure: float, *, corrected: bool) -> dict[str, Any]:
    import numpy as np

    volume = abs(np.linalg.det(np.array(summary["cell"])))
    energy, error = summary["free_energy"], summary["free_energy_error"]
    row: dict[str, Any] = {"name": name, "converged": summary["converged"], "volume_A3_per_atom": volume / atoms}
    if corrected:
        correction = summary["correction"]
        energy += correction["first_order"]
        error = float(np.hypot(error, correction["first_order_error"]))
        exponential = correction["exponential"]
        row["correction_eV_per_atom"] = correction["first_order"] / atoms
        row["exponential_correction_eV_per_atom"] = None if exponential is None else exponential / atoms
        row["effective_sample"] = correction["effective_sample"]
        row["correction_configurations"] = correction["configurations"]
    return {
        **row,
        "atoms_in_supercell": atoms * math.prod(summary["supercell"]),
        "static_eV_per_atom": summary["static_energy"] / atoms,
        "free_energy_supercell_eV_per_atom": summary["free_energy_supercell"] / atoms,
        "dense_mesh_eV_per_atom": (summary["free_energy"] - summary["free_energy_supercell"]) / atoms,
        "gibbs_eV_per_atom": (energy + pressure * GPA * volume) / atoms,
        "error_eV_per_atom": error / atoms,
        "lowest_cm1": min(min(q["cm1"]) for q in summary["frequencies_cm1"][1:])
        if summary["frequencies_cm1"][1:]
        else None,
    }


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    figure, axes = new_figure(6.4, 1.4 + 0.5 * len(rows))
    values = [row["above_best_meV_per_atom"] for row in rows]
    errors = [1000 * row["error_eV_per_atom"] for row in rows]
    axes.barh(range(len(rows)), values, xerr=errors, color="C0")
    axes.set_yticks(range(len(rows)), [wrapped(row["name"], 2.0, 8) for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("free energy above the best (meV per atom)")
    save_figure(figure, path)
