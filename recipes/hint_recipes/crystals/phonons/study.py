"""The phonon study: one or several models and a reference, tables and pictures in one directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.runs.directory import write_summary
from hint_plugins.runs.files import write_csv
from hint_recipes.crystals.force_constants.force_constants import ForceConstants, force_constants_from_potential
from hint_recipes.crystals.force_constants.supercells import find_matrix
from hint_recipes.crystals.force_constants.unit_cells import describe_matrix, in_supercell, tell_folded
from hint_recipes.crystals.inputs import load_potential, model_names, read_crystal
from hint_recipes.crystals.inputs import relax as relax_crystal
from hint_recipes.crystals.phonons.harmonic import (
    Harmonic,
    compare,
    harmonic,
    read_force_constants,
    save_force_constants,
)
from hint_recipes.crystals.phonons.plots import plot_bands, plot_dos, plot_thermal


def run_phonons(
    cell: str | Path,
    out: Path,
    *,
    models: Sequence[str],
    supercell: Sequence[int] = (2, 2, 2),
    reference: Path | None = None,
    relax: str = "none",
    pressure: float = 0.0,
    primitive: bool = False,
    symmetrize: bool = True,
    asr: bool = True,
    masses: Sequence[str] = (),
    mesh: Sequence[int] = (12, 12, 12),
    t_max: float = 1000.0,
    t_step: float = 100.0,
    dos_width: float = 10.0,
    device: str | None = None,
    dtype: str | None = None,
) -> dict[str, Any]:
    """Harmonic phonons of every model and of the reference; options as in ``hint phonons --help``.

    Returns
    -------
    dict
        What ``summary.json`` holds: for each source ``frequencies_gamma_cm1``, ``n_imaginary`` (commensurate q
        points), ``free_energy`` for each mesh and temperature (eV a unit cell), and the differences from the reference.

    Raises
    ------
    InputError
        If there is neither a model nor a reference, or an input does not fit.
    """
    if not models and reference is None:
        raise InputError("give at least one --model, or a --reference")
    if relax not in ("none", "positions", "cell"):
        raise InputError(f"--relax {relax}: choose none, positions or cell")
    if min(mesh) < 1 or (len(supercell) == 3 and min(supercell) < 1):
        raise InputError(f"--supercell and --mesh take positive numbers, not {tuple(supercell)} and {tuple(mesh)}")
    if t_step <= 0 or t_max < 0:
        raise InputError("--t-step must be positive and --t-max not negative")
    if not dos_width > 0:
        raise InputError(f"--dos-width must be positive, not {dos_width}")
    given = read_crystal(cell, masses, primitive=primitive)
    tell_folded(given)
    crystal, multiples = in_supercell(given, supercell if models else (1, 1, 1))
    temperatures = [float(t) for t in np.arange(0.0, t_max + t_step / 2, t_step)]

    def prepared(constants: ForceConstants) -> ForceConstants:
        constants = constants.symmetrized() if symmetrize else constants
        return constants.acoustic_sum_rule() if asr else constants

    results: dict[str, Harmonic] = {}
    extra: dict[str, dict[str, Any]] = {}
    if reference is not None:
        constants = prepared(read_force_constants(reference, crystal, any_cell=True))
        if models and not _same_supercell(constants, crystal, multiples):
            numbers = describe_matrix(find_matrix(given, constants.supercell))
            raise InputError(f"the reference has another supercell: use --supercell {numbers}")
        results["reference"] = harmonic(constants, mesh=mesh, temperatures=temperatures, smearing=dos_width)
    for name, spec in zip(model_names(models), models, strict=True):
        potential = load_potential(spec, device, dtype)
        start = (
            relax_crystal(potential, crystal, cell=relax == "cell", pressure=pressure) if relax != "none" else crystal
        )
        state = potential.evaluate([start])
        extra[name] = {"model": spec, "max_force": float(np.abs(np.asarray(state.forces[0])).max())}
        constants = prepared(force_constants_from_potential(potential, start, multiples))
        results[name] = harmonic(constants, mesh=mesh, temperatures=temperatures, smearing=dos_width)
        if relax == "none" and reference is not None:
            extra[name]["difference"] = compare(constants, results["reference"].constants)
    return _write(out, results, extra)


def _same_supercell(constants: ForceConstants, crystal: Atoms, multiples: tuple[int, int, int]) -> bool:
    return constants.multiples == multiples and np.array_equal(constants.primitive.cell.array, crystal.cell.array)


def _write(out: Path, results: dict[str, Harmonic], extra: dict[str, dict[str, Any]]) -> dict[str, Any]:
    summary: dict[str, Any] = {"sources": {}}
    for name, result in results.items():
        if result.left_out():
            print(f"hint: {name}: {result.left_out()}")
        save_force_constants(result.constants, out, "phonopy" if len(results) == 1 else f"phonopy-{name}")
        summary["sources"][name] = {
            "frequencies_gamma_cm1": result.frequencies[0],
            "n_imaginary": result.num_imaginary,
            "lowest_cm1": result.frequencies.min(),
            "highest_cm1": result.frequencies.max(),
            "free_energy": result.meshes,
            **extra.get(name, {}),
        }
    from ase.io import write

    for name, result in results.items():
        write(out / f"cell-{name}.extxyz", result.constants.primitive)
    write_csv(
        out / "frequencies.csv",
        [
            {"source": name, "q1": q[0], "q2": q[1], "q3": q[2], "mode": mode + 1, "cm1": value}
            for name, result in results.items()
            for q, row in zip(result.constants.q_points, result.frequencies, strict=True)
            for mode, value in enumerate(row)
        ],
    )
    write_csv(out / "thermal.csv", [{"source": name, **row} for name, r in results.items() for row in r.thermal])
    write_csv(
        out / "bands.csv",
        [
            {"source": name, "distance": x, **{f"mode{i + 1}": v for i, v in enumerate(row)}}
            for name, r in results.items()
            for xs, rows in zip(r.bands.distances, r.bands.frequencies, strict=True)
            for x, row in zip(xs, rows, strict=True)
        ],
    )
    write_csv(
        out / "dos.csv",
        [
            {"source": name, "cm1": x, "dos": y, **{f"dos_{s}": part[i] for s, part in r.dos_of_elements.items()}}
            for name, r in results.items()
            for i, (x, y) in enumerate(r.dos)
        ],
    )
    plot_bands({name: result.bands for name, result in results.items()}, out / "bands.png")
    plot_dos(results, out / "dos.png")
    plot_thermal(results, out / "thermal.png")
    first = next(iter(summary["sources"].values()))
    summary = {key: first[key] for key in ("frequencies_gamma_cm1", "n_imaginary", "free_energy")} | summary
    write_summary(out, summary)
    for name, source in summary["sources"].items():
        lowest, highest = source["lowest_cm1"], source["highest_cm1"]
        imaginary = source["n_imaginary"]
        print(f"{name}: modes from {lowest:.1f} to {highest:.1f} cm^-1, {imaginary} imaginary in the supercell")
    print(f"tables and pictures are in {out}")
    return summary
