"""``hint gibbs``: Gibbs energies of molecules from Hessians."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device, Dtype, Model, Overwrite, RunOut
from hint_plugins.runs.execution import Execution
from hint_recipes.molecules.thermochemistry.settings import GibbsSettings


def gibbs(
    structures: Annotated[
        list[Path],
        typer.Argument(
            help="Molecules; info may give name, reaction and role (reactant, product, ts), charge, "
            "spin (2S+1), symmetry_number."
        ),
    ],
    model: Model,
    out: RunOut,
    settings: GibbsSettings,
    execution: Execution,
    reference: Annotated[
        str | None,
        typer.Option(help="Reference potential, given as --model is: errors against it are reported."),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
) -> None:
    """Gibbs energies (rigid rotor, harmonic oscillator), reaction and activation free energies, errors."""
    from hint_plugins.cli.common import finish
    from hint_plugins.cli.settings import asked
    from hint_recipes.cli.inputs import need, read_frames
    from hint_recipes.molecules.thermochemistry.study import compute_gibbs_energies

    need("ts", "pyscf")
    result = compute_gibbs_energies(
        read_frames(structures),
        model,
        out,
        settings,
        reference=reference,
        execution=execution,
        device=device,
        dtype=dtype,
        options=asked(),
        overwrite=overwrite,
    )
    typer.echo(result.report())
    for warning in result.warnings():
        typer.echo(warning, err=True)
    finish(result.summary["n_failed"])
