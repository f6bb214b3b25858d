"""``hint stability``: molecular dynamics with a temperature ramp until a bond breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device, Dtype, Model, Overwrite, RunOut
from hint_recipes.molecules.stability.settings import RampSettings


def stability(
    structures: Annotated[list[Path], typer.Argument(help="Equilibrium structures of molecules; info may give name.")],
    model: Model,
    out: RunOut,
    settings: RampSettings,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, help="Number of steps between checkpoints; a killed run repeats at most these.")
    ] = 1000,
    compare: Annotated[
        list[Path] | None, typer.Option(help="Earlier output directory whose results go into the plot too.")
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
) -> None:
    """MD stability: Langevin dynamics with rising temperature; time and temperature at which a bond breaks."""
    from hint_plugins.cli.common import finish
    from hint_plugins.cli.settings import asked
    from hint_recipes.cli.inputs import earlier_summaries, read_frames
    from hint_recipes.molecules.stability.study import heat_until_broken

    others = earlier_summaries(compare or [], "hint stability", "molecules")
    result = heat_until_broken(
        read_frames(structures),
        model,
        out,
        settings,
        checkpoint_every=checkpoint_every,
        compare={name: summary["molecules"] for name, summary in others.items()},
        device=device,
        dtype=dtype,
        options=asked(),
        overwrite=overwrite,
    )
    typer.echo(result.report())
    finish(result.summary["n_failed"])
