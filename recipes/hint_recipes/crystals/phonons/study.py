"""The phonon study: one or several models and a reference, tables and pictures in one directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.potential import Potential
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.progress import note
from hint_recipes.crystals.force_constants.dielectric import on_crystal, tell_tensors
from hint_recipes.crystals.force_constants.dielectric_files import read_tensors
from hint_recipes.crystals.force_constants.force_constants import ForceConstants, with_tensors_of
from hint_recipes.crystals.force_constants.from_potential import force_constants_from_potential
from hint_recipes.crystals.force_constants.supercells import find_matrix
from hint_recipes.crystals.force_constants.unit_cells import describe_matrix, in_supercell, tell_folded
from hint_recipes.crystals.inputs import model_names, relax, require_crystal
from hint_recipes.crystals.phonons.harmonic import Harmonic, compare, harmonic, read_force_constants
from hint_recipes.crystals.phonons.output import write_phonons
from hint_recipes.crystals.phonons.settings import PhononSettings


@dataclass(frozen=True)
class Phonons:
    """Harmonic phonons of one or several sources.

    Attributes
    ----------
    directory
        Where everything lies: ``bands.csv``, ``dos.csv``, ``thermal.csv``, ``frequencies.csv``, their pictures, the
        force constants (``phonopy*.yaml``, ``.npz``), ``cell-NAME.extxyz``, ``summary.json``.
    sources
        Bands, density of states and thermal properties by the name of the model, or ``reference``.
    summary
        What ``summary.json`` holds: for each source ``frequencies_gamma_cm1``, ``n_imaginary`` (commensurate q points),
        ``free_energy`` for each mesh and temperature (eV per unit cell), and the differences from the reference; with
        Born charges ``frequencies_gamma_towards_cm1``, the limits at Gamma (``frequencies_gamma_cm1`` is without the
        macroscopic field); ``note`` where charges may be missing.
    """

    directory: Path
    sources: dict[str, Harmonic]
    summary: dict[str, Any]

    def report(self) -> str:
        """Range and number of imaginary modes of each source, as text."""
        lines = [f"{name}: {result.left_out()}" for name, result in self.sources.items() if result.left_out()]
        lines += [f"{name}: {text}" for name, result in self.sources.items() if (text := result.without_charges())]
        for name, source in self.summary["sources"].items():
            lines.append(
                f"{name}: modes from {source['lowest_cm1']:.1f} to {source['highest_cm1']:.1f} cm^-1, "
                f"{source['n_imaginary']} imaginary in the supercell"
            )
            for special, values in source.get("frequencies_gamma_towards_cm1", {}).items():
                transverse = source["frequencies_gamma_cm1"][-1]
                lines.append(
                    f"{name}: highest mode at Gamma {values[-1]:.1f} cm^-1 in the limit towards {special}, "
                    f"{transverse:.1f} cm^-1 without the macroscopic field"
                )
        return "\n".join([*lines, f"tables and pictures are in {self.directory}"])


def compute_phonons(
    cell: Atoms,
    models: Any,
    directory: str | Path,
    settings: PhononSettings | None = None,
    *,
    reference: str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Phonons:
    """Harmonic phonons of models and of reference force constants: bands, density of states, free energy.

    Parameters
    ----------
    cell
        Unit cell with its masses.
    models, device, dtype
        What :meth:`hint_plugins.potential.Potential.load` understands: text, an ASE calculator, a Potential; or a list
        of these; or none with a reference.
    directory
        For the results.
    settings
        Supercell, meshes, temperatures.
    reference
        File of force constants (:func:`hint_recipes.crystals.force_constants.files.read_force_constants`).
    options
        What ``config.yaml`` keeps; the settings by default.
    overwrite
        Discard an earlier result in the directory.

    Returns
    -------
    Phonons
        With the reference first.

    Raises
    ------
    InputError
        If there is neither a model nor a reference, an input does not fit, or the directory holds a result.
    PotentialError
        If a model cannot be loaded.
    """
    settings = settings or PhononSettings()
    specs = list(models) if isinstance(models, (list, tuple)) else [] if models is None else [models]
    if not specs and reference is None:
        raise InputError("give at least one --model, or a --reference")
    require_crystal(cell, "the cell")
    tell_folded(cell)
    crystal, multiples = in_supercell(cell, settings.supercell if specs else (1, 1, 1))
    if options is None:
        options = {**settings.model_dump(), "model": _texts(specs), "reference": reference, "dtype": dtype}
    with RunDirectory(Path(directory), "phonons", options, overwrite=overwrite) as run:
        tensors = None if settings.born is None else read_tensors(settings.born, cell)
        if tensors is not None:
            note(f"{settings.born}: {tell_tensors(tensors)}")
        sources: dict[str, Harmonic] = {}
        extra: dict[str, dict[str, Any]] = {}
        if reference is not None:
            constants = _prepared(read_force_constants(reference, crystal, any_cell=True), settings)
            if specs and not _same_supercell(constants, crystal, multiples):
                numbers = describe_matrix(find_matrix(cell, constants.supercell))
                raise InputError(f"the reference has another supercell: use --supercell {numbers}")
            tensors = tensors or constants.tensors
            sources["reference"] = _harmonic(constants.with_tensors(tensors), settings)
        for name, spec in zip(model_names(_texts(specs)), specs, strict=True):
            potential = Potential.load(spec, device=device, dtype=dtype)
            start, own = crystal, None if tensors is None else on_crystal(tensors, crystal)
            if settings.relax != "none":
                start = relax(potential, crystal, cell=settings.relax == "cell", pressure=settings.pressure)
            force = potential.evaluate([start]).forces[0]
            extra[name] = {"model": _texts([spec])[0], "max_force": float(np.abs(np.asarray(force)).max())}
            constants = _prepared(force_constants_from_potential(potential, start, multiples), settings)
            sources[name] = _harmonic(with_tensors_of(constants, own), settings)
            if settings.relax == "none" and reference is not None:
                extra[name]["difference"] = compare(constants, sources["reference"].constants)
        summary = write_phonons(run.path, sources, extra)
        run.finish(summary)
    return Phonons(run.path, sources, summary)


def _texts(specs: Sequence[Any]) -> list[str]:
    """What models are called: text as it is, an object by the name of its potential."""
    return [spec if isinstance(spec, str) else Potential.load(spec).name for spec in specs]


def _prepared(constants: ForceConstants, settings: PhononSettings) -> ForceConstants:
    constants = constants.symmetrized() if settings.symmetrize else constants
    return constants.acoustic_sum_rule() if settings.asr else constants


def _harmonic(constants: ForceConstants, settings: PhononSettings) -> Harmonic:
    return harmonic(constants, mesh=settings.mesh, temperatures=settings.temperatures, smearing=settings.dos_width)


def _same_supercell(constants: ForceConstants, crystal: Atoms, multiples: tuple[int, int, int]) -> bool:
    return constants.multiples == multiples and np.array_equal(constants.primitive.cell.array, crystal.cell.array)
