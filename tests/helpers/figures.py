"""What a reader would object to in a picture, found without looking at it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

#: Axis labels of counts and of quantities without a unit.
UNITLESS = {
    "",
    "epochs done",
    "weight of the Hessian loss",
    "training on",
    "training structures\nper reaction",
    "stage reached",
    "number of reactions",
    "molecule",
    "stationary points",
    "minimisation step",
    "effective sample",
    "gradient / its error",
    "SOAP principal component 1",
    "SOAP principal component 2",
    r"$\alpha^2F$",
    r"$\lambda(\omega)$, dashed",
    r"$\mu^*$",
    r"$\lambda$",
}


def keep_figures(monkeypatch) -> list[Figure]:
    """Every figure that is written from now on; the file is written as ever."""
    figures: list[Figure] = []
    write = Figure.savefig

    def remember(self, target, **options):
        write(self, target, **options)
        self.inches = [pixels / options["dpi"] for pixels in imread(target).shape[1::-1]]
        figures.append(self)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def faults(figure: Figure) -> list[str]:
    """Clipped or overlapping texts, legends on data, labels without unit, axes that show a single value."""
    figure.set_canvas(FigureCanvasAgg(figure))
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    found = []
    needed = figure.get_tightbbox(renderer)
    if needed.width > figure.inches[0] or needed.height > figure.inches[1]:
        found.append(f"clipped: {needed.width:.1f} x {needed.height:.1f} inches on {figure.inches}")
    if needed.width > 1.3 * figure.get_figwidth():
        found.append("a text is far wider than the picture")
    extents = [(text.get_text(), text.get_window_extent(renderer).padded(-1)) for text in _upright(figure)]
    found += [f"{a!r} lies over {b!r}" for (a, x), (b, y) in combinations(extents, 2) if x.overlaps(y)]
    panels = [axes.get_window_extent(renderer) for axes in figure.axes]
    legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
    if any(legend.get_window_extent(renderer).overlaps(panel) for legend in legends for panel in panels):
        found.append("a legend lies over data")
    for axes in figure.axes:
        labels = (axes.get_xlabel(), axes.get_ylabel())
        found += [f"{label!r} has no unit" for label in labels if label not in UNITLESS and "(" not in label]
        if not any(labels):
            found.append("axes without a name")
        if axes.lines and not axes.patches and axes.dataLim.width == 0:
            found.append(f"{labels[0]!r} shows a single value")
    return found


def _upright(figure: Figure) -> Iterator[Text]:
    """Texts that are drawn and not slanted; of tick labels those within the limits."""
    ticks = {}
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                for label in (tick.label1, tick.label2):
                    ticks[label] = low <= tick.get_loc() <= high
    for text in figure.findobj(Text):
        drawn = text.get_visible() and text.get_text().strip() and ticks.get(text, True)
        if drawn and text.get_rotation() % 90 == 0:
            yield text


def texts(figure: Figure) -> str:
    """All that is written in a picture."""
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())
