"""``hint convert``: published data sets to files that MACE and fairchem train from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.datasets.settings import ConvertSettings
from hint_plugins.labels.settings import AllLabelKeys


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Data set: file or directory.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help=".aselmdb, .xyz, .extxyz or .extxyz.gz.")],
    settings: ConvertSettings,
    names: AllLabelKeys,
    plugins: Annotated[
        str | None,
        typer.Option(envvar="HINT_PLUGINS", help="Plugins whose readers may be used, separated by commas."),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace OUT if it exists.")] = False,
) -> None:
    """Convert a data set, checking every record.

    Records stream through: a set of any size fits. Beside OUT appears OUT's stem with .summary.json (its whole name
    if another OUT of that stem came first): the counts of records and of each label, the records left out with
    reasons, and the asymmetry and sum-rule residuals of the Hessians.
    """
    from hint_plugins.cli.common import finish
    from hint_plugins.cli.options import use_plugins
    from hint_plugins.datasets.study import convert_dataset
    from hint_plugins.errors import InputError

    use_plugins(plugins)
    try:
        result = convert_dataset(source, output, settings, keys=names.keys(), overwrite=overwrite)
    except ValueError as error:
        raise InputError(str(error)) from error
    typer.echo(result.report())
    for line in result.warnings():
        typer.echo(line, err=True)
    finish(result.counts.n_bad)
