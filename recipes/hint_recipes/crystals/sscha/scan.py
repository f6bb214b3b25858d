"""SSCHA over temperatures and pressures: every point starts from its neighbour, finished points are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.progress import note
from hint_recipes.crystals.force_constants.unit_cells import tell_folded
from hint_recipes.crystals.inputs import require_crystal
from hint_recipes.crystals.sscha.ensemble import require_sscha
from hint_recipes.crystals.sscha.known_potential import KnownPotential
from hint_recipes.crystals.sscha.request import supercell_stages
from hint_recipes.crystals.sscha.run import SschaRun
from hint_recipes.crystals.sscha.scan_plot import plot_scan
from hint_recipes.crystals.sscha.scan_table import Point, add_expansion, row_of, transition
from hint_recipes.crystals.sscha.settings import SschaSettings


@dataclass(frozen=True)
class SschaScan:
    """What a scan gives.

    Attributes
    ----------
    directory
        Where everything lies: ``scan.csv``, ``scan.png``, ``summary.json``, and each point in ``points/``
        (:class:`hint_recipes.crystals.sscha.study.Sscha`).
    summary
        What ``summary.json`` holds: ``points`` (rows of the table) and ``transitions`` (for each pressure with
        free-energy Hessians).
    """

    directory: Path
    summary: dict[str, Any]

    @property
    def num_unconverged(self) -> int:
        """Points that did not converge."""
        return sum(not row["converged"] for row in self.summary["points"])

    def report(self) -> str:
        """The transitions, the points that did not converge, and where the table is, as text."""
        lines = []
        for found in self.summary["transitions"]:
            beyond = ", beyond the points of the scan" if found["extrapolated"] else ""
            lines.append(
                f"at {found['pressure_GPa']:g} GPa the soft mode vanishes at {found['temperature_K']:.0f} +- "
                f"{found['error_K']:.0f} K{beyond}"
            )
        for row in self.summary["points"]:
            place = f"{row['temperature_K']:g} K, {row['pressure_GPa']:g} GPa"
            if not row["converged"]:
                lines.append(f"NOT converged: {place}")
            error = row["soft_mode_squared_error_cm2"]
            if row["soft_mode_squared_cm2"] is not None and (error is None or not np.isfinite(error)):
                lines.append(
                    f"{place}: The error of the lowest frequency of the free-energy Hessian is not known, because a "
                    "part of its configurations carries no self-consistent matrix; the point is left out of the "
                    "transition. Take more --hessian-configurations."
                )
        count = self.summary["n_points"]
        lines.append(f"{count} points, {self.num_unconverged} not converged; table and picture are in {self.directory}")
        return "\n".join(lines)


def scan_sscha(
    cell: Atoms,
    model: Any,
    directory: str | Path,
    settings: SschaSettings | None = None,
    *,
    temperatures: Sequence[float],
    pressures: Sequence[float] = (0.0,),
    device: str | None = None,
    dtype: str | None = None,
    label: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> SschaScan:
    """SSCHA at all temperatures and pressures; tables and pictures are renewed after each point.

    The first point goes through all stages, the others start in the last one from their neighbour's matrix, positions
    and cell. The same call again computes nothing twice.

    Parameters
    ----------
    cell, model, device, dtype, label
        As in :func:`hint_recipes.crystals.sscha.study.run_sscha`.
    directory
        For the results; to start again, remove it.
    settings
        Of every point; temperature and pressure are replaced, and every point has a seed of its own.
    temperatures, pressures
        K and GPa.
    options
        What ``config.yaml`` keeps; the settings by default.

    Returns
    -------
    SschaScan
        With the table.

    Raises
    ------
    InputError
        For values given twice, pressures of a crystal whose cell is fixed, and if the directory holds another run.
    PotentialError
        If the model cannot be loaded.
    """
    require_sscha()
    settings, directory = settings or SschaSettings(), Path(directory)
    points = [Point(float(t), float(p)) for p in pressures for t in temperatures]
    if len(set(points)) != len(points):
        raise InputError("a temperature or pressure is given twice")
    if len(pressures) > 1 and not settings.relax_cell:
        raise InputError("several pressures need --relax-cell: with a fixed cell they change nothing")
    require_crystal(cell, "the cell")
    crystal, stages = supercell_stages(cell, [*settings.stage, settings.supercell])
    tell_folded(crystal)
    known = KnownPotential.load(model, label, device, dtype)
    if options is None:
        options = {**settings.model_dump(), "model": known.potential.name, "dtype": dtype}
        options |= {"temperature": list(temperatures), "pressure": list(pressures)}
    with RunDirectory(directory, "sscha", options, free=options, overwrite=None) as run:
        rows: list[dict[str, Any]] = []
        for index, point in enumerate(points):
            job = _job(crystal, stages, known, run.path, settings, point, _neighbour(points[:index], point))
            rows.append(row_of(point, _summary(job, point)))
            add_expansion(rows)
            run.write_csv("scan.csv", rows)
            found = (transition([r for r in rows if r["pressure_GPa"] == pressure]) for pressure in pressures)
            transitions = [one for one in found if one]
            plot_scan(rows, transitions, run / "scan.png")
        summary = {
            "converged": all(row["converged"] for row in rows),
            "n_points": len(rows),
            "points": rows,
            "transitions": transitions,
        }
        run.finish(summary)
    return SschaScan(directory, summary)


def _job(
    crystal: Atoms,
    stages: Sequence[tuple[int, int, int]],
    model: KnownPotential,
    out: Path,
    settings: SschaSettings,
    point: Point,
    before: Point | None,
) -> SschaRun:
    """The run of one point: the first through all stages, the others from the results of the point ``before``."""
    own: dict[str, Any] = {
        "temperature": point.temperature,
        "pressure": point.pressure,
        "seed": point.seed(settings.seed),
    }
    if before is not None:
        source = out / "points" / before.name / "sscha.npz"
        crystal, stages = _moved(crystal, source), stages[-1:]
        own |= {"start_from": source, "born": None}  # the charges are in the source
    directory = out / "points" / point.name
    directory.mkdir(parents=True, exist_ok=True)
    return SschaRun(crystal, list(stages), model, directory, settings.changed(**own))


def _summary(job: SschaRun, point: Point) -> dict[str, Any]:
    """The kept summary of a point, or that of a run now."""
    kept = job.finished()
    if kept is not None:
        return kept
    note(f"{point.temperature:g} K, {point.pressure:g} GPa")
    return job.run()


def _neighbour(done: Sequence[Point], point: Point) -> Point | None:
    """The point before at the same pressure, else the one at the same temperature and the pressure before."""
    same = [p for p in done if p.pressure == point.pressure] or [p for p in done if p.temperature == point.temperature]
    return same[-1] if same else None


def _moved(crystal: Atoms, source: Path) -> Atoms:
    """The crystal with the cell and the centroids that a finished run left in ``sscha.npz``."""
    with np.load(source) as content:
        moved = crystal.copy()
        moved.set_cell(content["cell"])
        moved.set_positions(content["positions"])
    return moved
