"""``hint rank``: which candidate structure is stable at a temperature and pressure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device, Dtype, Model, Overwrite, RunOut
from hint_plugins.runs.execution import Execution
from hint_recipes.cli.crystal_options import Mass, Primitive, Reference
from hint_recipes.cli.repetitions import RepetitionsCommand
from hint_recipes.crystals.sscha.settings import RankSettings


def rank(
    cells: Annotated[
        list[Path], typer.Argument(help="Candidate unit cells of one composition, one file each (any format of ASE).")
    ],
    model: Model,
    out: RunOut,
    settings: RankSettings,
    execution: Execution,
    primitive: Primitive = False,
    mass: Mass = None,
    reference: Reference = None,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
) -> None:
    """Rank candidate structures by their anharmonic free energy, with errors."""
    from hint_plugins.cli.common import finish
    from hint_plugins.cli.settings import asked
    from hint_recipes.crystals.inputs import read_candidates
    from hint_recipes.crystals.sscha.rank import rank_structures

    result = rank_structures(
        read_candidates(cells, mass or [], primitive=primitive),
        model,
        out,
        settings,
        reference=reference,
        execution=execution,
        device=device,
        dtype=dtype,
        options=asked() | settings.as_asked(),
        overwrite=overwrite,
    )
    typer.echo(result.report())
    finish(result.num_open)


rank.typer_settings = {"cls": RepetitionsCommand}  # type: ignore[attr-defined]
