"""``hint stability``: molecular dynamics with a temperature ramp until a bond breaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device


def stability(
    structures: Annotated[list[Path], typer.Argument(help="Equilibrium structures of molecules; info may give name.")],
    model: Annotated[str, typer.Option(help="Model file, tblite:GFN2-xTB, emt, or module:factory.")],
    out: Annotated[Path, typer.Option(help="Output directory; an unfinished run in it is continued.")],
    timestep: Annotated[float, typer.Option(help="fs.")] = 0.5,
    friction: Annotated[float, typer.Option(help="Of the Langevin bath, 1/fs.")] = 0.01,
    start_temperature: Annotated[float, typer.Option(help="K.")] = 0.0,
    temperature_step: Annotated[float, typer.Option(help="Rise of the temperature, K.")] = 5.0,
    interval: Annotated[float, typer.Option(help="Time at each temperature, ps.")] = 5.0,
    max_temperature: Annotated[float, typer.Option(help="Where the ramp ends, K.")] = 2000.0,
    window: Annotated[int, typer.Option(min=1, help="Steps over which bond lengths are averaged.")] = 50,
    shortest: Annotated[float, typer.Option(help="Failure below this multiple of the equilibrium bond.")] = 0.75,
    longest: Annotated[float, typer.Option(help="Failure above this multiple of the equilibrium bond.")] = 1.5,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 1000,
    compare: Annotated[
        list[Path] | None, typer.Option(help="Earlier output directory whose results go into the plot too.")
    ] = None,
    device: Device = None,
    dtype: Annotated[str | None, typer.Option(help="float64 or float32 [default: the model's].")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random forces.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Discard an earlier result in --out.")] = False,
) -> None:
    """MD stability: Langevin dynamics with rising temperature; time and temperature at which a bond breaks."""
    options = {k: v for k, v in locals().items() if isinstance(v, str | int | float | list | Path | None)}
    from dataclasses import asdict

    from tqdm import tqdm

    from hint_plugins.cli.common import finish
    from hint_plugins.errors import InputError
    from hint_plugins.runs.directory import write_summary
    from hint_plugins.runs.files import write_csv, write_json
    from hint_plugins.runs.items import digest, file_digest, write_frames
    from hint_recipes.cli.inputs import load_potential, open_run, read_frames, settings_or_fail
    from hint_recipes.molecules.stability import Ramp, RampSettings, plot_stability

    names = RampSettings.__dataclass_fields__
    settings = settings_or_fail(RampSettings, {name: options[name] for name in names})
    frames = read_frames(structures)
    others: dict[str, list[dict]] = {}
    for directory in compare or []:
        try:
            earlier = json.loads((directory / "summary.json").read_text())
            others[earlier["model"] if earlier["model"] not in others else str(directory)] = earlier["molecules"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"--compare {directory}: not a finished result of `hint stability` ({error})") from error
    potential = load_potential(model, device, dtype)
    ramp = Ramp(frames, potential, settings)
    neutral = {"device", "checkpoint_every", "compare"}
    out = open_run(out, "stability", options, overwrite=overwrite, neutral=neutral, cleared=("checkpoint",))
    key = digest(file_digest(model), dtype, asdict(settings), *frames)
    saved = out / "checkpoint" / "state.json"
    saved.parent.mkdir(exist_ok=True)
    if saved.is_file():
        content = json.loads(saved.read_text())
        if content["key"] == key:
            ramp.restore(content["state"])
    with tqdm(total=settings.num_steps, desc=f"ramp, {potential.name}", unit="step", disable=None) as bar:
        bar.update(ramp.step)

        def keep(ramp: Ramp) -> None:
            write_json(saved, {"key": key, "state": ramp.state()})
            bar.set_postfix(alive=len(ramp.living), K=settings.temperature(max(ramp.step - 1, 0)), refresh=False)
            bar.update(ramp.step - bar.n)

        results = ramp.run(checkpoint_every, keep)
    write_csv(out / "stability.csv", results)
    for walker in ramp.walkers:
        walker.atoms.info |= {"name": walker.name, "temperature_K": walker.outcome["temperature_K"]}
    write_frames(out / "final.extxyz", [walker.atoms for walker in ramp.walkers])
    label = potential.name if potential.name not in others else f"{potential.name} ({out})"
    plot_stability({**others, label: results}, out / "stability.png")
    started = [row for row in results if row["survived"] or row["time_ps"] > 0]
    temperatures = [row["temperature_K"] for row in started]
    n_failed = len(results) - len(started)
    write_summary(
        out,
        {
            "model": potential.name,
            "n_molecules": len(results),
            "n_survived": sum(row["survived"] for row in results),
            "n_failed": n_failed,
            "mean_temperature_K": sum(temperatures) / len(temperatures) if temperatures else None,
            "num_steps": ramp.step,
            "molecules": results,
        },
    )
    for row in results:
        end = "survived" if row["survived"] else f"{row['reason']} {row['bond'] or row['detail']}"
        typer.echo(f"{row['name']}: {end} at {row['temperature_K']:.0f} K, {row['time_ps']:.3f} ps")
    finish(n_failed)
