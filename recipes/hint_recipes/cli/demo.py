"""``hint demo``: the comparison that says whether Hessian training pays, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device
from hint_recipes.demo.settings import DemoSettings


def demo(
    settings: DemoSettings,
    out: Annotated[Path, typer.Option(help="Directory for data, models, tables and plots.")] = Path("demo-out"),
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds (model, order, choice of structures).")] = 1,
    curve: Annotated[bool, typer.Option(help="Also 3, 12 and 24 training structures per reaction.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Number of labels and trainings at a time, one thread each.")] = 2,
    device: Device = None,
) -> None:
    """Label small reactions with GFN2-xTB, train with and without Hessians, compare.

    Runs ``hint label``, ``mace_run_train`` (plain, and with --plugins hint) and ``hint evaluate``. A run that
    was stopped continues when the same command is given again.
    """
    from hint_plugins.cli.settings import asked
    from hint_recipes.cli.inputs import need
    from hint_recipes.demo.study import compare_trainings

    need("mace,xtb,datasets", "mace", "tblite", "geodesic_interpolate")
    result = compare_trainings(out, settings, seeds=seeds, curve=curve, workers=workers, device=device, options=asked())
    typer.echo(result.report())
