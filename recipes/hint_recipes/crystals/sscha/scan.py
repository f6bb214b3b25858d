"""SSCHA over temperatures and pressures: every point starts from its neighbour, finished points are kept."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.runs.directory import write_config, write_summary
from hint_plugins.runs.figures import legend_below, new_figure, save_figure
from hint_plugins.runs.files import write_csv
from hint_recipes.crystals.sscha.ensemble import EnsembleEngine
from hint_recipes.crystals.sscha.request import finished_run, identity
from hint_recipes.crystals.sscha.state import GPA, SschaSettings
from hint_recipes.crystals.sscha.study import run_sscha

if TYPE_CHECKING:
    from hint_plugins.potential import Potential

#: Points nearest to the change of sign that the straight line of the soft mode goes through.
FITTED = 4
#: Columns of the soft mode and its error.
_SOFT = ("soft_mode_squared_cm2", "soft_mode_squared_error_cm2")


@dataclass(frozen=True)
class Point:
    """One temperature (K) and pressure (GPa)."""

    temperature: float
    pressure: float

    @property
    def name(self) -> str:
        """Name of its directory."""
        return f"T{self.temperature:g}_p{self.pressure:g}"

    def seed(self, seed: int) -> int:
        """Its own random numbers: with those of its neighbours all points would err alike, and the fit not notice."""
        return (seed + zlib.crc32(self.name.encode())) % 2**32


def run_scan(
    crystal: Atoms,
    potential: Potential,
    out: Path,
    settings: SschaSettings,
    stages: Sequence[tuple[int, int, int]],
    temperatures: Sequence[float],
    pressures: Sequence[float] = (0.0,),
    *,
    limits: Mapping[str, Any] | None = None,
    start_from: Path | None = None,
    floor: float = 20.0,
    hessian_configurations: int = 0,
    four_phonon: bool = False,
    label: str = "",
    config: Mapping[str, Any] | None = None,
    bar: bool = True,
) -> dict[str, Any]:
    """Run all points; tables and pictures are renewed after each.

    Parameters
    ----------
    crystal, potential, settings, stages, start_from, floor, hessian_configurations, four_phonon, label, bar
        As in :func:`hint_recipes.crystals.sscha.study.run_sscha`; temperature and pressure of ``settings`` are
        replaced. The first point goes through all stages, the others start in the last one from their neighbour's
        matrix, positions and cell.
    out
        Directory; one subdirectory a point in ``points``, and ``scan.csv, scan.png, summary.json``.
    temperatures, pressures
        K and GPa.
    limits
        ``on_bad, max_energy, max_force`` of :class:`hint_recipes.crystals.sscha.ensemble.EnsembleEngine`.
    config
        Options for ``config.yaml``.

    Returns
    -------
    dict
        ``points`` (rows of the table) and ``transitions`` (for each pressure with free-energy Hessians).

    Raises
    ------
    InputError
        For values given twice, and pressures of a crystal whose cell is fixed.
    """
    points = [Point(t, p) for p in pressures for t in temperatures]
    if len(set(points)) != len(points):
        raise InputError("a temperature or pressure is given twice")
    if len(pressures) > 1 and not settings.relax_cell:
        raise InputError("several pressures need --relax-cell: with a fixed cell they change nothing")
    if config is not None:
        write_config(out, "sscha", config)
    (out / "summary.json").unlink(missing_ok=True)
    rows: list[dict[str, Any]] = []
    for index, point in enumerate(points):
        directory = out / "points" / point.name
        directory.mkdir(parents=True, exist_ok=True)
        before = _neighbour(points[:index], point)
        source, start = start_from, crystal
        if before is not None:
            source = out / "points" / before.name / "sscha.npz"
            start = _moved(crystal, source)
        own = replace(settings, temperature=point.temperature, pressure=point.pressure, seed=point.seed(settings.seed))
        own_stages = list(stages) if before is None else [stages[-1]]
        engine = EnsembleEngine(potential, directory=directory, **(limits or {}))
        mark = identity(start, engine, own, own_stages, start_from=source, floor=floor, label=label)
        summary = finished_run(directory, mark, own)
        made = (summary or {}).get("free_energy_hessian", {}).get("configurations", 0)
        if summary is None or made != hessian_configurations:
            print(f"{point.temperature:g} K, {point.pressure:g} GPa")
            summary = run_sscha(
                start,
                potential,
                directory,
                own,
                own_stages,
                engine=engine,
                start_from=source,
                floor=floor,
                hessian_configurations=hessian_configurations,
                four_phonon=four_phonon,
                label=label,
                bar=bar,
            )
        rows.append(_row(point, summary))
        _add_expansion(rows)
        write_csv(out / "scan.csv", rows)
        transitions = [found for p in pressures if (found := transition([r for r in rows if r["pressure_GPa"] == p]))]
        _plot(rows, transitions, out / "scan.png")
    result = {
        "converged": all(row["converged"] for row in rows),
        "n_points": len(rows),
        "points": rows,
        "transitions": transitions,
    }
    write_summary(out, result)
    return result


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


def _row(point: Point, summary: Mapping[str, Any]) -> dict[str, Any]:
    volume = float(abs(np.linalg.det(np.array(summary["cell"]))))
    modes = [
        pair
        for index, q in enumerate(summary["frequencies_cm1"])
        for pair in list(zip(q["cm1"], q["error_cm1"], strict=True))[0 if index else 3 :]
    ]
    lowest = min(modes)
    soft = summary.get("free_energy_hessian", {})
    return {
        "temperature_K": point.temperature,
        "pressure_GPa": point.pressure,
        "converged": summary["converged"],
        "free_energy_eV": summary["free_energy"],
        "free_energy_error_eV": summary["free_energy_error"],
        "gibbs_eV": summary["free_energy"] + point.pressure * GPA * volume,
        "volume_A3": volume,
        "thermal_expansion_per_K": None,
        "lowest_auxiliary_cm1": lowest[0],
        "lowest_auxiliary_error_cm1": lowest[1],
        "soft_mode_squared_cm2": soft.get("lowest_squared_cm2"),
        "soft_mode_squared_error_cm2": soft.get("lowest_squared_error_cm2"),
        "measured_pressure_GPa": summary.get("pressure_GPa"),
        "measured_pressure_error_GPa": summary.get("pressure_error_GPa"),
    }


def _add_expansion(rows: list[dict[str, Any]]) -> None:
    """Volume expansion ``d ln V / d T`` from differences between neighbouring temperatures, where there are three."""
    for pressure in {row["pressure_GPa"] for row in rows}:
        own = sorted((r for r in rows if r["pressure_GPa"] == pressure), key=lambda r: r["temperature_K"])
        if len(own) > 2:
            slopes = np.gradient(np.log([r["volume_A3"] for r in own]), [r["temperature_K"] for r in own])
            for row, slope in zip(own, slopes, strict=True):
                row["thermal_expansion_per_K"] = float(slope)


def transition(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Temperature at which the soft mode of the free-energy Hessian vanishes, from rows of one pressure.

    The squared frequency is taken as a straight line in temperature through the points nearest to zero, weighted with
    their errors.

    Returns
    -------
    dict or None
        ``pressure_GPa, temperature_K, error_K, slope_cm2_per_K, extrapolated``; None with fewer than two points or
        where the mode does not depend on temperature.
    """
    known = [r for r in rows if all(r[k] is not None and np.isfinite(r[k]) for k in _SOFT)]
    if len(known) < 2:
        return None
    near = sorted(known, key=lambda r: abs(r["soft_mode_squared_cm2"]))[:FITTED]
    x = np.array([r["temperature_K"] for r in near])
    y = np.array([r["soft_mode_squared_cm2"] for r in near])
    weights = 1 / np.maximum([r["soft_mode_squared_error_cm2"] for r in near], 1e-6)
    design = np.stack([np.ones_like(x), x], 1) * weights[:, None]
    covariance = np.linalg.pinv(design.T @ design)
    constant, slope = covariance @ design.T @ (y * weights)
    if abs(slope) < 1e-12 * max(1.0, abs(constant)):
        return None
    zero = -constant / slope
    gradient = np.array([-1 / slope, constant / slope**2])
    return {
        "pressure_GPa": near[0]["pressure_GPa"],
        "temperature_K": float(zero),
        "error_K": float(np.sqrt(gradient @ covariance @ gradient)),
        "slope_cm2_per_K": float(slope),
        "extrapolated": not min(r["temperature_K"] for r in known) <= zero <= max(r["temperature_K"] for r in known),
    }


