"""Parity plots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hint_plugins.runs.figures import new_figure, save_figure, three_digits, wrapped

#: Axis label and unit of the error by quantity, and where ``summary.json`` has the mean absolute error.
QUANTITIES = {
    "energy": ("energy (eV/atom)", "eV/atom", "energy_mae_per_atom"),
    "forces": ("force component (eV/Å)", "eV/Å", "forces_mae"),
    "hessian": ("Hessian entry (eV/Å²)", "eV/Å²", "hessian_mae"),
    "eigenvalues": ("Hessian eigenvalue (eV/Å²)", "eV/Å²", "eigenvalue_mae"),
    "frequencies": ("wavenumber (cm⁻¹)", "cm⁻¹", "frequency_mae_cm1"),
    "products": ("Hessian product (eV/Å²)", "eV/Å²", "hvp_mae"),
}
#: Panels side by side.
COLUMNS = 3


def plot_parity(points: Mapping[str, np.ndarray], path: Path, summary: Mapping[str, Any], title: str = "") -> None:
    """Prediction against reference, one panel a quantity.

    Parameters
    ----------
    points
        (2, k) reference and prediction by quantity (names of :data:`QUANTITIES`); for large sets a selection.
    path
        PNG file; written whole or not at all.
    summary
        Errors over all data, as :func:`hint_plugins.evaluation.errors.summarise` gives them. They stand above the
        panels: the mean over the points shown would be another number.
    title
        Above the panels.
    """
    names = [name for name in QUANTITIES if points.get(name, np.empty((2, 0))).shape[1]]
    if not names:
        return
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure, panels = new_figure(3.4 * columns, 3.5 * rows, nrows=rows, ncols=columns, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.remove()
    for axes, name in zip(panels.flat, names, strict=False):
        label, unit, key = QUANTITIES[name]
        reference, predicted = points[name]
        low, high = min(reference.min(), predicted.min()), max(reference.max(), predicted.max())
        pad = 0.05 * (high - low) or 1.0
        axes.plot([low - pad, high + pad], [low - pad, high + pad], color="0.6", linewidth=1, zorder=0)
        axes.scatter(reference, predicted, s=6, alpha=0.4, linewidths=0, rasterized=True)
        axes.set(xlabel=f"reference {label}", ylabel=f"predicted {label}")
        axes.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), box_aspect=1)
        axes.locator_params(nbins=4)
        if name == "frequencies":
            axes.axhline(0, color="0.8", linewidth=0.7, zorder=0)
            axes.axvline(0, color="0.8", linewidth=0.7, zorder=0)
            axes.text(0.97, 0.03, "imaginary below 0", transform=axes.transAxes, ha="right", fontsize=8)
        error = summary.get(key)
        known = "" if error is None else f"MAE {three_digits(error)} {unit}, "
        axes.set_title(f"{known}{len(reference)} points", fontsize=9)
    if title:
        figure.suptitle(wrapped(title, 3.2 * columns), fontsize=10)
    save_figure(figure, path)
