"""``hint evaluate``: errors of a potential on labelled structures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device, Dtype, Overwrite, RunOut
from hint_plugins.evaluation.settings import EvaluateSettings
from hint_plugins.labels.settings import LabelKeys


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model file (file#head), tblite:GFN2-xTB, emt or module:factory.")
    ],
    data: Annotated[
        list[Path],
        typer.Argument(metavar="DATA...", help="Labelled structures: .xyz, .aselmdb, or any other format of ASE."),
    ],
    out: RunOut,
    names: LabelKeys,
    settings: EvaluateSettings,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
) -> None:
    """Errors of a potential on labelled structures: energy, forces, Hessian, eigenvalues, frequencies.

    Writes summary.json, structures.csv (one line per structure), parity.png and config.yaml. Units: eV, Angstrom,
    cm^-1. Structures without a label are skipped for that quantity. A killed run goes on when it is repeated.
    """
    from hint_plugins.cli.common import finish
    from hint_plugins.cli.settings import asked
    from hint_plugins.evaluation.study import evaluate_potential

    result = evaluate_potential(
        model,
        data,
        out,
        settings,
        keys=names.keys(),
        device=device,
        dtype=dtype,
        options=asked(),
        overwrite=overwrite,
    )
    typer.echo(result.report())
    for item in result.summary["failed"][:10]:
        typer.echo(f"{item['file']}, structure {item['index']} ({item['formula']}): {item['reason']}", err=True)
    finish(result.summary["n_failed"])
