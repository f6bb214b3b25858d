"""``hint check``: are the labels of a file what they claim to be?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Overwrite
from hint_plugins.labels.settings import AllLabelKeys, CheckSettings


def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Structures: .xyz, .aselmdb, any other format of ASE, files of codes with a Hessian (.fchk, .hess, "
            "vasprun.xml, ...), or directories of these.",
        ),
    ],
    settings: CheckSettings,
    names: AllLabelKeys,
    out: Annotated[
        Path | None, typer.Option(help="Directory for labels.csv (one line per structure) and summary.json.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Check geometries, energies, forces, stresses and Hessian labels.

    What is checked: lengths, finite numbers, signs, units, symmetry, sum rules, order of atoms. Names file, place and
    reason of every bad structure, and counts what is missing; exit status 1 if there is a bad one.
    """
    from hint_plugins.cli.common import finish
    from hint_plugins.cli.settings import asked
    from hint_plugins.labels.checking import check_labels

    result = check_labels(files, out, settings, keys=names.keys(), options=asked(), overwrite=overwrite)
    typer.echo(result.report())
    if result.without_labels:
        there = ", ".join(sorted(result.names - {"numbers", "positions"})) or "nothing else"
        typer.echo(
            f"No known label was found under {', '.join(names.model_dump().values())}; the structures have {there}. "
            "Name the labels with the options --energy-key ...",
            err=True,
        )
    finish(len(result.bad))
