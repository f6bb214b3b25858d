"""``hint displace``: new geometries from known ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Overwrite
from hint_plugins.selection.settings import DisplaceSettings


def displace(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Structures: any data set that `hint convert` reads.")],
    out: Annotated[Path, typer.Option(help="Output directory.")],
    settings: DisplaceSettings,
    format: Annotated[str, typer.Option(help="Format of IN: auto, or as in `hint convert`.")] = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Displace structures: for labels around a crystal, a minimum, a transition state, along a reaction.

    The directory gets structures.xyz (without labels; `parent` is the number of the structure in IN), summary.json and
    config.yaml. A structure that cannot be displaced is named in summary.json.
    """
    from hint_plugins.cli.common import finish
    from hint_plugins.cli.settings import asked
    from hint_plugins.selection.displacing import displace_structures

    result = displace_structures(source, out, settings, format=format, options=asked(), overwrite=overwrite)
    typer.echo(result.report())
    for entry in result.summary["bad"][:5]:
        typer.echo(f"  structure {entry['index']}: {entry['reason']}", err=True)
    finish(result.summary["n_bad"])
