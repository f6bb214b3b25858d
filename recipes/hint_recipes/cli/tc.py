"""``hint tc``: critical temperatures from alpha2F, also carried over to anharmonic phonons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_recipes.cli.repetitions import METAVAR, RepetitionsCommand


def tc(
    out: Annotated[Path, typer.Option(help="Output directory.")],
    spectrum: Annotated[
        list[Path] | None,
        typer.Argument(help="alpha2F: Quantum ESPRESSO a2F.dosN or alpha2F.dat, EPW .a2f, or columns."),
    ] = None,
    mu_star: Annotated[
        list[float] | None, typer.Option(help="Coulomb pseudopotential; repeatable [0.1, 0.125].")
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(help="Unit of the frequencies where the file states none: meV, eV, Ry, Ha, THz, cm-1, K."),
    ] = None,
    column: Annotated[int, typer.Option(min=1, help="alpha2F column (EPW, lambda.x: one a smearing).")] = 1,
    clip_negative: Annotated[bool, typer.Option(help="Set negative alpha2F to zero instead of refusing it.")] = False,
    eliashberg: Annotated[bool, typer.Option(help="Solve the isotropic Migdal-Eliashberg equations too.")] = False,
    temperature: Annotated[
        list[float] | None, typer.Option(help="Temperature of a gap, K; repeatable [12 up to Tc].")
    ] = None,
    cutoff: Annotated[float, typer.Option(help="Matsubara cutoff in highest phonon energies.")] = 10.0,
    rescale_mu: Annotated[bool, typer.Option(help="Bring mu* from the phonon energy to the cutoff.")] = True,
    elph_dir: Annotated[Path | None, typer.Option(help="elph_dir of ph.x: carry the coupling over.")] = None,
    harmonic: Annotated[Path | None, typer.Option(help="Prefix of the dyn files of the same ph.x run.")] = None,
    anharmonic: Annotated[
        list[Path] | None,
        typer.Option(
            help="Other phonons: dyn prefix, phonopy yaml, q2r .fc, .npz, on the same or a coarser q grid; repeatable."
        ),
    ] = None,
    mass: Annotated[
        list[str] | None, typer.Option(help="Isotope in the other phonons, SYMBOL=MASS in u [as in their files].")
    ] = None,
    broadening: Annotated[int, typer.Option(min=1, help="Electronic broadening, number in the files.")] = 3,
    route: Annotated[
        str,
        typer.Option(
            help="matdyn (stock Quantum ESPRESSO, exact), projected (mode-resolved couplings; loses couplings between "
            "modes), or auto: matdyn where its files and programs are there."
        ),
    ] = "auto",
    mesh: Annotated[str, typer.Option(metavar=METAVAR, help="q mesh of the matdyn route.")] = "12x12x12",
    smearing: Annotated[float, typer.Option(help="Width of alpha2F in the projected route, meV.")] = 1.0,
    converge: Annotated[
        bool,
        typer.Option(
            help="With --elph-dir: also vary broadening, q mesh and cutoff, one at a time, at the first mu* "
            "(convergence.csv, convergence.png)."
        ),
    ] = False,
    prepare_only: Annotated[bool, typer.Option(help="matdyn route: write the inputs, do not run.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier result.")] = False,
) -> None:
    """Superconducting critical temperature: Allen-Dynes and Migdal-Eliashberg, harmonic and anharmonic."""
    options = dict(locals())
    from hint_plugins.errors import InputError
    from hint_plugins.runs.directory import prepare_output, write_config
    from hint_recipes.crystals.inputs import parse_supercell
    from hint_recipes.crystals.superconductivity.study import read_spectra, run_tc

    options["mesh"] = parse_supercell(mesh, "--mesh")
    carried = [elph_dir is not None, harmonic is not None]
    if any(carried) and not all(carried):
        raise InputError("--elph-dir and --harmonic belong together")
    if anharmonic and elph_dir is None:
        raise InputError("--anharmonic needs --elph-dir and --harmonic")
    if not spectrum and elph_dir is None:
        raise InputError("give alpha2F files, or --elph-dir with --harmonic")
    if route not in ("auto", "projected", "matdyn"):
        raise InputError(f"--route {route}: choose auto, matdyn or projected")
    if converge and (elph_dir is None or prepare_only):
        raise InputError("--converge needs --elph-dir and --harmonic, and cannot go with --prepare-only")
    spectra = read_spectra(spectrum or [], unit=unit, column=column, clip_negative=clip_negative)
    prepare_output(out, overwrite=overwrite)
    write_config(out, "tc", options)
    if elph_dir is not None and harmonic is not None:
        from hint_recipes.crystals.superconductivity.electron_phonon import carried_spectra

        spectra |= carried_spectra(
            out,
            elph_dir,
            harmonic,
            anharmonic or [],
            masses=mass or [],
            broadening=broadening,
            route=route,
            mesh=options["mesh"],
            smearing=smearing,
            prepare_only=prepare_only,
            clip_negative=clip_negative,
        )
    if converge:
        from hint_recipes.crystals.superconductivity.convergence import convergence

        assert elph_dir is not None
        assert harmonic is not None
        convergence(
            out,
            elph_dir,
            harmonic,
            anharmonic or [],
            (mu_star or [0.1])[0],
            masses=mass or [],
            broadening=broadening,
            route=route,
            mesh=options["mesh"],
            smearing=smearing,
            cutoff=cutoff,
            eliashberg=eliashberg,
        )
    if not spectra:
        print(f"inputs written into {out}: run run.sh in each directory, then give its a2F.dosN to `hint tc`")
        return
    run_tc(
        out,
        spectra,
        mu_star or [0.1, 0.125],
        eliashberg=eliashberg,
        temperatures=temperature or [],
        cutoff=cutoff,
        rescale_mu=rescale_mu,
    )


tc.typer_settings = {"cls": RepetitionsCommand}  # type: ignore[attr-defined]