def print_scan(result: Mapping[str, Any], out: Path) -> None:
    """The transitions and where the table is."""
    for found in result["transitions"]:
        beyond = ", beyond the points of the scan" if found["extrapolated"] else ""
        print(
            f"at {found['pressure_GPa']:g} GPa the soft mode vanishes at {found['temperature_K']:.0f} +- "
            f"{found['error_K']:.0f} K{beyond}"
        )
    missing = [row for row in result["points"] if not row["converged"]]
    for row in missing:
        print(f"NOT converged: {row['temperature_K']:g} K, {row['pressure_GPa']:g} GPa")
    print(f"{result['n_points']} points, {len(missing)} not converged; table and picture are in {out}")


def _plot(rows: Sequence[Mapping[str, Any]], transitions: Sequence[Mapping[str, Any]], path: Path) -> None:
    soft = any(row["soft_mode_squared_cm2"] is not None for row in rows)
    key, error, text = (
        ("soft_mode_squared_cm2", "soft_mode_squared_error_cm2", "soft mode squared (cm$^{-2}$)")
        if soft
        else ("lowest_auxiliary_cm1", "lowest_auxiliary_error_cm1", "lowest auxiliary mode (cm$^{-1}$)")
    )
    moves = np.ptp([row["volume_A3"] for row in rows]) > 0
    figure, axes = new_figure(6.4, 2.4 * (2 + moves), nrows=2 + moves, sharex=True)
    pressures = list(dict.fromkeys(row["pressure_GPa"] for row in rows))
    for number, pressure in enumerate(pressures):
        own = sorted((r for r in rows if r["pressure_GPa"] == pressure), key=lambda r: r["temperature_K"])
        x = [r["temperature_K"] for r in own]
        style = {"color": f"C{number}", "fmt": "o-", "ms": 3, "lw": 1, "label": f"{pressure:g} GPa"}
        values = [np.nan if r[key] is None else r[key] for r in own]
        axes[0].errorbar(x, values, [r[error] or 0 for r in own], **style)
        zero = own[0]["free_energy_eV"]
        energies = [1000 * (r["free_energy_eV"] - zero) for r in own]
        axes[1].errorbar(x, energies, [1000 * r["free_energy_error_eV"] for r in own], **style)
        if moves:
            axes[2].plot(x, [r["volume_A3"] for r in own], "o-", ms=3, lw=1, color=f"C{number}")
    low, high = (limit(row["temperature_K"] for row in rows) for limit in (min, max))
    for found in transitions:
        at, spread = found["temperature_K"], found["error_K"]
        if not found["extrapolated"]:
            colour = f"C{pressures.index(found['pressure_GPa'])}"
            label = f"{found['pressure_GPa']:g} GPa: soft mode vanishes at {at:.0f} ± {spread:.0f} K"
            axes[0].axvline(at, color=colour, lw=0.8, ls="--", label=label)
            axes[0].axvspan(max(at - spread, low), min(at + spread, high), color=colour, alpha=0.15, lw=0)
    axes[0].axhline(0, color="0.8", lw=0.8)
    axes[0].set_ylabel(text)
    axes[1].set_ylabel("free energy above the first\npoint (meV per unit cell)")
    if moves:
        axes[2].set_ylabel("volume (Å$^3$ per unit cell)")
    axes[-1].set_xlabel("temperature (K)")
    legend_below(figure)
    save_figure(figure, path)
