"""alpha2F of an electron-phonon run on other phonons: the route, the phonons, the spectra."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from hint_plugins.errors import InputError
from hint_recipes.crystals.force_constants.files import read_force_constants
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.interpolation import refine
from hint_recipes.crystals.inputs import model_names, parse_masses
from hint_recipes.crystals.superconductivity.alpha2f import Alpha2F
from hint_recipes.crystals.superconductivity.alpha2f_file import read_alpha2f
from hint_recipes.crystals.superconductivity.electron_phonon import read_mode_couplings, reproject
from hint_recipes.crystals.superconductivity.matdyn import prepare_matdyn, run_matdyn


def carried_spectra(
    out: Path,
    elph_dir: Path,
    harmonic_prefix: Path,
    others: Sequence[Path],
    *,
    masses: Sequence[str] = (),
    broadening: int = 3,
    route: str = "auto",
    mesh: Sequence[int] = (12, 12, 12),
    smearing: float = 1.0,
    prepare_only: bool = False,
    clip_negative: bool = False,
) -> dict[str, Alpha2F]:
    """alpha2F on the harmonic phonons of an electron-phonon run and on other phonons; options as in ``hint tc --help``.

    Returns
    -------
    dict
        Name (``harmonic`` and the names of the files) to spectrum; empty with ``prepare_only``.
    """
    if smearing <= 0 or min(mesh) < 1:
        raise InputError(f"--smearing and --mesh must be positive, not {smearing} and {tuple(mesh)}")
    couplings, harmonic = read_mode_couplings(elph_dir, harmonic_prefix, broadening)
    crystals = carried_phonons(harmonic, others, masses)
    if route == "auto":
        route = choose_route(elph_dir, prepare_only=prepare_only)
    if route == "projected":
        return {name: reproject(couplings, harmonic, other).spectrum(smearing) for name, other in crystals.items()}
    spectra = {}
    for name, other in crystals.items():
        script = prepare_matdyn(out / f"matdyn-{name}", elph_dir, other, mesh=mesh)
        if not prepare_only:
            spectra[name] = read_alpha2f(run_matdyn(script)[broadening - 1], clip_negative=clip_negative)
    return spectra


def carried_phonons(
    harmonic: ForceConstants, others: Sequence[Path], masses: Sequence[str] = ()
) -> dict[str, ForceConstants]:
    """The phonons on which a coupling is put: ``harmonic`` and those of the files, or those of another isotope.

    Parameters
    ----------
    harmonic
        Of the electron-phonon run.
    others
        Files of force constants, on its q grid or a coarser one.
    masses
        Isotopes in them, ``SYMBOL=MASS`` in u.
    """
    changed = parse_masses(masses)
    crystals = {"harmonic": harmonic}
    for name, path in zip(model_names([str(p) for p in others]), others, strict=True):
        other = read_force_constants(path, harmonic.primitive, file_masses=True)
        crystals[name] = refine(other.with_masses(changed), harmonic)
    if changed and not others:
        crystals["isotope"] = harmonic.with_masses(changed)
    return crystals


def choose_route(elph_dir: Path, *, prepare_only: bool = False) -> str:
    """``matdyn`` where its files and programs are there, else ``projected`` with a warning."""
    files = len(list(Path(elph_dir).glob("a2Fmatdyn.*"))) == 10
    programs = prepare_only or bool(shutil.which("q2r.x") and shutil.which("matdyn.x"))
    if files and programs:
        return "matdyn"
    missing = "q2r.x and matdyn.x are not in PATH" if files else f"{elph_dir} does not hold ten files a2Fmatdyn.*"
    print(
        f"hint: {missing}: the mode-resolved couplings are projected instead. Couplings between different harmonic "
        "modes are lost, which can double lambda where modes mix",
        file=sys.stderr,
    )
    return "projected"
