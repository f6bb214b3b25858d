"""What a model trained on one Hessian and a few cells is worth: phonons, held-out structures, the double well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.io import write

from hint_plugins.errors import InputError
from hint_plugins.runs.figures import legend_below, new_figure, save_figure
from hint_plugins.runs.files import replacing, write_csv
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.from_potential import force_constants_from_potential
from hint_recipes.crystals.phonons.harmonic import bands, compare
from hint_recipes.crystals.phonons.plots import plot_bands

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


def soft_mode(constants: ForceConstants) -> tuple[np.ndarray, float]:
    """Displacement pattern ``(N, 3)`` of the lowest mode of the supercell that is no translation, and its cm^-1.

    The pattern is real and normalised so that its largest atomic displacement is 1 A.
    """
    masses = np.repeat(constants.supercell.get_masses(), 3)
    hessian = constants.acoustic_sum_rule().hessian
    values, vectors = np.linalg.eigh(hessian / np.sqrt(masses[:, None] * masses))
    order = np.argsort(np.abs(values))
    free = set(order[:3].tolist())
    index = next(i for i in range(len(values)) if i not in free)
    pattern = (vectors[:, index] / np.sqrt(masses)).reshape(-1, 3)
    from hint_recipes.crystals.force_constants.force_constants import signed_frequencies

    return pattern / np.linalg.norm(pattern, axis=1).max(), float(signed_frequencies(values[index]))


def line_scan(
    potential: Potential, constants: ForceConstants, pattern: np.ndarray, amplitudes: np.ndarray
) -> np.ndarray:
    """Energies (eV a supercell, relative to no displacement) along ``pattern``."""
    structures = []
    for amplitude in (0.0, *amplitudes):
        atoms = constants.supercell.copy()
        atoms.positions += amplitude * pattern
        structures.append(atoms)
    energies = np.asarray(potential.evaluate(structures).energies)
    return energies[1:] - energies[0]


def held_out(potential: Potential, structures: Sequence[Atoms], zero: float) -> dict[str, float]:
    """Errors on labelled structures.

    Parameters
    ----------
    potential
        The model.
    structures
        With reference energies and forces.
    zero
        Energy of the undisplaced crystal an atom by the reference minus that by the model, eV: removed from energies.
    """
    found = potential.evaluate([Atoms(a.symbols, positions=a.positions, cell=a.cell, pbc=a.pbc) for a in structures])
    sizes = np.array([len(a) for a in structures])
    reference = np.array([a.calc.results["energy"] for a in structures])
    energy = (np.asarray(found.energies) - reference) / sizes + zero
    force = np.concatenate(
        [(f - a.calc.results["forces"]).ravel() for f, a in zip(found.forces, structures, strict=True)]
    )
    scale = np.concatenate([a.calc.results["forces"].ravel() for a in structures])
    return {
        **_stress_errors(potential, structures),
        "n_structures": len(structures),
        "energy_mae_per_atom": float(np.abs(energy).mean()),
        "forces_mae": float(np.abs(force).mean()),
        "forces_rmse": float(np.sqrt((force**2).mean())),
        "forces_rms_reference": float(np.sqrt((scale**2).mean())),
    }


def stress_of(potential: Potential, atoms: Atoms) -> np.ndarray | None:
    """(3, 3) stress of the model in eV/A^3, ASE's sign; None where it gives none."""
    from ase.stress import voigt_6_to_full_3x3_stress

    found = potential.evaluate([atoms], stress=True).stresses
    if found is None or not np.isfinite(np.asarray(found[0], dtype=float)).all():
        return None
    return voigt_6_to_full_3x3_stress(np.asarray(found[0]))


def _stress_errors(potential: Potential, structures: Sequence[Atoms]) -> dict[str, float]:
    """Mean absolute error of the stress components where the structures carry stresses, GPa."""
    from ase.units import GPa

    errors = []
    for atoms in structures:
        if "stress" not in atoms.calc.results:
            continue
        bare = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        found = stress_of(potential, bare)
        if found is not None:
            errors.append(np.abs(found - atoms.get_stress(voigt=False)).mean())
    return {"stress_mae_GPa": float(np.mean(errors)) / GPa} if errors else {}


def harmonic_errors(constants: ForceConstants, structures: Sequence[Atoms]) -> dict[str, float]:
    """The same errors for the harmonic approximation of the reference: what a model must beat."""
    reference = constants.acoustic_sum_rule()
    force, energy, scale = [], [], []
    for atoms in structures:
        from hint_recipes.crystals.force_constants.supercells import match_sites

        order = match_sites(reference.supercell, atoms, tolerance=1.5)
        moved = np.linalg.solve(atoms.cell.array.T, (atoms.positions[order] - reference.supercell.positions).T).T
        shift = ((moved - np.rint(moved)) @ atoms.cell.array).ravel()
        predicted = -(reference.hessian @ shift)
        known = atoms.calc.results["forces"][order].ravel()
        force.append(predicted - known)
        scale.append(known)
        energy.append(shift @ reference.hessian @ shift / 2)
    errors, scales = np.concatenate(force), np.concatenate(scale)
    return {
        "forces_mae": float(np.abs(errors).mean()),
        "forces_rmse": float(np.sqrt((errors**2).mean())),
        "forces_rms_reference": float(np.sqrt((scales**2).mean())),
        "harmonic_energies": [float(e) for e in energy],  # type: ignore[dict-item]
    }


