"""``hint sscha``: quantum and thermal anharmonic phonons and free energy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Device
from hint_recipes.cli.repetitions import LIST_METAVAR, MATRIX_METAVAR, METAVAR, RepetitionsCommand, numbers


def sscha(
    cell: Annotated[Path, typer.Argument(help="Unit cell (any format of ASE).")],
    model: Annotated[str, typer.Option(help="Model or reference calculator.")],
    out: Annotated[Path, typer.Option(help="Output directory; a run there is continued.")],
    supercell: Annotated[
        str,
        typer.Option(
            metavar=MATRIX_METAVAR,
            help="Repetitions of the unit cell (last stage), or nine numbers: phonopy's supercell matrix, row by row.",
        ),
    ] = "2x2x2",
    primitive: Annotated[bool, typer.Option(help="Reduce the cell to its primitive cell first.")] = False,
    stage: Annotated[
        list[str] | None,
        typer.Option(metavar=METAVAR, help="Smaller supercell to converge first, e.g. 1x1x1; repeatable."),
    ] = None,
    temperature: Annotated[
        str, typer.Option(metavar=LIST_METAVAR, help="K; several (0 100 200) are a scan, each from its neighbour.")
    ] = "0",
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
    representation: Annotated[str, typer.Option(help="auto, normal, sqrt or root4.")] = "auto",
    relax_positions: Annotated[bool, typer.Option(help="Let the centroids relax.")] = True,
    relax_cell: Annotated[bool, typer.Option(help="Relax the cell to --pressure.")] = False,
    fix_volume: Annotated[bool, typer.Option(help="With --relax-cell: shape only.")] = False,
    pressure: Annotated[
        str, typer.Option(metavar=LIST_METAVAR, help="GPa; several, with --relax-cell, are a scan.")
    ] = "0",
    bulk_modulus: Annotated[float, typer.Option(help="GPa, sets cell steps.")] = 100.0,
    stress: Annotated[bool, typer.Option(help="Report the pressure at fixed cell too.")] = False,
    mass: Annotated[list[str] | None, typer.Option(help="Isotope, SYMBOL=MASS in u (H=2.014); repeatable.")] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="Starting force constants: dyn prefix, phonopy yaml, q2r .fc, .npz.")
    ] = None,
    floor: Annotated[float, typer.Option(help="Lowest starting frequency, cm^-1.")] = 20.0,
    hessian_configurations: Annotated[
        int, typer.Option(help="Configurations for the free-energy Hessian; 0: none.")
    ] = 0,
    four_phonon: Annotated[bool, typer.Option(help="Fourth-order term in the free-energy Hessian.")] = False,
    reference: Annotated[str | None, typer.Option(help="Reference calculator for the free-energy correction.")] = None,
    reference_configurations: Annotated[int, typer.Option(help="Configurations for it.")] = 20,
    on_bad: Annotated[str, typer.Option(help="Configuration the model cannot do: drop or stop.")] = "drop",
    max_energy: Annotated[float, typer.Option(help="... further from the median energy than this, eV an atom.")] = 5.0,
    max_force: Annotated[float, typer.Option(help="... or with a larger force component, eV/A.")] = 500.0,
    device: Device = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64.")] = None,
    seed: Annotated[int, typer.Option(help="Random numbers.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Discard what is in --out.")] = False,
) -> None:
    """Anharmonic phonons, free energy and structure by the stochastic self-consistent harmonic approximation."""
    options = dict(locals())
    from hint_plugins.cli.common import finish
    from hint_plugins.errors import InputError
    from hint_plugins.runs.directory import prepare_output
    from hint_recipes.crystals.force_constants.unit_cells import tell_folded
    from hint_recipes.crystals.inputs import load_potential, parse_supercell, parse_supercell_matrix, read_crystal
    from hint_recipes.crystals.sscha.ensemble import EnsembleEngine
    from hint_recipes.crystals.sscha.output import print_result
    from hint_recipes.crystals.sscha.request import CHECKPOINT, supercell_stages
    from hint_recipes.crystals.sscha.scan import print_scan, run_scan
    from hint_recipes.crystals.sscha.state import SschaSettings
    from hint_recipes.crystals.sscha.study import run_sscha

    temperatures, pressures = numbers(temperature, "--temperature"), numbers(pressure, "--pressure")
    options |= {
        name: values[0] if len(values) == 1 else ",".join(f"{value:g}" for value in values)
        for name, values in (("temperature", temperatures), ("pressure", pressures))
    }
    settings = SschaSettings(
        temperature=min(temperatures),
        configurations=configurations,
        min_populations=min_populations,
        max_populations=max_populations,
        final_configurations=final_configurations,
        step=step,
        kong_liu=kong_liu,
        meaningful_factor=meaningful_factor,
        representation=representation,
        relax_positions=relax_positions,
        relax_cell=relax_cell,
        fix_volume=fix_volume,
        pressure=pressures[0],
        bulk_modulus=bulk_modulus,
        stress=stress,
        seed=seed,
    )
    if on_bad not in ("drop", "stop"):
        raise InputError(f"--on-bad {on_bad}: choose drop or stop")
    crystal = read_crystal(cell, mass or [], primitive=primitive)
    smaller, whole = [parse_supercell(s, "--stage") for s in stage or []], parse_supercell_matrix(supercell)
    options |= {"supercell": whole, "stage": ["x".join(map(str, s)) for s in smaller] if stage else None}
    crystal, stages = supercell_stages(crystal, [*smaller, whole])
    tell_folded(crystal)
    potential = load_potential(model, device, dtype)
    prepare_output(out, overwrite=overwrite, resume=(out / CHECKPOINT).exists() or (out / "points").is_dir())
    if len(temperatures) > 1 or len(pressures) > 1:
        if reference or overwrite:
            raise InputError("a scan takes neither --reference nor --overwrite: remove the directory to start again")
        found = run_scan(
            crystal,
            potential,
            out,
            settings,
            stages,
            temperatures,
            pressures,
            limits={"on_bad": on_bad, "max_energy": max_energy, "max_force": max_force},
            start_from=start_from,
            floor=floor,
            hessian_configurations=hessian_configurations,
            four_phonon=four_phonon,
            label=model,
            config=options,
        )
        print_scan(found, out)
        finish(sum(not row["converged"] for row in found["points"]))
        return
    summary = run_sscha(
        crystal,
        potential,
        out,
        settings,
        stages,
        engine=EnsembleEngine(potential, on_bad, max_energy, max_force, out),
        start_from=start_from,
        floor=floor,
        hessian_configurations=hessian_configurations,
        four_phonon=four_phonon,
        reference=load_potential(reference, device, dtype) if reference else None,
        reference_configurations=reference_configurations,
        label=model,
        reference_label=reference or "",
        overwrite=overwrite,
        config={**options, "overwrite": False},
    )
    print_result(summary, out)
    finish(0 if summary["converged"] else 1)


sscha.typer_settings = {"cls": RepetitionsCommand}  # type: ignore[attr-defined]
