"""What a model trained on one Hessian and a few cells is worth: phonons, held-out structures, the double well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.units import GPa

from hint_plugins.runs.files import write_csv
from hint_recipes.crystals.finetune.held_out import harmonic_errors, held_out, stress_of
from hint_recipes.crystals.finetune.line_scan import line_scan, plot_scan, scanned_pattern, soft_mode, write_scan
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.from_potential import force_constants_from_potential
from hint_recipes.crystals.phonons.harmonic import bands, compare
from hint_recipes.crystals.phonons.plots import plot_bands

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


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
        pattern = scanned_pattern(scan, reference)
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
    plot_scan(amplitudes, curves, points, soft, out / "line_scan.png")
    write_scan(reference, pattern, amplitudes[::5], out / "line_scan.extxyz")
    write_csv(
        out / "line_scan.csv",
        [{"amplitude_A": x, **{k: float(v[i]) for k, v in curves.items()}} for i, x in enumerate(amplitudes)],
    )
    return result


def _pressures(potential: Potential, crystal: Atoms, reference: np.ndarray | None) -> dict[str, float]:
    """Pressure of the undisplaced cell by the model and, where it is known, by the reference, GPa."""
    found = stress_of(potential, crystal)
    if found is None:
        return {}
    own = -float(np.trace(found)) / 3 / GPa
    if reference is None:
        return {"pressure_GPa": own}
    known = -float(np.trace(reference)) / 3 / GPa
    return {"pressure_GPa": own, "pressure_reference_GPa": known, "pressure_error_GPa": own - known}
