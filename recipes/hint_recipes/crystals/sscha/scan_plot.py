"""The picture of a scan: soft mode, free energy and volume against temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hint_plugins.runs.figures import legend_below, new_figure, save_figure


def plot_scan(rows: Sequence[Mapping[str, Any]], transitions: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the picture of the rows of a scan (:func:`hint_recipes.crystals.sscha.scan_table.row_of`)."""
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
