"""The SSCHA study: one crystal, one model; tables, pictures, standard files and a checkpoint in one directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.runs.directory import RunDirectory
from hint_recipes.crystals.force_constants.unit_cells import tell_folded
from hint_recipes.crystals.inputs import require_crystal
from hint_recipes.crystals.sscha.ensemble import require_sscha
from hint_recipes.crystals.sscha.known_potential import KnownPotential
from hint_recipes.crystals.sscha.request import DISCARDED, supercell_stages
from hint_recipes.crystals.sscha.run import SschaRun
from hint_recipes.crystals.sscha.settings import SschaSettings


@dataclass(frozen=True)
class Sscha:
    """What an SSCHA run gives.

    Attributes
    ----------
    directory
        Where everything lies: force constants (``sscha.yaml``, ``sscha.npz``, ``dyn/``), ``frequencies.csv``,
        ``populations.csv``, ``minimisation.csv``, ``bands.png``, ``convergence.png``, ``centroids.extxyz``,
        ``checkpoint.npz``, ``summary.json``.
    summary
        What ``summary.json`` holds. Energies in eV per unit cell: ``free_energy`` is the average over a fresh ensemble
        (``free_energy_supercell``) plus the harmonic part that the supercell misses (``dense_mesh``);
        ``free_energy_minimised``, of the last population, is biased low.
    """

    directory: Path
    summary: dict[str, Any]

    @property
    def converged(self) -> bool:
        """Whether the last stage converged."""
        return bool(self.summary["converged"])

    def report(self) -> str:
        """Free energy, modes and convergence as text."""
        summary = self.summary
        mesh, fresh = summary["dense_mesh"], summary["fresh_ensemble"]
        part = f", {1000 * mesh['difference']:+.2f} meV of it from the dense mesh" if mesh["usable"] else ""
        modes = [
            (value, error)
            for index, row in enumerate(summary["frequencies_cm1"])
            for value, error in list(zip(row["cm1"], row["error_cm1"], strict=True))[0 if index else 3 :]
        ]
        low, high = min(modes, key=lambda mode: mode[0]), max(modes, key=lambda mode: mode[0])
        state = "converged" if self.converged else f"NOT converged: {summary['stopped']}"
        return "\n".join(
            [
                f"free energy {summary['free_energy']:.5f} +- {summary['free_energy_error']:.5f} eV per unit cell at "
                f"{summary['temperature_K']:g} K ({fresh['configurations']} fresh configurations{part})",
                f"auxiliary modes {_with_error(*low)} to {_with_error(*high)} cm^-1",
                *([summary["note"]] if "note" in summary else []),
                *self._about_hessian(),
                f"{state} after {summary['n_populations']} populations; results are in {self.directory}",
            ]
        )

    def _about_hessian(self) -> list[str]:
        if "free_energy_hessian" not in self.summary:
            return []
        soft = self.summary["free_energy_hessian"]
        lines = [f"free-energy Hessian: lowest mode {_with_error(soft['lowest_cm1'], soft['lowest_error_cm1'])} cm^-1"]
        if unknown := soft.get("n_unknown_errors", 0):
            lines.append(
                f"The errors of {unknown} frequencies of the free-energy Hessian are not known, because a part of its "
                "configurations carries no self-consistent matrix. Take more --hessian-configurations."
            )
        return lines


def _with_error(value: float, error: float | None) -> str:
    known = error is not None and np.isfinite(error)
    return f"{value:.1f} +- {error:.1f}" if known else f"{value:.1f} (error not known)"


def run_sscha(
    cell: Atoms,
    model: Any,
    directory: str | Path,
    settings: SschaSettings | None = None,
    *,
    reference: Any = None,
    device: str | None = None,
    dtype: str | None = None,
    label: str | None = None,
    reference_label: str | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Sscha:
    """Anharmonic phonons, free energy and structure of a crystal by the SSCHA; a run in the directory is continued.

    A finished run can be continued too: with more populations, a free-energy Hessian, or a correction. Results are
    written before Hessian and correction, so that a failure there loses nothing.

    Parameters
    ----------
    cell
        Unit cell with its masses.
    model, device, dtype
        What :meth:`hint_plugins.potential.Potential.load` understands: text, an ASE calculator, a Potential.
    directory
        For the results.
    settings
        Of the run.
    reference
        Another model, from which the free energy gets a correction.
    label, reference_label
        What the models are known by, since a run is continued only with the model that began it; by default the name
        and state of a file, and the content of an object. Give one for an object whose content differs from process to
        process.
    options
        What ``config.yaml`` keeps; the settings by default.
    overwrite
        Discard an earlier run in the directory.

    Returns
    -------
    Sscha
        With the summary.

    Raises
    ------
    InputError
        For settings that cannot work, and if the directory holds another run.
    PotentialError
        If a model cannot be loaded.

    Examples
    --------
    >>> cell = ase.io.read("cell.cif")
    >>> result = run_sscha(cell, "model.model", "out", SschaSettings(temperature=300, supercell=(3, 3, 3)))
    >>> result.summary["free_energy"]
    """
    require_sscha()
    settings, directory = settings or SschaSettings(), Path(directory)
    require_crystal(cell, "the cell")
    crystal, stages = supercell_stages(cell, [*settings.stage, settings.supercell])
    tell_folded(crystal)
    known = KnownPotential.load(model, label, device, dtype)
    other = None if reference is None else KnownPotential.load(reference, reference_label, device, dtype)
    job = SschaRun(crystal, stages, known, directory, settings, other)
    if not overwrite:
        job.earlier()  # another run is refused before anything in the directory changes
    if options is None:
        options = {**settings.model_dump(), "model": known.potential.name, "dtype": dtype}
    with RunDirectory(directory, "sscha", options, free=options, contents=DISCARDED, overwrite=overwrite):
        summary = job.run()
    return Sscha(directory, summary)
