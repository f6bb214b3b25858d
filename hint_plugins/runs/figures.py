"""Pictures: how every plot of this package is made, labelled and written.

Nothing is clipped (the canvas grows around its labels) and no legend lies on data (legends stand below the panels).
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from hint_plugins.runs.files import replacing


def new_figure(width: float = 6.4, height: float = 4.2, **options: Any) -> tuple[Any, Any]:
    """A figure drawn without a display, and its axes.

    Parameters
    ----------
    width, height
        Inches.
    **options
        Of ``Figure.subplots``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(**options)


def three_digits(value: float) -> str:
    """A number for a picture: 0.0123, 1.23, 123, 1234."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def wrapped(text: str, inches: float, fontsize: float = 10.0) -> str:
    """``text`` in lines that fit ``inches``; long words (file names) are broken."""
    return textwrap.fill(text, max(10, int(inches * 72 / (0.6 * fontsize))))


def legend_below(figure: Any, *more: Any) -> None:
    """One legend for all panels and for ``more`` (artists with a label), below them; every label once."""
    entries: dict[str, Any] = {}
    drawn = [handle for axes in figure.axes for handle in axes.get_legend_handles_labels()[0]]
    for handle in [*drawn, *more]:
        entries.setdefault(wrapped(handle.get_label(), 0.8 * figure.get_figwidth(), 9), handle)
    if entries:
        width = max(len(line) for label in entries for line in label.splitlines())
        fitting = int(figure.get_figwidth() * 72 / (5.5 * width + 45))
        columns = max(1, min(fitting, len(entries)))
        lines = sum(1 + label.count("\n") for label in entries) / columns
        figure.set_figheight(figure.get_figheight() + 0.19 * lines)  # the panels keep their height
        style = {"ncols": columns, "frameon": False, "fontsize": 9}
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", **style)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight")
