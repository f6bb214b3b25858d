"""``hint rank``: which candidate structure is stable at a temperature and pressure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device
from hint_recipes.cli.repetitions import MATRIX_METAVAR, METAVAR, RepetitionsCommand


def rank(
    cells: Annotated[list[Path], typer.Argument(help="Candidate unit cells of one composition, one file each.")],
    model: Annotated[str, typer.Option(help="Model or reference calculator.")],
    out: Annotated[Path, typer.Option(help="Output directory; candidates there are continued.")],
    supercell: Annotated[
        str,
        typer.Option(
            metavar=MATRIX_METAVAR,
            help="Repetitions of each unit cell, or nine numbers: phonopy's supercell matrix, row by row.",
        ),
    ] = "2x2x2",
    primitive: Annotated[bool, typer.Option(help="Reduce every cell to its primitive cell first.")] = False,
    supercell_length: Annotated[
        float | None,
        typer.Option(
            help="Choose the repetitions for each candidate so that its supercell reaches at least this far in every "
            "direction, A (instead of --supercell). Use it when the unit cells have different sizes."
        ),
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(metavar=METAVAR, help="Smaller supercell to converge first, e.g. 1x1x1; repeatable."),
    ] = None,
    temperature: Annotated[float, typer.Option(help="K.")] = 300.0,
    pressure: Annotated[float, typer.Option(help="GPa.")] = 0.0,
    relax_cell: Annotated[bool, typer.Option(help="Relax the cells to the pressure.")] = True,
    configurations: Annotated[int, typer.Option(help="Configurations of a population (even).")] = 500,
    min_populations: Annotated[int, typer.Option(help="Populations of a stage at least.")] = 2,
    max_populations: Annotated[int, typer.Option(help="Populations of a stage at most.")] = 30,
    final_configurations: Annotated[
        int,
        typer.Option(
            help="Configurations (even) of the fresh ensemble that gives free energy, stress and all errors at the "
            "end; 0 takes as many as a population."
        ),
    ] = 0,
    step: Annotated[float, typer.Option(help="Starting step of the minimisation.")] = 0.002,
    kong_liu: Annotated[
        float,
        typer.Option(
            help="A new population is drawn, and no result accepted, below this share of effective configurations."
        ),
    ] = 0.5,
    meaningful_factor: Annotated[float, typer.Option(help="Converged below this gradient over its error.")] = 0.001,
    bulk_modulus: Annotated[float, typer.Option(help="GPa, sets cell steps.")] = 100.0,
    reference: Annotated[str | None, typer.Option(help="Reference calculator for the free-energy correction.")] = None,
    reference_configurations: Annotated[int, typer.Option(help="Configurations for it.")] = 20,
    mass: Annotated[list[str] | None, typer.Option(help="Isotope, SYMBOL=MASS in u; repeatable.")] = None,
    device: Device = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.")] = None,
    seed: Annotated[int, typer.Option(help="Random numbers.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Discard what is in --out.")] = False,
) -> None:
    """Rank candidate structures by their anharmonic free energy, with errors."""
    options = dict(locals())
    from hint_plugins.cli.common import finish
    from hint_plugins.runs.directory import prepare_output
    from hint_recipes.crystals.inputs import load_potential, parse_supercell, parse_supercell_matrix
    from hint_recipes.crystals.sscha.rank import holds_ranking
    from hint_recipes.crystals.sscha.rank import rank as run_rank
    from hint_recipes.crystals.sscha.state import SschaSettings

    settings = SschaSettings(
        temperature=temperature,
        pressure=pressure,
        relax_cell=relax_cell,
        configurations=configurations,
        min_populations=min_populations,
        max_populations=max_populations,
        final_configurations=final_configurations,
        step=step,
        kong_liu=kong_liu,
        meaningful_factor=meaningful_factor,
        bulk_modulus=bulk_modulus,
        stress=True,
        seed=seed,
    )
    smaller, whole = [parse_supercell(s, "--stage") for s in stage or []], parse_supercell_matrix(supercell)
    options |= {"supercell": whole, "stage": ["x".join(map(str, s)) for s in smaller] if stage else None}
    stages = [*smaller, whole]
    potential = load_potential(model, device, dtype)
    prepare_output(out, overwrite=overwrite, resume=holds_ranking(out))
    result = run_rank(
        cells,
        potential,
        out,
        settings,
        stages,
        supercell_length=supercell_length,
        reference=load_potential(reference, device, dtype) if reference else None,
        reference_configurations=reference_configurations,
        label=model,
        reference_label=reference or "",
        masses=mass or [],
        primitive=primitive,
        overwrite=overwrite,
        config={**options, "overwrite": False},
    )
    finish(len(result["failed"]) + len(result["ranking"]) - result["n_converged"])


rank.typer_settings = {"cls": RepetitionsCommand}  # type: ignore[attr-defined]
