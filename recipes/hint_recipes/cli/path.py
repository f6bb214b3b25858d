"""``hint path``: climbing-image band and the frequencies along it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device, Dtype, Model, Overwrite, RunOut
from hint_plugins.runs.execution import Execution
from hint_recipes.molecules.paths.settings import BandSettings


def path(
    reactions: Annotated[
        list[Path],
        typer.Argument(
            help="End points with info 'reaction' and 'role' (reactant, product); with --as-is any file whose "
            "frames are a path."
        ),
    ],
    model: Model,
    out: RunOut,
    settings: BandSettings,
    execution: Execution,
    as_is: Annotated[
        bool,
        typer.Option(help="The frames of each file are a path, of an irc.extxyz for example: nothing is relaxed."),
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only reactions of this name; may be given several times.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
) -> None:
    """Reaction paths: climbing-image band, Hessians and frequencies along it, and their picture."""
    from hint_plugins.cli.common import finish
    from hint_plugins.cli.settings import asked
    from hint_recipes.cli.inputs import read_paths
    from hint_recipes.molecules.paths.study import relax_paths

    result = relax_paths(
        read_paths(reactions, only, as_is=as_is),
        model,
        out,
        settings,
        execution=execution,
        device=device,
        dtype=dtype,
        options=asked(),
        overwrite=overwrite,
    )
    typer.echo(result.report())
    finish(result.summary["n_failed"])
