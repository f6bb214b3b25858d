"""``hint select``: choose which structures are worth a label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Overwrite
from hint_plugins.selection.settings import SelectSettings


def select(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Structures: any data set that `hint convert` reads.")],
    out: Annotated[Path, typer.Option(help="Output directory.")],
    settings: SelectSettings,
    format: Annotated[str, typer.Option(help="Format of IN: auto, or as in `hint convert`.")] = "auto",
    plugins: Annotated[
        str | None,
        typer.Option(
            envvar="HINT_PLUGINS", help="Plugins whose readers and selectors may be used, separated by commas."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Choose structures to label, and which of them get Hessians.

    The directory gets selected.xyz (or .aselmdb), where `label_request` says "hessian" or "forces" (`hint label` obeys
    it), scores.csv for all readable structures, map.png, summary.json and config.yaml. A structure chosen for forces
    only loses the Hessian label it may carry.
    """
    from hint_plugins.cli.common import finish
    from hint_plugins.cli.options import use_plugins
    from hint_plugins.cli.settings import asked
    from hint_plugins.selection.selecting import select_structures

    use_plugins(plugins)
    result = select_structures(source, out, settings, format=format, options=asked(), overwrite=overwrite)
    typer.echo(result.report())
    for entry in result.summary["bad"][:5]:
        typer.echo(f"  record {entry['index']}: {entry['reason']}", err=True)
    finish(result.summary["n_bad"])
