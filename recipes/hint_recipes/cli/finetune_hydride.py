"""``hint finetune-hydride``: a model for one crystal from one supercell Hessian and a few displaced cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device, Overwrite
from hint_recipes.crystals.finetune.settings import FinetuneSettings


def finetune_hydride(
    cell: Annotated[
        Path,
        typer.Argument(
            help="Undisplaced unit cell (any format of ASE). Its own energy and stress, where the file holds them, are "
            "used."
        ),
    ],
    hessian: Annotated[
        Path, typer.Option(help="Supercell Hessian: phonopy yaml, q2r .fc, prefix of dyn files, or .npz.")
    ],
    cells: Annotated[
        list[Path],
        typer.Option(help="Displaced cells or supercells with energy, forces, stress; may be given several times."),
    ],
    out: Annotated[Path, typer.Option(help="Output directory; a model that is there already is kept.")],
    settings: FinetuneSettings,
    cell_energy: Annotated[
        float | None,
        typer.Option(
            help="Energy of the undisplaced unit cell, eV, on the scale of the displaced cells [default: that in CELL]."
        ),
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Labelled supercells that are held out, for the check of the model.")
    ] = None,
    scan: Annotated[
        Path | None,
        typer.Option(help="line_scan.extxyz of an earlier run, labelled: its points go beside the line scan."),
    ] = None,
    foundation: Annotated[
        Path | None, typer.Option(help="Local model to start from (AlphaNet with --option model=AlphaNet).")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Option of mace_run_train, for example lr=0.005; may be given several times.",
        ),
    ] = None,
    device: Device = None,
    prepare_only: Annotated[bool, typer.Option(help="Write training sets and commands, do not train.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a model for one crystal on one supercell Hessian and a few displaced cells, and check it."""
    from hint_plugins.cli.settings import asked
    from hint_recipes.crystals.finetune.study import finetune_hydride as finetune
    from hint_recipes.crystals.inputs import parse_options

    result = finetune(
        cell,
        out,
        settings,
        hessian=hessian,
        cells=cells,
        cell_energy=cell_energy,
        test=test,
        scan=scan,
        foundation=foundation,
        trainer_options=parse_options(option or []),
        device=device,
        prepare_only=prepare_only,
        options=asked(),
        overwrite=overwrite,
    )
    typer.echo(result.report())
