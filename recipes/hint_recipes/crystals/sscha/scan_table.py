"""The table of a scan: one row per point, thermal expansion, and the temperature at which the soft mode vanishes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hint_recipes.crystals.sscha.state import GPA

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


def row_of(point: Point, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a point, from the summary of its run; energies in eV per unit cell."""
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


def add_expansion(rows: list[dict[str, Any]]) -> None:
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
