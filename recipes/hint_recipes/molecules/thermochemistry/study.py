"""The Gibbs energies of a set of molecules: one directory, resumable, in parallel, with errors against a reference."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.potential.worker import identity, load_for, map_with_potential
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.execution import EXECUTION, Execution
from hint_plugins.runs.items import ItemStore, digest, write_frames
from hint_plugins.runs.parallel import WorkerDied
from hint_plugins.runs.progress import note, progress_bar
from hint_plugins.structures.copies import bare
from hint_recipes.molecules.thermochemistry.gibbs import gibbs_energy, label, role
from hint_recipes.molecules.thermochemistry.plots import plot_gibbs_errors
from hint_recipes.molecules.thermochemistry.reactions import errors_against, reaction_free_energies
from hint_recipes.molecules.thermochemistry.settings import GibbsSettings

if TYPE_CHECKING:
    from hint_plugins.potential import Potential

#: Options that may differ from those of a run that is continued: every structure has its own identity.
FREE = EXECUTION | {"structures", "device"}
#: Errors that the terminal shows.
SHOWN = ("gibbs_mae", "gibbs_correction_mae", "reaction_gibbs_mae", "activation_gibbs_mae")


@dataclass(frozen=True)
class GibbsEnergies:
    """Gibbs energies of a set of structures.

    Attributes
    ----------
    directory
        Where everything lies: ``gibbs.csv``, ``structures.extxyz``, ``reactions.csv``, with a reference also
        ``errors.csv`` and ``errors.png``, and ``summary.json``.
    summary
        What ``summary.json`` holds: ``structures`` (rows of :func:`~hint_recipes.molecules.thermochemistry.gibbs\
.gibbs_energies`), ``reactions``, and with a reference the mean absolute errors, eV.
    """

    directory: Path
    summary: dict[str, Any]

    def report(self) -> str:
        """The Gibbs corrections and errors as text."""
        rows = [row for row in self.summary["structures"] if "error" not in row]
        lines = [
            f"{row['name']}: G - E = {row['gibbs_correction']:.4f} eV, {_what(row)}, {row['n_imaginary']} imaginary"
            for row in rows
        ]
        for row in self.summary["reactions"]:
            for key, what in (("reaction_gibbs", "reaction"), ("activation_gibbs", "activation")):
                if key in row:
                    lines.append(f"{row['reaction']}: {what} free energy {row[key]:.4f} eV")
        lines += [
            f"{key} = {self.summary[key]:.4f} eV = {self.summary[f'{key}_kcal_mol']:.2f} kcal/mol"
            for key in SHOWN
            if key in self.summary
        ]
        return "\n".join(lines)

    def warnings(self) -> list[str]:
        """What failed, and what is no stationary point of the expected kind, one sentence each."""
        found = []
        for row in self.summary["structures"]:
            if "error" in row:
                found.append(f"{row['name']}: failed: {row['error']}")
                continue
            expected = int(row["role"] == "ts")
            if row["fmax"] > 0.05:
                found.append(
                    f"{row['name']}: the largest force is {row['fmax']:.2f} eV/A, so this is no stationary point and "
                    "the harmonic approximation does not hold; --relax goes to one"
                )
            elif sum(wave < -10.0 for wave in row["frequencies_cm1"]) != expected:
                found.append(
                    f"{row['name']}: a {'transition state has one' if expected else 'minimum has no'} imaginary mode, "
                    "so this is another stationary point"
                )
        uneven = [row for row in self.summary["reactions"] if "error" in row]
        return found + [f"{row['reaction']}: no reaction free energy: {row['error']}" for row in uneven]


def compute_gibbs_energies(
    structures: Sequence[Atoms],
    model: Any,
    directory: Path,
    settings: GibbsSettings | None = None,
    *,
    reference: Any = None,
    execution: Execution | None = None,
    device: str | None = None,
    dtype: str | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> GibbsEnergies:
    """Gibbs energies of molecules, and free energies of the reactions among them; an unfinished run is continued.

    Parameters
    ----------
    structures
        Molecules; ``info`` may give ``name``, ``reaction``, ``role``, ``charge``, ``spin`` (2S + 1) and
        ``symmetry_number``. Images of a path (role ``path``) are left out, with a note.
    model, device, dtype
        What :meth:`hint_plugins.potential.Potential.load` understands. A model that is not text works in this process
        only.
    directory
        For the results.
    settings
        Conditions and approximations.
    reference
        Another model, to which this one is compared.
    execution
        Where the molecules run.
    options
        What ``config.yaml`` keeps; the settings by default.
    overwrite
        Discard an earlier run in the directory.

    Returns
    -------
    GibbsEnergies
        With the structures in their order.

    Raises
    ------
    InputError
        If no structure is left, the directory holds another run, or options do not fit together.
    PotentialError
        If a model cannot be loaded.
    ExecutorError
        If the executor cannot be opened, or its scheduler is gone.
    """
    settings, execution = settings or GibbsSettings(), execution or Execution()
    frames = [atoms for atoms in structures if role(atoms) != "path"]
    if not frames:
        raise InputError("all structures are images of a path (role path): a Gibbs energy needs stationary points")
    if left_out := len(structures) - len(frames):
        note(f"{left_out} structures are images of a path (role path), no stationary points: left out")
    relax = reference is None if settings.relax is None else settings.relax
    models = {"ours": model} | ({} if reference is None else {"theirs": reference})
    potentials = {which: load_for(spec, execution, device=device, dtype=dtype) for which, spec in models.items()}
    name = potentials["ours"].name
    if options is None:
        options = {**settings.model_dump(), "model": name, "reference": None, "dtype": dtype}
        options |= {"reference": potentials["theirs"].name} if reference is not None else {}
    with RunDirectory(directory, "gibbs", options, free=FREE, contents=["structures"], overwrite=overwrite) as run:
        store = run.items("structures")
        rows = {
            which: _rows(frames, models[which], potential, store, settings, relax, execution, device, dtype)
            for which, potential in potentials.items()
        }
        ours = rows["ours"]
        summary: dict[str, Any] = {
            "model": name,
            "temperature_K": settings.temperature,
            "pressure_Pa": settings.pressure,
            "n_structures": len(ours),
            "n_failed": sum("error" in row for row in ours),
            "structures": [_without(row, "positions") for row in ours],
            "reactions": reaction_free_energies(ours),
        }
        differences: list[dict[str, Any]] = []
        if reference is not None:
            differences, errors = errors_against(ours, rows["theirs"])
            summary |= {"reference": potentials["theirs"].name, **errors}
            summary["reference_structures"] = [_without(row, "positions") for row in rows["theirs"]]
        run.write_csv("errors.csv", differences)
        if differences:
            plot_gibbs_errors({name: differences}, run / "errors.png")
        run.write_csv("gibbs.csv", [_without(row, "positions", "frequencies_cm1") for row in ours])
        run.write_csv("reactions.csv", summary["reactions"])
        write_stationary_points(frames, ours, run / "structures.extxyz")
        run.finish(summary)
    return GibbsEnergies(run.path, summary)


def _rows(
    frames: Sequence[Atoms],
    model: Any,
    potential: Potential,
    store: ItemStore,
    settings: GibbsSettings,
    relax: bool,
    execution: Execution,
    device: str | None,
    dtype: str | None,
) -> list[dict[str, Any]]:
    """Rows of all structures: stored ones as they are, the others computed and stored as they end."""
    known = identity(model)
    conditions = settings.model_dump(exclude={"relax"})
    keys = [digest(known, dtype, conditions, relax and (role(a) == "ts") + 1, a) for a in frames]
    results: dict[str, Any] = {key: store.get(key, key) for key in keys}
    todo = {key: atoms for key, atoms in zip(keys, frames, strict=True) if results[key] is None}  # equal ones once
    missing = list(todo)
    function = functools.partial(gibbs_energy, settings=settings, relax=relax)
    with progress_bar(len(results), f"Gibbs energies, {potential.name}", "molecule") as bar:
        bar.update(len(results) - len(missing))
        for place, outcome in map_with_potential(
            function, list(todo.values()), model, potential, execution, device=device, dtype=dtype
        ):
            if isinstance(outcome, WorkerDied):
                outcome = {"error": f"the worker died: {outcome}"}
            elif isinstance(outcome, BaseException):
                raise outcome
            key = missing[place]
            results[key] = outcome
            if "error" not in outcome:  # it may work the next time
                store.put(key, key, outcome)
            bar.update()
    return [label(atoms, index) | results[key] for index, (key, atoms) in enumerate(zip(keys, frames, strict=True))]


def _what(row: Mapping[str, Any]) -> str:
    if row.get("approximation") == "harmonic":
        return f"harmonic: {len(row['frequencies_cm1'])} modes of the free atoms"
    return f"symmetry number {row['symmetry_number']}"


def _without(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in names}


def write_stationary_points(structures: Sequence[Atoms], rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The structures at which the Gibbs energies hold, with these in ``info`` (eV), as extended XYZ.

    Charge, spin, masses, reaction, role and a given symmetry number stay (:func:`hint_plugins.structures.copies.bare`).
    """
    frames = []
    for atoms, row in zip(structures, rows, strict=True):
        if "error" not in row:
            frame = bare(atoms, row["positions"])
            frame.info |= {key: row[key] for key in ("name", "energy", "gibbs", "gibbs_correction", "n_imaginary")}
            frame.info["frequencies_cm1"] = np.array(row["frequencies_cm1"])
            frames.append(frame)
    write_frames(path, frames)
