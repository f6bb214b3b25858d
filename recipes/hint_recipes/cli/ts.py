"""``hint ts``: transition states of a set of reactions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device


def ts(
    reactions: Annotated[
        list[Path],
        typer.Argument(help="Structures with info 'reaction' and 'role' (reactant, product and, where known, ts)."),
    ],
    model: Annotated[str, typer.Option(help="Model file, tblite:GFN2-xTB, emt, or module:factory.")],
    out: Annotated[Path, typer.Option(help="Output directory; an unfinished run in it is continued.")],
    path: Annotated[
        str,
        typer.Option(
            help="Guess: neb (geodesic + loose climbing-image band), geodesic, auto (neb, then geodesic), "
            "gsm (growing string; needs pysisyphus)."
        ),
    ] = "auto",
    saddle: Annotated[
        str, typer.Option(help="Saddle search: sella (P-RFO) or rsirfo (RS-I-RFO; needs pysisyphus).")
    ] = "sella",
    images: Annotated[int, typer.Option(min=3, help="Images of the path, end points included.")] = 11,
    band_fmax: Annotated[float, typer.Option(help="Where the band stops, eV/A.")] = 0.5,
    band_steps: Annotated[int, typer.Option(min=1, help="Steps of the band at most.")] = 60,
    end_point_fmax: Annotated[float, typer.Option(help="Force at a relaxed end point, eV/A.")] = 0.01,
    saddle_fmax: Annotated[float, typer.Option(help="Force at a saddle, eV/A.")] = 0.01,
    saddle_steps: Annotated[int, typer.Option(min=1, help="Steps of the saddle search at most.")] = 200,
    irc_steps: Annotated[int, typer.Option(min=1, help="Steps of the reaction coordinate at most, each way.")] = 100,
    max_seconds: Annotated[float, typer.Option(min=0, help="Time limit of a reaction, s.")] = 3600.0,
    only: Annotated[
        list[str] | None, typer.Option(help="Only reactions of this name (may be given several times).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many reactions.")] = None,
    compare: Annotated[
        list[Path] | None, typer.Option(help="Earlier output directory whose counts go into the bar plot too.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes; 1 works in this process.")] = 1,
    together: Annotated[
        int,
        typer.Option(
            min=1,
            help="Reactions under way at once in this process, their requests joined into one call of the model: "
            "for models on a GPU, and for small molecules.",
        ),
    ] = 1,
    executor: Annotated[str, typer.Option(help="Where workers run: local, dask or parsl.")] = "local",
    scheduler: Annotated[str | None, typer.Option(help="Address of a running Dask scheduler.")] = None,
    parsl_config: Annotated[Path | None, typer.Option(help="Python file that defines Parsl's `config`.")] = None,
    retry_failed: Annotated[bool, typer.Option(help="Search again what failed in an earlier run.")] = False,
    device: Device = None,
    dtype: Annotated[str | None, typer.Option(help="float64 or float32 [default: the model's].")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the interpolation's random nudges.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Discard an earlier result in --out.")] = False,
) -> None:
    """Transition states: path, saddle with exact Hessians, reaction coordinate, intended or not (as ReactBench)."""
    options = {k: v for k, v in locals().items() if isinstance(v, str | int | float | list | Path | None)}
    from tqdm import tqdm

    from hint_plugins.cli.common import finish
    from hint_plugins.errors import InputError
    from hint_plugins.runs.devices import sharing_note
    from hint_plugins.runs.directory import write_summary
    from hint_plugins.runs.executors import ExecutorError, executor_factory
    from hint_plugins.runs.files import write_csv
    from hint_recipes.cli.inputs import load_potential, need, open_run, read_frames, settings_or_fail
    from hint_recipes.failures import REASONS
    from hint_recipes.molecules.transition_states import SearchSettings, group_reactions, search_set, summarise
    from hint_recipes.molecules.transition_states.plots import plot_success
    from hint_recipes.molecules.transition_states.pysisyphus import needs_pysisyphus
    from hint_recipes.molecules.transition_states.study import (
        barrier_rows,
        barrier_table,
        table_rows,
        write_stationary_points,
    )

    need("ts", "sella", "geodesic_interpolate")
    settings = settings_or_fail(
        SearchSettings,
        {
            "path": path,
            "saddle": saddle,
            "num_images": images,
            "band_fmax": band_fmax,
            "band_steps": band_steps,
            "end_point_fmax": end_point_fmax,
            "saddle_fmax": saddle_fmax,
            "saddle_steps": saddle_steps,
            "irc_steps": irc_steps,
            "max_seconds": max_seconds,
            "seed": seed,
        },
    )
    needs_pysisyphus(settings)
    if together > 1 and (workers > 1 or executor != "local"):
        raise InputError("--together joins reactions in one process: leave out --workers and --executor")
    if together > 1 and (path == "gsm" or saddle == "rsirfo"):
        raise InputError("--together works with neb, geodesic and sella, not with pysisyphus (gsm, rsirfo)")
    try:
        found = group_reactions(read_frames(reactions))
    except ValueError as error:
        raise InputError(str(error)) from error
    if only:
        unknown = sorted(set(only) - {reaction.name for reaction in found})
        if unknown:
            raise InputError(f"--only {unknown[0]}: no such reaction in the input")
        found = [reaction for reaction in found if reaction.name in only]
    found = found[:limit]
    others = _earlier(compare or [])
    potential = load_potential(model, device, dtype)
    try:
        factory = (
            executor_factory(executor, workers, scheduler=scheduler, parsl_config=parsl_config)
            if workers > 1 or executor != "local"
            else None
        )
    except ExecutorError as error:
        raise InputError(str(error)) from error
    note = sharing_note(workers, str(potential.device)) if factory is not None else None
    if note is not None:
        typer.echo(f"hint: {note}", err=True)
    neutral = {"reactions", "only", "limit", "compare", "workers", "together", "executor", "scheduler", "parsl_config"}
    neutral |= {"retry_failed", "device"}
    out = open_run(out, "ts", options, overwrite=overwrite, neutral=neutral, cleared=("reactions",))

    with tqdm(total=len(found), desc=f"transition states, {potential.name}", unit="reaction", disable=None) as bar:
        done = [0, 0]

        def progress(record: dict) -> None:
            done[0] += bool(record["intended"])
            done[1] += 1
            bar.set_postfix(intended=f"{done[0]}/{done[1]}", refresh=False)
            bar.update()

        try:
            records = search_set(
                found,
                model,
                out,
                settings,
                device=device,
                dtype=dtype,
                open_executor=factory,
                workers=workers,
                together=together,
                retry_failed=retry_failed,
                progress=progress,
            )
        except ExecutorError as error:
            raise InputError(str(error)) from error
    summary = summarise(records)
    barriers = barrier_rows(records)
    write_csv(out / "reactions.csv", table_rows(records))
    write_csv(out / "barriers.csv", barriers)
    n_points = write_stationary_points(records, out)
    label = potential.name if potential.name not in others else f"{potential.name} ({out})"
    plot_success({**others, label: summary}, out / "success.png")
    write_summary(out, {"model": potential.name, **summary})
    typer.echo(
        "Energies in kcal/mol above the relaxed reactant, imaginary mode in cm^-1; end R and end P are the minima at "
        "which the reaction coordinate ends."
    )
    typer.echo(barrier_table(barriers))
    typer.echo(
        f"{summary['n_reactions']} reactions: {summary['n_path']} paths, {summary['n_ts']} transition states, "
        f"{summary['n_intended']} intended; {summary['seconds']:.1f} s -> {out}"
    )
    for reason, number in summary["reasons"].items():
        typer.echo(f"  {number} {reason}: {REASONS[reason]}")
    if n_points:
        typer.echo(f"Gibbs energies of the intended ones: hint gibbs {out / 'stationary_points.extxyz'}")
    finish(summary["n_failed"])


def _earlier(directories: list[Path]) -> dict[str, dict]:
    """Summaries of earlier runs by model (directory, where two have the same model)."""
    from hint_plugins.errors import InputError

    summaries: dict[str, dict] = {}
    for directory in directories:
        try:
            summary = json.loads((directory / "summary.json").read_text())
            name = summary["model"]
            summaries[name if name not in summaries else str(directory)] = summary
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"--compare {directory}: not a finished result of `hint ts` ({error})") from error
    return summaries
