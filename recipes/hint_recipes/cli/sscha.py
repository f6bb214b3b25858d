"""``hint sscha``: quantum and thermal anharmonic phonons and free energy."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hint_plugins.cli.options import Device, Dtype, Model, Overwrite, RunOut
from hint_recipes.cli.crystal_options import Cell, Mass, Primitive, Reference
from hint_recipes.cli.repetitions import LIST_METAVAR, RepetitionsCommand, numbers
from hint_recipes.crystals.sscha.settings import SschaSettings


def sscha(
    cell: Cell,
    model: Model,
    out: RunOut,
    settings: SschaSettings,
    temperature: Annotated[
        str,
        typer.Option(
            metavar=LIST_METAVAR,
            help="Temperature, K; several (0 100 200) are a scan, whose points start from their neighbours.",
        ),
    ] = "0",
    pressure: Annotated[
        str,
        typer.Option(metavar=LIST_METAVAR, help="Pressure of --relax-cell, GPa; several (0 50 100) are a scan."),
    ] = "0",
    primitive: Primitive = False,
    mass: Mass = None,
    reference: Reference = None,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Overwrite = False,
) -> None:
    """Anharmonic phonons, free energy and structure by the stochastic self-consistent harmonic approximation."""
    from hint_plugins.cli.common import finish
    from hint_plugins.cli.settings import asked
    from hint_plugins.errors import InputError
    from hint_recipes.crystals.inputs import read_crystal
    from hint_recipes.crystals.sscha.scan import scan_sscha
    from hint_recipes.crystals.sscha.study import run_sscha

    temperatures, pressures = numbers(temperature, "--temperature"), numbers(pressure, "--pressure")
    settings = settings.changed(temperature=min(temperatures), pressure=pressures[0])
    options = asked() | settings.as_asked()
    for name, values in (("temperature", temperatures), ("pressure", pressures)):
        options[name] = values[0] if len(values) == 1 else ",".join(f"{value:g}" for value in values)
    crystal = read_crystal(cell, mass or [], primitive=primitive)
    if len(temperatures) > 1 or len(pressures) > 1:
        if reference or overwrite:
            raise InputError("a scan takes neither --reference nor --overwrite: remove the directory to start again")
        points: dict[str, Any] = {"temperatures": temperatures, "pressures": pressures}
        scan = scan_sscha(crystal, model, out, settings, **points, device=device, dtype=dtype, options=options)
        typer.echo(scan.report())
        finish(scan.num_unconverged)
        return
    more: dict[str, Any] = {"reference": reference, "device": device, "dtype": dtype, "overwrite": overwrite}
    result = run_sscha(crystal, model, out, settings, options=options, **more)
    typer.echo(result.report())
    finish(not result.converged)


sscha.typer_settings = {"cls": RepetitionsCommand}  # type: ignore[attr-defined]
