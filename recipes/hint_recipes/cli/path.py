"""``hint path``: climbing-image band and the frequencies along it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device


def path(
    reactions: Annotated[
        list[Path],
        typer.Argument(
            help="End points with info 'reaction' and 'role' (reactant, product); with --as-is any file whose "
            "frames are a path."
        ),
    ],
    model: Annotated[str, typer.Option(help="Model file, tblite:GFN2-xTB, emt, or module:factory.")],
    out: Annotated[Path, typer.Option(help="Output directory; an unfinished run in it is continued.")],
    as_is: Annotated[
        bool, typer.Option(help="The frames of each file are the path (an irc.extxyz, say): nothing is relaxed.")
    ] = False,
    images: Annotated[int, typer.Option(min=3, help="Images, end points included.")] = 15,
    spring: Annotated[float, typer.Option(help="eV/A^2.")] = 1.0,
    fmax: Annotated[float, typer.Option(help="Largest band force, eV/A.")] = 0.05,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the band at most.")] = 500,
    optimizer: Annotated[str, typer.Option(help="fire or lbfgs.")] = "fire",
    end_point_fmax: Annotated[
        float, typer.Option(help="Force at the relaxed end points, eV/A; 0 leaves them as they are.")
    ] = 0.01,
    width: Annotated[float, typer.Option(help="Of a line in the picture, cm^-1.")] = 25.0,
    only: Annotated[
        list[str] | None, typer.Option(help="Only reactions of this name (may be given several times).")
    ] = None,
    device: Device = None,
    dtype: Annotated[str | None, typer.Option(help="float64 or float32 [default: the model's].")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the interpolation's random nudges.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Discard an earlier result in --out.")] = False,
) -> None:
    """Reaction paths: climbing-image band, Hessians and frequencies along it, and their picture."""
    options = {k: v for k, v in locals().items() if isinstance(v, str | int | float | list | Path | None)}
    from dataclasses import asdict

    from hint_plugins.cli.common import finish
    from hint_plugins.errors import InputError
    from hint_plugins.runs.directory import write_summary
    from hint_plugins.runs.files import write_csv
    from hint_plugins.runs.items import ItemStore, digest, file_digest
    from hint_recipes.cli.inputs import load_potential, open_run, read_frames, settings_or_fail
    from hint_recipes.molecules.path_study import path_rows, run_path
    from hint_recipes.molecules.reaction_path import BandSettings
    from hint_recipes.molecules.transition_states.reaction import Reaction, group_reactions

    settings = settings_or_fail(
        BandSettings,
        {
            "num_images": images,
            "spring": spring,
            "fmax": fmax,
            "steps": steps,
            "optimizer": optimizer,
            "end_point_fmax": end_point_fmax,
            "seed": seed,
        },
    )
    items: list[tuple[str, Reaction | list]] = []
    if as_is:
        items = [(file.name.split(".")[0] + f"-{k}" * (k > 0), read_frames([file])) for k, file in enumerate(reactions)]
    else:
        try:
            items = [(reaction.name, reaction) for reaction in group_reactions(read_frames(reactions))]
        except ValueError as error:
            raise InputError(f"{error} (or is the file a path itself? then add --as-is)") from error
    if only:
        unknown = sorted(set(only) - {name for name, _ in items})
        if unknown:
            raise InputError(f"--only {unknown[0]}: no such reaction in the input")
        items = [item for item in items if item[0] in only]
    potential = load_potential(model, device, dtype)
    neutral = {"reactions", "only", "device"}
    out = open_run(out, "path", options, overwrite=overwrite, neutral=neutral, cleared=("paths",))
    store = ItemStore(out / "paths")
    records = []
    for name, item in items:
        frames = item if isinstance(item, list) else [item.frames[role] for role in sorted(item.frames)]
        key = digest(file_digest(model), dtype, None if as_is else asdict(settings), *frames)
        record = store.get(name, key)
        if record is None:
            record = run_path(name, item, potential, settings, out / "paths", key, width=width)
            if record.get("barrier") is not None:  # a failure may have been passing
                store.put(name, key, record)
        records.append(record)
        state = record["reason"] or (
            f"barrier {record['barrier']:.3f} eV = {record['barrier_kcal_mol']:.2f} kcal/mol, "
            f"{record['n_imaginary_top']} imaginary at the top"
            + ("" if record["converged"] else " (band not converged)")
        )
        typer.echo(f"{name}: {state}")
    write_csv(out / "paths.csv", path_rows(records))
    failed = sum(not record["converged"] for record in records)
    write_summary(out, {"model": potential.name, "n_paths": len(records), "n_failed": failed, "paths": records})
    finish(failed)
