"""``hint pdh-study``: palladium hydride from density-functional data to the critical temperature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device


def pdh_study(
    out: Annotated[Path, typer.Option(help="Output directory; what is finished there is kept.")],
    kpoints: Annotated[int, typer.Option(help="Reference data: k points an axis of the unit cell.")] = 6,
    supercells: Annotated[
        bool, typer.Option(help="Train on the displaced supercells of the data too, not only on unit cells.")
    ] = True,
    model: Annotated[str | None, typer.Option(help="Trained model; default: train one with and one without.")] = None,
    foundation: Annotated[
        Path | None, typer.Option(help="Local MACE model from which the training starts (say, of the coarser k grid).")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of training.")] = 2000,
    configurations: Annotated[int, typer.Option(help="SSCHA configurations of a population (even).")] = 500,
    max_populations: Annotated[int, typer.Option(help="SSCHA populations at most.")] = 30,
    isotope: Annotated[list[str] | None, typer.Option(help="H, D or T; repeatable [all].")] = None,
    broadening: Annotated[int, typer.Option(min=1, help="Electronic broadening of the coupling, 1-10.")] = 3,
    mu_star: Annotated[float, typer.Option(help="Coulomb pseudopotential.")] = 0.125,
    route: Annotated[
        str, typer.Option(help="Coupling on other phonons: matdyn (exact, Quantum ESPRESSO), projected, or auto.")
    ] = "auto",
    option: Annotated[list[str] | None, typer.Option(help="Option of mace_run_train, NAME=VALUE; repeatable.")] = None,
    device: Device = None,
    seed: Annotated[int, typer.Option(help="Random numbers.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Discard what is in --out.")] = False,
) -> None:
    """Palladium hydride: model from one Hessian and 30 cells, SSCHA of PdH, PdD, PdT, coupling and Tc."""
    options = dict(locals())
    from hint_recipes.cli.inputs import open_run
    from hint_recipes.crystals.inputs import parse_options
    from hint_recipes.pdh_study import ISOTOPES, StudySize, run_pdh

    sscha = [f"sscha-{name}{kind}" for name in ISOTOPES for kind in ("", "-plain")]
    neutral = {"isotope", "broadening", "mu_star", "route", "device"}
    open_run(out, "pdh-study", options, overwrite=overwrite, neutral=neutral, cleared=("model", "tc", *sscha))
    size = StudySize(epochs, configurations, max_populations, broadening, mu_star, parse_options(option or []))
    run_pdh(
        out,
        size,
        kpoints=kpoints,
        supercells=supercells,
        model=model,
        foundation=foundation,
        isotopes=isotope or ["H", "D", "T"],
        route=route,
        device=device,
        seed=seed,
    )
