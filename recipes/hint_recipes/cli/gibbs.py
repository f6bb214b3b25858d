"""``hint gibbs``: Gibbs energies of molecules from Hessians."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hint_plugins.cli.options import Device

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


def gibbs(
    structures: Annotated[
        list[Path],
        typer.Argument(
            help="Molecules; info may give name, reaction and role (reactant, product, ts), charge, "
            "spin (2S+1), symmetry_number."
        ),
    ],
    model: Annotated[str, typer.Option(help="Model file, tblite:GFN2-xTB, emt, or module:factory.")],
    out: Annotated[Path, typer.Option(help="Output directory; an unfinished run in it is continued.")],
    temperature: Annotated[float, typer.Option(help="K.")] = 298.15,
    pressure: Annotated[float, typer.Option(help="Pa.")] = 101325.0,
    quasi_harmonic: Annotated[
        str,
        typer.Option(help="Entropy of low modes: none, grimme (free rotor) or truhlar (raised to the cutoff)."),
    ] = "none",
    cutoff: Annotated[float, typer.Option(help="Of the quasi-harmonic entropy, cm^-1.")] = 100.0,
    symmetry_tolerance: Annotated[float, typer.Option(help="For the symmetry number and linearity, A.")] = 0.02,
    relax: Annotated[
        bool | None,
        typer.Option(
            "--relax/--no-relax",
            help="Go to the potential's own minimum (saddle for role ts) first [default: yes, but not with "
            "--reference, which compares at the given geometries].",
        ),
    ] = None,
    fmax: Annotated[float, typer.Option(help="Force at which the relaxation stops, eV/A.")] = 0.001,
    reference: Annotated[
        str | None, typer.Option(help="Reference potential (as --model): errors against it are reported.")
    ] = None,
    device: Device = None,
    dtype: Annotated[str | None, typer.Option(help="float64 or float32 [default: the model's].")] = None,
    overwrite: Annotated[bool, typer.Option(help="Discard an earlier result in --out.")] = False,
) -> None:
    """Gibbs energies (rigid rotor, harmonic oscillator), reaction and activation free energies, errors."""
    options = {k: v for k, v in locals().items() if isinstance(v, str | int | float | list | Path | None)}
    from dataclasses import asdict

    from tqdm import tqdm

    from hint_plugins.cli.common import finish
    from hint_plugins.errors import InputError
    from hint_plugins.runs.directory import write_summary
    from hint_plugins.runs.files import write_csv
    from hint_plugins.runs.items import ItemStore, digest, file_digest
    from hint_recipes.cli.inputs import load_potential, need, open_run, read_frames, settings_or_fail
    from hint_recipes.molecules.gibbs import (
        errors_against,
        gibbs_energies,
        label,
        plot_gibbs_errors,
        reaction_free_energies,
        role,
        write_stationary_points,
    )
    from hint_recipes.molecules.thermochemistry import GibbsSettings

    need("ts", "pyscf")
    settings = settings_or_fail(
        GibbsSettings,
        {
            "temperature": temperature,
            "pressure": pressure,
            "quasi_harmonic": quasi_harmonic,
            "cutoff_cm1": cutoff,
            "symmetry_tolerance": symmetry_tolerance,
        },
    )
    found = read_frames(structures)
    frames = [atoms for atoms in found if role(atoms) != "path"]
    if not frames:
        raise InputError("all structures are images of a path (role path): a Gibbs energy needs stationary points")
    if len(frames) < len(found):
        typer.echo(
            f"{len(found) - len(frames)} structures are images of a path (role path), no stationary points: left out",
            err=True,
        )
    potential = load_potential(model, device, dtype)
    other = load_potential(reference, device, dtype) if reference is not None else None
    moves = relax if relax is not None else reference is None
    out = open_run(
        out, "gibbs", options, overwrite=overwrite, neutral={"structures", "device"}, cleared=("structures",)
    )
    store = ItemStore(out / "structures")

    def compute(which: Potential, spec: str) -> list[dict]:
        identity = (file_digest(spec), dtype, asdict(settings))
        moved = ["saddle" if moves and role(atoms) == "ts" else moves for atoms in frames]
        keys = [digest(*identity, how, fmax, atoms) for how, atoms in zip(moved, frames, strict=True)]
        with tqdm(total=len(frames), desc=f"Gibbs energies, {which.name}", unit="molecule", disable=None) as bar:

            def known(index: int) -> dict | None:
                row = store.get(keys[index], keys[index])
                bar.update(row is not None)
                return None if row is None else row | label(frames[index], index)

            def done(index: int, row: dict) -> None:
                if "error" not in row:  # it may work the next time
                    store.put(keys[index], keys[index], row)
                bar.update()

            return gibbs_energies(which, frames, settings, relax=moves, fmax=fmax, known=known, done=done)

    rows = compute(potential, model)
    summary: dict = {
        "model": potential.name,
        "temperature_K": temperature,
        "pressure_Pa": pressure,
        "n_structures": len(rows),
        "n_failed": sum("error" in row for row in rows),
        "structures": [{k: v for k, v in row.items() if k != "positions"} for row in rows],
        "reactions": reaction_free_energies(rows),
    }
    if other is not None and reference is not None:
        theirs = compute(other, reference)
        differences, maes = errors_against(rows, theirs)
        summary |= {"reference": other.name, **maes}
        summary["reference_structures"] = [{k: v for k, v in row.items() if k != "positions"} for row in theirs]
        if differences:
            write_csv(out / "errors.csv", differences)
            plot_gibbs_errors({potential.name: differences}, out / "errors.png")
    write_csv(
        out / "gibbs.csv", [{k: v for k, v in row.items() if k not in ("positions", "frequencies_cm1")} for row in rows]
    )
    if summary["reactions"]:
        write_csv(out / "reactions.csv", summary["reactions"])
    write_stationary_points(frames, rows, out / "structures.extxyz")
    write_summary(out, summary)
    for row in rows:
        if "error" in row:
            typer.echo(f"{row['name']}: failed: {row['error']}", err=True)
            continue
        typer.echo(
            f"{row['name']}: G - E = {row['gibbs_correction']:.4f} eV, symmetry number {row['symmetry_number']}, "
            f"{row['n_imaginary']} imaginary"
        )
        expected = int(row["role"] == "ts")
        if row["fmax"] <= 0.05 and sum(wave < -10.0 for wave in row["frequencies_cm1"]) != expected:
            typer.echo(
                f"  note: a {'transition state has one' if expected else 'minimum has no'} imaginary mode, so this is "
                "another stationary point",
                err=True,
            )
        if row["fmax"] > 0.05:
            typer.echo(
                f"  note: the largest force is {row['fmax']:.2f} eV/A, so this is no stationary point and the "
                "harmonic approximation does not hold; --relax goes to one",
                err=True,
            )
    for row in summary["reactions"]:
        if "error" in row:
            typer.echo(f"{row['reaction']}: no reaction free energy: {row['error']}", err=True)
    for key in ("gibbs_mae", "gibbs_correction_mae", "reaction_gibbs_mae", "activation_gibbs_mae"):
        if key in summary:
            typer.echo(f"{key} = {summary[key]:.4f} eV = {summary[f'{key}_kcal_mol']:.2f} kcal/mol")
    finish(summary["n_failed"])
