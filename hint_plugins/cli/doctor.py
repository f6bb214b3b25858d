"""``hint doctor``: what is installed, and are a model's derivatives right?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hint_plugins.cli.options import Device


def doctor(
    model: Annotated[
        str | None, typer.Option(help="Also test this model: file, tblite:GFN2-xTB, emt or module:factory.")
    ] = None,
    structures: Annotated[
        Path | None, typer.Option(help="Structures for the test (the first ones) [default: a small cluster].")
    ] = None,
    num_structures: Annotated[int, typer.Option(min=1, help="How many of them.")] = 2,
    device: Device = None,
    out: Annotated[Path | None, typer.Option(help="Directory for summary.json.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier result in --out.")] = False,
) -> None:
    """Versions, hosts, plugins and devices; with --model, forces and Hessians against finite differences (float64).

    Exit status 1 when the model's derivatives are wrong or an extension cannot be loaded.
    """
    from itertools import islice

    from hint_plugins.cli.common import finish
    from hint_plugins.diagnosis import check_potential, check_training, devices, installed_versions, registered
    from hint_plugins.errors import InputError
    from hint_plugins.potential import Potential, PotentialError
    from hint_plugins.runs.directory import prepare_output, write_summary
    from hint_plugins.storage.store import StoreError, read_structures

    if out is not None:
        prepare_output(out, overwrite=overwrite)
    report: dict[str, Any] = {"versions": installed_versions(), "devices": devices(), "extensions": registered()}
    for name, version in report["versions"].items():
        typer.echo(f"{name:<18}{version or 'not installed'}")
    typer.echo(f"{'devices':<18}{', '.join(report['devices'])}")
    broken = 0
    for group, members in report["extensions"].items():
        typer.echo(f"{group}: {', '.join(sorted(name for name, state in members.items() if state == 'ok')) or 'none'}")
        for name, state in members.items():
            if state != "ok":
                missing = "No module named" in state
                broken += not missing
                typer.echo(f"  {name}: {'needs a package: ' if missing else ''}{state}")
    if model is not None:
        try:
            potential = Potential.load(model, device, "float64")
            items = None if structures is None else list(islice(read_structures(structures), num_structures))
            if items is not None and not items:
                raise InputError(f"{structures}: no structures")
            report["derivatives"] = check_potential(potential, items)
            report["third_derivatives"] = check_training(potential, items)
        except (PotentialError, StoreError) as error:
            raise InputError(str(error)) from error
        broken += _tell(model, report)
    if out is not None:
        write_summary(out, report)
    finish(broken)


def _tell(model: str, report: dict[str, Any]) -> int:
    """Print the result of the tests and give the number that failed."""
    first, third = report["derivatives"], report["third_derivatives"]
    typer.echo(f"{model}: relative errors against central differences (tolerance {first['tolerance']:g})")
    for key, text in (
        ("forces_error", "forces against energy"),
        ("hvp_error", "Hessian products against forces"),
        ("stress_error", "stress against energy"),
        ("asymmetry", "asymmetry of the Hessian"),
    ):
        if first[key] is not None:
            typer.echo(f"  {text:<34}{first[key]:.1e}")
    typer.echo(f"  {'ok' if first['ok'] else 'WRONG: Hessians of this potential cannot be trusted'}")
    if third is None:
        return int(not first["ok"])
    typer.echo(f"  {'gradient of the Hessian loss':<34}{third['gradient_error']:.1e}")
    for line in third["guilty"] + third["kinks"]:
        typer.echo(f"    {line}")
    if third["made_exact"]:
        typer.echo(f"  (training makes LayerNorm exact: {', '.join(third['made_exact'])})")
    advice = "WRONG: train with the option hessian_engine finite_difference, or mend the modules above"
    typer.echo(f"  {'ok: a Hessian loss can be trained' if third['ok'] else advice}")
    return int(not first["ok"]) + int(not third["ok"])
