"""What a phonon study leaves behind: force constants, tables and pictures of several sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hint_plugins.runs.files import write_csv
from hint_recipes.crystals.phonons.harmonic import Harmonic, save_force_constants
from hint_recipes.crystals.phonons.plots import WITHOUT_CHARGES, plot_bands, plot_dos, plot_thermal


def write_phonons(out: Path, results: dict[str, Harmonic], extra: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Write force constants, tables and pictures of all sources.

    Parameters
    ----------
    out
        Directory.
    results
        By source.
    extra
        Further entries of the summary by source.

    Returns
    -------
    dict
        What ``summary.json`` is to hold.
    """
    from ase.io import write

    summary: dict[str, Any] = {"sources": {}}
    for name, result in results.items():
        save_force_constants(result.constants, out, "phonopy" if len(results) == 1 else f"phonopy-{name}")
        summary["sources"][name] = {
            "frequencies_gamma_cm1": result.frequencies[0],
            "n_imaginary": result.num_imaginary,
            "lowest_cm1": result.frequencies.min(),
            "highest_cm1": result.frequencies.max(),
            "free_energy": result.meshes,
            **_polar_part(result),
            **extra.get(name, {}),
        }
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
    missing = any(result.without_charges() for result in results.values())
    plot_bands(
        {name: result.bands for name, result in results.items()},
        out / "bands.png",
        title=WITHOUT_CHARGES if missing else None,
    )
    plot_dos(results, out / "dos.png")
    plot_thermal(results, out / "thermal.png")
    first = next(iter(summary["sources"].values()))
    return {key: first[key] for key in ("frequencies_gamma_cm1", "n_imaginary", "free_energy")} | summary


def _polar_part(result: Harmonic) -> dict[str, Any]:
    """Born charges and what follows from them, or that they may be missing."""
    tensors = result.constants.tensors
    if tensors is None:
        text = result.without_charges()
        return {"note": text} if text else {}
    return {
        "born_charges": tensors.born,
        "dielectric_tensor": tensors.dielectric,
        "frequencies_gamma_towards_cm1": result.splitting(),
    }
