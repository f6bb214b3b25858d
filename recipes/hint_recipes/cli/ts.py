"""``hint ts``: transition states of a set of reactions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device, Dtype, Model, Overwrite, RunOut
from hint_plugins.runs.execution import Execution
from hint_recipes.molecules.transition_states.settings import SearchSettings


def ts(
    reactions: Annotated[
        list[Path],
        typer.Argument(help="Structures with info 'reaction' and 'role' (reactant, product and, where known, ts)."),
    ],
    model: Model,
    out: RunOut,
    settings: SearchSettings,
    execution: Execution,
    only: Annotated[
        list[str] | None, typer.Option(help="Only reactions of this name; may be given several times.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N reactions.")] = None,
    compare: Annotated[
        list[Path] | None, typer.Option(help="Earlier output directory whose counts go into the bar plot too.")
    ] = None,
    together: Annotated[
        int,
        typer.Option(
            min=1,
            help="Reactions under way at the same time in this process, their requests joined into one call of the "
            "model: for models on a GPU, and for small molecules.",
        ),
    ] = 1,
    retry_failed: Annotated[bool, typer.Option(help="Search again what failed in an earlier run.")] = False,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
) -> None:
    """Transition states: path, saddle with exact Hessians, reaction coordinate, intended or not (as ReactBench)."""
    from hint_plugins.cli.common import finish
    from hint_plugins.cli.settings import asked
    from hint_recipes.cli.inputs import earlier_summaries, need, read_reactions
    from hint_recipes.molecules.transition_states.study import find_transition_states

    need("ts", "sella", "geodesic_interpolate")
    result = find_transition_states(
        read_reactions(reactions, only)[:limit],
        model,
        out,
        settings,
        execution=execution,
        together=together,
        retry_failed=retry_failed,
        compare=earlier_summaries(compare or [], "hint ts"),
        device=device,
        dtype=dtype,
        options=asked(),
        overwrite=overwrite,
    )
    typer.echo(result.report())
    finish(result.summary["n_failed"])
