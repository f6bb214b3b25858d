"""``hint doctor``: what is installed, and are a model's derivatives right?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device, Overwrite


def doctor(
    model: Annotated[
        str | None, typer.Option(help="Also test this model: file, tblite:GFN2-xTB, emt or module:factory.")
    ] = None,
    structures: Annotated[
        Path | None,
        typer.Option(help="File of structures for the test, of which the first ones are taken [default: a cluster]."),
    ] = None,
    num_structures: Annotated[int, typer.Option(min=1, help="Number of structures that are taken.")] = 2,
    device: Device = None,
    out: Annotated[Path | None, typer.Option(help="Directory for summary.json.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Versions, hosts, plugins and devices; with --model, forces and Hessians against finite differences (float64).

    Exit status 1 when the model's derivatives are wrong or an extension cannot be loaded.
    """
    from hint_plugins.cli.common import finish
    from hint_plugins.cli.settings import asked
    from hint_plugins.diagnosis.study import diagnose

    result = diagnose(
        model,
        structures,
        out,
        num_structures=num_structures,
        device=device,
        options=asked(),
        overwrite=overwrite,
    )
    typer.echo(result.report())
    finish(result.n_wrong)
