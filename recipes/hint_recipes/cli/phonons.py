"""``hint phonons``: harmonic phonons from the exact supercell Hessian of one or several models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device
from hint_recipes.cli.repetitions import MATRIX_METAVAR, METAVAR, RepetitionsCommand


def phonons(
    cell: Annotated[Path, typer.Argument(help="Unit cell (any format of ASE).")],
    out: Annotated[Path, typer.Option(help="Output directory.")],
    model: Annotated[
        list[str] | None, typer.Option(help="Model or reference calculator; repeat to compare several.")
    ] = None,
    supercell: Annotated[
        str,
        typer.Option(
            metavar=MATRIX_METAVAR,
            help="Repetitions of the unit cell, or nine numbers: phonopy's supercell matrix, row by row.",
        ),
    ] = "2x2x2",
    primitive: Annotated[bool, typer.Option(help="Reduce the cell to its primitive cell first.")] = False,
    reference: Annotated[
        Path | None,
        typer.Option(help="Reference: phonopy yaml with force constants, q2r .fc, .npz, or prefix of dyn files."),
    ] = None,
    relax: Annotated[str, typer.Option(help="Relax first: none, positions or cell (symmetry kept).")] = "none",
    pressure: Annotated[float, typer.Option(help="Pressure for --relax cell, GPa.")] = 0.0,
    symmetrize: Annotated[bool, typer.Option(help="Average force constants over the space group.")] = True,
    asr: Annotated[bool, typer.Option(help="Impose the acoustic sum rule.")] = True,
    mass: Annotated[list[str] | None, typer.Option(help="Isotope, SYMBOL=MASS in u (H=2.014); repeatable.")] = None,
    mesh: Annotated[str, typer.Option(metavar=METAVAR, help="q mesh for density of states, free energy.")] = "12x12x12",
    t_max: Annotated[float, typer.Option(help="Highest temperature, K.")] = 1000.0,
    t_step: Annotated[float, typer.Option(help="Temperature step, K.")] = 100.0,
    dos_width: Annotated[float, typer.Option(help="Gaussian width of the density of states, cm^-1.")] = 10.0,
    device: Device = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier result.")] = False,
) -> None:
    """Harmonic phonons from the exact supercell Hessian: bands, density of states, free energy."""
    options = dict(locals())
    from hint_plugins.runs.directory import prepare_output, write_config
    from hint_recipes.crystals.inputs import parse_supercell, parse_supercell_matrix
    from hint_recipes.crystals.phonons.study import run_phonons

    options |= {
        "supercell": parse_supercell_matrix(supercell),
        "mesh": parse_supercell(mesh, "--mesh"),
    }
    prepare_output(out, overwrite=overwrite)
    write_config(out, "phonons", options)
    run_phonons(
        cell,
        out,
        models=model or [],
        supercell=options["supercell"],
        primitive=primitive,
        reference=reference,
        relax=relax,
        pressure=pressure,
        symmetrize=symmetrize,
        asr=asr,
        masses=mass or [],
        mesh=options["mesh"],
        t_max=t_max,
        t_step=t_step,
        dos_width=dos_width,
        device=device,
        dtype=dtype,
    )


phonons.typer_settings = {"cls": RepetitionsCommand}  # type: ignore[attr-defined]
