"""``hint label``: energies, forces and second derivatives of structures from a reference method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.labelling.settings import LabelExecution, LabelSettings


def label(
    structures: Annotated[
        Path, typer.Argument(metavar="IN", help="Structures: .xyz, .aselmdb, or any other format of ASE.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Labelled structures: .xyz, .extxyz or .aselmdb.")],
    settings: LabelSettings,
    execution: LabelExecution,
    plugins: Annotated[
        str | None,
        typer.Option(envvar="HINT_PLUGINS", help="Plugins whose engines may be used, separated by commas."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Discard OUT and the records it was made from.")] = False,
) -> None:
    """Label structures with a reference method.

    Finished batches are on the disk: a run that was stopped or killed goes on when the same command is given
    again, and repeats the batches that were under way. OUT appears at the end, with OUT's stem and .summary.json,
    .failed.csv (what could not be labelled, and why), .doubtful.extxyz (labels that do not pass the check) and
    .config.yaml beside it (OUT's whole name if another OUT of that stem came first); OUT.shards holds the records.
    Frames of IN that cannot be read are among the failed.
    """
    from hint_plugins.cli.common import finish
    from hint_plugins.cli.options import use_plugins
    from hint_plugins.cli.settings import asked
    from hint_plugins.errors import InputError
    from hint_plugins.labelling.study import label_structures

    use_plugins(plugins)
    try:
        result = label_structures(
            structures, output, settings, execution=execution, options=asked(), overwrite=overwrite
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    typer.echo(result.report())
    for line in result.warnings(structures):
        typer.echo(line, err=True)
    finish(result.summary["n_failed"])
