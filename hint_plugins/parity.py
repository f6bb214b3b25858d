"""Parity plots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hint_plugins.cli.common import replacing

#: Axis label by quantity.
QUANTITIES = {
    "energy": "energy (eV/atom)",
    "forces": "force component (eV/Å)",
    "hessian": "Hessian entry (eV/Å²)",
    "eigenvalues": "Hessian eigenvalue (eV/Å²)",
    "frequencies": "wavenumber (cm⁻¹), imaginary < 0",
    "products": "Hessian product (eV/Å²)",
}


def plot_parity(points: Mapping[str, np.ndarray], path: Path, title: str = "") -> None:
    """Prediction against reference, one panel a quantity.

    Parameters
    ----------
    points
        (2, k) reference and prediction by quantity (names of :data:`QUANTITIES`).
    path
        PNG file; written whole or not at all.
    title
        Above the panels.
    """
    from matplotlib.figure import Figure

    names = [name for name in QUANTITIES if points.get(name, np.empty((2, 0))).shape[1]]
    if not names:
        return
    figure = Figure(figsize=(3.6 * len(names), 3.6), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        reference, predicted = points[name]
        low, high = min(reference.min(), predicted.min()), max(reference.max(), predicted.max())
        pad = 0.05 * (high - low) or 1.0
        axis.plot([low - pad, high + pad], [low - pad, high + pad], color="0.6", linewidth=1, zorder=0)
        axis.scatter(reference, predicted, s=6, alpha=0.4, linewidths=0, rasterized=True)
        axis.set(
            xlabel=f"reference {QUANTITIES[name]}",
            ylabel="prediction",
            xlim=(low - pad, high + pad),
            ylim=(low - pad, high + pad),
            aspect="equal",
        )
        axis.set_title(f"mean |Δ| {np.abs(predicted - reference).mean():.3g}, {len(reference)} points", fontsize=9)
    if title:
        figure.suptitle(title, fontsize=10)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=150)
