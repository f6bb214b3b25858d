"""``hint tc``: critical temperatures from alpha2F, also carried over to anharmonic phonons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hint_plugins.cli.options import Overwrite
from hint_recipes.cli.repetitions import RepetitionsCommand
from hint_recipes.crystals.superconductivity.settings import CouplingSettings, ReadingSettings, TcSettings


def tc(
    out: Annotated[Path, typer.Option(help="Output directory.")],
    settings: TcSettings,
    reading: ReadingSettings,
    how: CouplingSettings,
    spectrum: Annotated[
        list[Path] | None,
        typer.Argument(help="alpha2F: Quantum ESPRESSO a2F.dosN or alpha2F.dat, EPW .a2f, or columns of numbers."),
    ] = None,
    elph_dir: Annotated[
        Path | None, typer.Option(help="Directory elph_dir of ph.x, whose coupling is put on other phonons.")
    ] = None,
    harmonic: Annotated[
        Path | None, typer.Option(help="Prefix of the dyn files of the same ph.x run; belongs to --elph-dir.")
    ] = None,
    anharmonic: Annotated[
        list[Path] | None,
        typer.Option(
            help="Other phonons: dyn prefix, phonopy yaml, q2r .fc, .npz, on the same or a coarser q grid; may be "
            "given several times."
        ),
    ] = None,
    mass: Annotated[
        list[str] | None,
        typer.Option(
            help="Mass of an isotope in the other phonons, SYMBOL=MASS in u (D: H=2.014); may be given several times "
            "[default: the masses of their files]. Without --anharmonic: in the harmonic ones."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Superconducting critical temperature: Allen-Dynes and Migdal-Eliashberg, harmonic and anharmonic."""
    from hint_plugins.cli.settings import asked
    from hint_plugins.errors import InputError
    from hint_recipes.crystals.superconductivity.study import ElectronPhonon, compute_tc, read_spectra

    if (elph_dir is None) != (harmonic is None):
        raise InputError("--elph-dir and --harmonic belong together")
    coupling = None
    if elph_dir is not None and harmonic is not None:
        coupling = ElectronPhonon(elph_dir, harmonic, anharmonic or [], mass or [], reading.clip_negative, how)
    elif how.converge:
        raise InputError("--converge needs --elph-dir and --harmonic, and cannot go with --prepare-only")
    spectra = read_spectra(spectrum or [], **dict(reading))
    options = asked() | {"mesh": how.mesh}
    typer.echo(compute_tc(spectra, out, settings, coupling=coupling, options=options, overwrite=overwrite).report())


tc.typer_settings = {"cls": RepetitionsCommand}  # type: ignore[attr-defined]
