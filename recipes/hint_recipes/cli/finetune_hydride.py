"""``hint finetune-hydride``: a model for one crystal from one supercell Hessian and a few displaced cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device


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
        list[Path], typer.Option(help="Displaced cells (or supercells) with energy, forces, stress; repeatable.")
    ],
    out: Annotated[Path, typer.Option(help="Output directory; a model that is there already is kept.")],
    cell_energy: Annotated[
        float | None,
        typer.Option(help="Energy of the undisplaced unit cell, eV, same scale; by default that in the file CELL."),
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Held-out labelled supercells.")] = None,
    scan: Annotated[
        Path | None, typer.Option(help="line_scan.extxyz of an earlier run, labelled: points beside the line scan.")
    ] = None,
    compare_without: Annotated[bool, typer.Option(help="Train also without Hessians, and compare.")] = False,
    epochs: Annotated[int, typer.Option(help="Epochs.")] = 500,
    valid_fraction: Annotated[float, typer.Option(help="Share of the cells for validation.")] = 0.1,
    max_energy: Annotated[float, typer.Option(help="Leave out cells higher than this, eV a unit cell.")] = 4.0,
    copies: Annotated[int, typer.Option(help="How often the supercell occurs in the training set.")] = 1,
    stress_weight: Annotated[
        float, typer.Option(min=0, help="Weight of the stresses in the loss; pressures and --relax-cell live on it.")
    ] = 100.0,
    foundation: Annotated[
        Path | None, typer.Option(help="Local model to start from (AlphaNet with --option model=AlphaNet).")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Option of mace_run_train, NAME=VALUE (lr=0.005); repeatable.")
    ] = None,
    device: Device = None,
    seed: Annotated[int, typer.Option(help="Random numbers.")] = 0,
    prepare_only: Annotated[bool, typer.Option(help="Write training sets and commands, do not train.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Discard what is in --out.")] = False,
) -> None:
    """Train a model for one crystal on one supercell Hessian and a few displaced cells, and check it."""
    options = dict(locals())
    from hint_plugins.errors import InputError
    from hint_plugins.runs.directory import prepare_output, write_config
    from hint_recipes.crystals.finetune.study import run_finetune
    from hint_recipes.crystals.inputs import parse_options

    values = {"stress_weight": stress_weight, **parse_options(option or [])}
    if epochs < 1 or copies < 1 or not 0 < valid_fraction < 1:
        raise InputError("--epochs and --copies must be positive and --valid-fraction between 0 and 1")
    prepare_output(out, overwrite=overwrite)
    if overwrite:
        import shutil

        for name in ("hint", "plain"):
            shutil.rmtree(out / name, ignore_errors=True)
    write_config(out, "finetune-hydride", {**options, "overwrite": False})
    run_finetune(
        cell,
        out,
        hessian=hessian,
        cells=cells,
        cell_energy=cell_energy,
        test=test,
        scan=scan,
        compare_without=compare_without,
        epochs=epochs,
        valid_fraction=valid_fraction,
        max_energy=max_energy,
        copies=copies,
        foundation=foundation,
        device=device,
        seed=seed,
        options=values,
        prepare_only=prepare_only,
    )