def check(
    models: Mapping[str, Potential],
    constants: ForceConstants,
    out: Path,
    *,
    cell_energy: float,
    cell_stress: np.ndarray | None = None,
    test: Sequence[Atoms] = (),
    scan: Sequence[Atoms] = (),
    amplitude: float = 0.6,
) -> dict[str, Any]:
    """Compare models with the reference Hessian and held-out structures; tables and pictures into ``out``.

    Parameters
    ----------
    models
        Name to potential.
    constants
        Reference force constants.
    cell_energy
        Reference energy of the undisplaced unit cell, eV.
    cell_stress
        Its reference stress (3, 3), eV/A^3, ASE's sign, where it is known.
    test
        Held-out labelled supercells.
    scan
        Labelled structures of ``line_scan.extxyz``: the scan then follows their displacements and shows their energies.
    amplitude
        Range of the line scan, A (largest atomic displacement).

    Returns
    -------
    dict
        For each model: differences of Hessian and frequencies, held-out errors, and the line scan.
    """
    reference = constants.acoustic_sum_rule()
    pattern, soft = soft_mode(reference)
    if scan:
        pattern = _scanned_pattern(scan, reference)
    amplitudes = np.linspace(-amplitude, amplitude, 41)
    harmonic = 0.5 * amplitudes**2 * (pattern.ravel() @ reference.hessian @ pattern.ravel())
    result: dict[str, Any] = {"soft_mode_cm1": soft, "models": {}}
    lines, curves = {"reference": bands(reference)}, {"harmonic reference": harmonic}
    for name, potential in models.items():
        own = force_constants_from_potential(potential, reference.primitive, reference.multiples).acoustic_sum_rule()
        energy = float(potential.evaluate([reference.primitive]).energies[0])
        zero = (cell_energy - energy) / len(reference.primitive)
        lines[name], curves[name] = bands(own), line_scan(potential, reference, pattern, amplitudes)
        result["models"][name] = {
            **compare(own, reference),
            "frequencies_gamma_cm1": own.frequencies()[0],
            "n_imaginary": int((own.frequencies() < -5).sum()),
            "energy_offset_per_atom": zero,
            **_pressures(potential, reference.primitive, cell_stress),
            **({"held_out": held_out(potential, test, zero)} if test else {}),
        }
    points = [
        {"amplitude_A": a.info["amplitude_A"], "energy": a.get_potential_energy() - reference.num_cells * cell_energy}
        for a in scan
    ]
    if points:
        result["line_scan_reference"] = points
        for name, potential in models.items():
            known = np.array([p["energy"] for p in points])
            found = line_scan(potential, reference, pattern, np.array([p["amplitude_A"] for p in points]))
            result["models"][name]["line_scan_mae"] = float(np.abs(found - known).mean())
    if test:
        result["harmonic_held_out"] = harmonic_errors(reference, test)
    plot_bands(lines, out / "bands.png")
    _plot_scan(amplitudes, curves, points, soft, out / "line_scan.png")
    _write_scan(reference, pattern, amplitudes[::5], out / "line_scan.extxyz")
    write_csv(
        out / "line_scan.csv",
        [{"amplitude_A": x, **{k: float(v[i]) for k, v in curves.items()}} for i, x in enumerate(amplitudes)],
    )
    return result


def _pressures(potential: Potential, crystal: Atoms, reference: np.ndarray | None) -> dict[str, float]:
    """Pressure of the undisplaced cell by the model and, where it is known, by the reference, GPa."""
    from ase.units import GPa

    found = stress_of(potential, crystal)
    if found is None:
        return {}
    own = -float(np.trace(found)) / 3 / GPa
    if reference is None:
        return {"pressure_GPa": own}
    known = -float(np.trace(reference)) / 3 / GPa
    return {"pressure_GPa": own, "pressure_reference_GPa": known, "pressure_error_GPa": own - known}


def _scanned_pattern(scan: Sequence[Atoms], constants: ForceConstants) -> np.ndarray:
    """The displacement that the structures of a line scan share, for 1 A."""
    try:
        farthest = max(scan, key=lambda atoms: abs(atoms.info["amplitude_A"]))
        shift = farthest.positions - constants.supercell.positions
        return shift / farthest.info["amplitude_A"]
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"the line scan is not line_scan.extxyz of this crystal with labels: {error!r}") from None


def _write_scan(constants: ForceConstants, pattern: np.ndarray, amplitudes: np.ndarray, path: Path) -> None:
    """Structures along the scan, to be labelled."""
    structures = []
    for amplitude in amplitudes:
        atoms = constants.supercell.copy()
        atoms.positions += amplitude * pattern
        atoms.info["amplitude_A"] = round(float(amplitude), 6)
        structures.append(atoms)
    with replacing(path) as temporary:
        write(temporary, structures, format="extxyz")


def _plot_scan(
    amplitudes: np.ndarray, curves: Mapping[str, np.ndarray], points: Sequence[Mapping], soft: float, path: Path
) -> None:
    figure, axes = new_figure()
    for name, values in curves.items():
        axes.plot(amplitudes, values, "k:" if name.startswith("harmonic") else "-", label=name)
    if points:
        x, y = zip(*((p["amplitude_A"], p["energy"]) for p in points), strict=True)
        axes.plot(x, y, "ko", label="reference")
    wave = f"{abs(soft):.0f}{'i' if soft < 0 else ''} cm⁻¹"
    axes.set(xlabel=f"displacement along the softest mode, {wave} (Å)", ylabel="energy (eV per supercell)")
    legend_below(figure)
    save_figure(figure, path)
