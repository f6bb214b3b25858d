"""Free energies of candidate structures at one temperature and pressure, sorted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.figures import new_figure, save_figure, wrapped
from hint_plugins.runs.progress import note
from hint_recipes.crystals.force_constants.supercells import multiples_of_length
from hint_recipes.crystals.inputs import require_crystal
from hint_recipes.crystals.sscha.ensemble import require_sscha
from hint_recipes.crystals.sscha.known_potential import KnownPotential
from hint_recipes.crystals.sscha.request import DISCARDED, supercell_stages
from hint_recipes.crystals.sscha.run import SschaRun
from hint_recipes.crystals.sscha.settings import RankSettings
from hint_recipes.crystals.sscha.state import GPA


@dataclass(frozen=True)
class Ranking:
    """Candidate structures by their Gibbs free energy.

    Attributes
    ----------
    directory
        Where everything lies: ``ranking.csv``, ``ranking.png``, ``summary.json``, and each candidate in a folder of its
        name (:class:`hint_recipes.crystals.sscha.study.Sscha`).
    summary
        What ``summary.json`` holds: ``ranking`` (rows, the most stable first), ``failed``, ``n_converged``.
    """

    directory: Path
    summary: dict[str, Any]

    @property
    def num_open(self) -> int:
        """Candidates that failed or did not converge."""
        return len(self.summary["failed"]) + len(self.summary["ranking"]) - self.summary["n_converged"]

    def report(self) -> str:
        """The order of the candidates, what failed, and what the errors hold, as text."""
        summary = self.summary
        lines = [
            f"{row['name']}: {row['above_best_meV_per_atom']:.2f} +- {1000 * row['error_eV_per_atom']:.2f} meV per "
            f"atom above the best, {row['atoms_in_supercell']} atoms in the supercell"
            + ("" if row["converged"] else ", NOT converged")
            for row in summary["ranking"]
        ]
        lines += [f"{row['name']}: failed: {row['reason']}" for row in summary["failed"]]
        if summary["ranking"]:
            lines.append(
                "The errors are statistical, and each is that of one candidate. They do not contain the error of the "
                "finite supercell: its harmonic part is corrected on a dense mesh, its anharmonic part is not. Repeat "
                "the ranking with larger supercells (--supercell, --supercell-length) to see it."
            )
        lines.append(
            f"{len(summary['ranking'])} candidates at {summary['temperature_K']:g} K and "
            f"{summary['pressure_GPa']:g} GPa, {summary['n_converged']} converged; "
            f"table and picture are in {self.directory}"
        )
        return "\n".join(lines)


def rank_structures(
    structures: Mapping[str, Atoms],
    model: Any,
    directory: str | Path,
    settings: RankSettings | None = None,
    *,
    reference: Any = None,
    device: str | None = None,
    dtype: str | None = None,
    label: str | None = None,
    reference_label: str | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Ranking:
    """SSCHA Gibbs free energy ``F + p V`` of every candidate; unfinished candidates are continued, finished ones kept.

    A candidate that did not converge is continued when more populations are allowed. With a reference the free energy
    gets the first-order correction (:mod:`hint_recipes.crystals.sscha.perturbation`); the exponential one is only
    shown beside it.

    Parameters
    ----------
    structures
        Unit cells of one composition by name.
    model, device, dtype, reference, label, reference_label
        As in :func:`hint_recipes.crystals.sscha.study.run_sscha`.
    directory
        For the results.
    settings
        Of every candidate.
    options
        What ``config.yaml`` keeps; the settings by default.
    overwrite
        Discard an earlier ranking of these names in the directory.

    Returns
    -------
    Ranking
        The most stable candidate first.

    Raises
    ------
    InputError
        For structures of different composition, and if the directory holds a run of another crystal or another model.
    PotentialError
        If a model cannot be loaded.
    """
    require_sscha()
    settings, directory = settings or RankSettings(), Path(directory)
    for name, crystal in structures.items():
        require_crystal(crystal, name)
    formulas = {c.symbols.formula.reduce()[0].format("hill") for c in structures.values()}
    if len(formulas) != 1:
        raise InputError(f"only structures of one composition can be ranked, not {', '.join(sorted(formulas))}")
    known = KnownPotential.load(model, label, device, dtype)
    other = None if reference is None else KnownPotential.load(reference, reference_label, device, dtype)
    jobs = {name: _job(crystal, known, directory / name, settings, other) for name, crystal in structures.items()}
    _warn_of_sizes(list(jobs), [job.crystal for job in jobs.values()], [job.stages for job in jobs.values()])
    if not overwrite:
        for job in jobs.values():
            job.earlier()  # another run is refused before anything in the directory changes
    if options is None:
        options = {**settings.model_dump(), "model": known.potential.name, "dtype": dtype}
    discarded = [f"{name}/{file}" for name in jobs for file in DISCARDED]
    with RunDirectory(directory, "rank", options, free=options, contents=discarded, overwrite=overwrite) as run:
        rows, failed = [], []
        for name, job in jobs.items():
            job.directory.mkdir(exist_ok=True)
            try:
                summary = job.finished() or job.run()
            except (InputError, ValueError, RuntimeError, ArithmeticError) as error:
                failed.append({"name": name, "reason": str(error).strip().split("\n")[0]})
                note(f"{name}: {failed[-1]['reason']}")
                continue
            rows.append(_row(name, summary, len(job.crystal), settings.pressure, corrected=other is not None))
        rows.sort(key=lambda row: row["gibbs_eV_per_atom"])
        for row in rows:
            row["above_best_meV_per_atom"] = 1000 * (row["gibbs_eV_per_atom"] - rows[0]["gibbs_eV_per_atom"])
        found = {
            "temperature_K": settings.temperature,
            "pressure_GPa": settings.pressure,
            "ranking": rows,
            "failed": failed,
            "n_converged": sum(row["converged"] for row in rows),
        }
        if rows:
            run.write_csv("ranking.csv", rows)
            plot_ranking(rows, run / "ranking.png")
        run.finish(found)
    return Ranking(directory, found)


def _job(
    crystal: Atoms, model: KnownPotential, directory: Path, settings: RankSettings, reference: KnownPotential | None
) -> SschaRun:
    """The run of one candidate in its own supercell."""
    length = settings.supercell_length
    last = settings.supercell if length is None else multiples_of_length(crystal, length)
    described, stages = supercell_stages(crystal, [*settings.stage, last])
    return SschaRun(described, stages, model, directory, settings.sscha(), reference)


def _warn_of_sizes(names: Sequence[str], crystals: Sequence[Atoms], stages: Sequence[Sequence[Any]]) -> None:
    """Free energies converge with the supercell; those of different sizes are compared only after a warning."""
    sizes = [len(crystal) * math.prod(own[-1]) for crystal, own in zip(crystals, stages, strict=True)]
    if max(sizes) > 1.3 * min(sizes):
        listed = ", ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=True))
        note(
            f"the supercells hold different numbers of atoms ({listed}); the harmonic part of the difference is "
            "corrected on a dense mesh, the rest is not: --supercell-length gives all candidates the same range"
        )


def _row(name: str, summary: dict[str, Any], atoms: int, pressure: float, *, corrected: bool) -> dict[str, Any]:
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


def plot_ranking(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the picture of the rows of a ranking: free energies above the best, with errors."""
    figure, axes = new_figure(6.4, 1.4 + 0.5 * len(rows))
    values = [row["above_best_meV_per_atom"] for row in rows]
    errors = [1000 * row["error_eV_per_atom"] for row in rows]
    axes.barh(range(len(rows)), values, xerr=errors, color="C0")
    axes.set_yticks(range(len(rows)), [wrapped(row["name"], 2.0, 8) for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("free energy above the best (meV per atom)")
    save_figure(figure, path)
