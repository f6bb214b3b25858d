"""``hint demo``: the comparison that says whether Hessian training pays, in minutes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device


def demo(
    out: Annotated[Path, typer.Option(help="Directory for data, models, tables and plots.")] = Path("demo-out"),
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds (model, order, choice of structures).")] = 1,
    structures: Annotated[int, typer.Option(min=2, max=32, help="Training structures a reaction (7 reactions).")] = 6,
    labelled: Annotated[
        int | None, typer.Option(min=1, help="How many of them carry a Hessian [default: all].")
    ] = None,
    curve: Annotated[bool, typer.Option(help="Also 3, 12 and 24 training structures a reaction.")] = False,
    model: Annotated[str, typer.Option(help="MACE, or a model of a plugin (AlphaNet).")] = "MACE",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of each training.")] = 1000,
    weight: Annotated[float, typer.Option(min=0, help="Hessian weight w_H.")] = 0.1,
    workers: Annotated[int, typer.Option(min=1, help="Labels and trainings at a time, one thread each.")] = 2,
    device: Device = None,
) -> None:
    """Label small reactions with GFN2-xTB, train with and without Hessians, compare.

    Runs ``hint label``, ``mace_run_train`` (plain, and with --plugins hint) and ``hint evaluate``. A run that
    was stopped continues when the same command is given again.
    """
    import time

    from rich.console import Console
    from rich.table import Table

    from hint_plugins.errors import InputError
    from hint_plugins.runs.devices import training_device
    from hint_plugins.runs.directory import prepare_output, write_config, write_summary
    from hint_plugins.runs.files import write_csv
    from hint_recipes.cli.inputs import need
    from hint_recipes.demo import ERRORS, DemoSettings, compare, plot, run_demo, sentences, with_units

    need("mace,xtb,datasets", "mace", "tblite", "geodesic_interpolate")
    training_device(device)  # before labels are made for nothing
    start = time.perf_counter()
    out = prepare_output(out, resume=True)
    labelled = structures if labelled is None else labelled
    if labelled > structures:
        raise InputError(f"--labelled {labelled} exceeds --structures {structures}")
    options = {k: v for k, v in locals().items() if k in demo.__annotations__ and k != "return"}
    first = DemoSettings(structures, labelled, steps, weight, model=model)
    others = [replace(first, structures=n, labelled=min(n, labelled)) for n in (3, 12, 24) if n != structures]
    sizes = [first, *(others if curve else [])]
    console = Console()
    console.print(f"labels and {2 * len(sizes) * seeds} trainings in {out}; logs are beside the models")
    try:
        rows = run_demo(out, sizes, range(1, seeds + 1), workers, device)
    except RuntimeError as error:
        raise InputError(str(error)) from None
    table = compare(rows)
    write_csv(out / "comparison.csv", table)
    plot(rows, out / "comparison.png")
    write_config(out, "demo", options)
    write_summary(
        out,
        {"settings": options, "rows": with_units(rows), "comparison": table, "seconds": time.perf_counter() - start},
    )
    shown = Table(title=f"{model}, errors on held-out structures, {'one seed' if seeds == 1 else f'{seeds} seeds'}")
    for column in ("structures per reaction\n(with Hessian)", "mean absolute error", "E/F", "E/F/H", "E/F/H : E/F"):
        shown.add_column(column, justify="left" if column == "mean absolute error" else "right")
    for row in table:
        size = f"{row['structures']} ({row['labelled']})"
        values = [f"{row[k]:.4g} ± {row[k + '_std']:.2g}" if seeds > 1 else f"{row[k]:.4g}" for k in ("ef", "efh")]
        shown.add_row(size, ERRORS[row["error"]], *values, f"{row['ratio']:.2f}")
    console.print(shown)
    console.print("E/F: trained on energies and forces. E/F/H: on the same structures with their Hessians besides.")
    for line in sentences(table):
        console.print(line, highlight=False)
    console.print(f"tables, plots and models: {out}")
