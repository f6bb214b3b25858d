"""``hint phonons``: harmonic phonons from the exact supercell Hessian of one or several models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device, Dtype, Overwrite
from hint_recipes.cli.crystal_options import Cell, Mass, Primitive
from hint_recipes.cli.repetitions import RepetitionsCommand
from hint_recipes.crystals.phonons.settings import PhononSettings


def phonons(
    cell: Cell,
    out: Annotated[Path, typer.Option(help="Output directory.")],
    settings: PhononSettings,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model file (file#head), tblite:GFN2-xTB, emt, or module:factory; may be given several times, to "
            "compare models. Not needed with --reference."
        ),
    ] = None,
    primitive: Primitive = False,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Reference force constants to compare with: phonopy yaml, q2r .fc, .npz, or prefix of dyn files."
        ),
    ] = None,
    mass: Mass = None,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
) -> None:
    """Harmonic phonons from the exact supercell Hessian: bands, density of states, free energy."""
    from hint_plugins.cli.settings import asked
    from hint_recipes.crystals.inputs import read_crystal
    from hint_recipes.crystals.phonons.study import compute_phonons

    result = compute_phonons(
        read_crystal(cell, mass or [], primitive=primitive),
        model,
        out,
        settings,
        reference=reference,
        device=device,
        dtype=dtype,
        options=asked() | {"supercell": settings.supercell, "mesh": settings.mesh},
        overwrite=overwrite,
    )
    typer.echo(result.report())


phonons.typer_settings = {"cls": RepetitionsCommand}  # type: ignore[attr-defined]
