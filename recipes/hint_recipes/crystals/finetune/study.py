"""The HINT recipe for crystals: training set, MACE's trainer with the hint plugin, checks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hint_plugins.errors import InputError
from hint_plugins.potential import Potential
from hint_plugins.runs.devices import training_device
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.files import write_json
from hint_plugins.runs.progress import note
from hint_recipes.crystals.finetune.check import check
from hint_recipes.crystals.finetune.data import build, cell_label, read_labelled, write
from hint_recipes.crystals.finetune.settings import FinetuneSettings
from hint_recipes.crystals.finetune.trainer import train_model, trainer_command
from hint_recipes.crystals.inputs import read_crystal
from hint_recipes.crystals.phonons.harmonic import read_force_constants


@dataclass(frozen=True)
class FinetunedModels:
    """The trained models and their checks.

    Attributes
    ----------
    directory
        Where everything lies: ``hint/`` and ``plain/`` (data, command, model), pictures of the checks,
        ``summary.json``.
    summary
        ``models`` by name with ``file`` and the errors of the checks, and sizes of the training set.
    """

    directory: Path
    summary: dict[str, Any]

    def report(self) -> str:
        """The checks of every model in a line."""
        lines = [f"{name}: {describe(values)}" for name, values in self.summary["models"].items()]
        return "\n".join([*lines, f"results are in {self.directory}"])


def finetune_hydride(
    cell: Path,
    directory: Path,
    settings: FinetuneSettings | None = None,
    *,
    hessian: Path,
    cells: Path | Sequence[Path],
    cell_energy: float | None = None,
    test: Path | None = None,
    scan: Path | None = None,
    foundation: Path | None = None,
    trainer_options: Mapping[str, Any] | None = None,
    device: str | None = None,
    prepare_only: bool = False,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> FinetunedModels:
    """Train a model for one crystal on one supercell Hessian and a few displaced cells, and check it.

    A model that is there already is kept, and an unfinished training goes on.

    Parameters
    ----------
    cell
        Undisplaced unit cell. Its own energy and stress, where the file holds them, are used.
    directory
        For the results.
    settings
        Of the training.
    hessian
        Supercell Hessian: phonopy yaml, q2r ``.fc``, prefix of dyn files, or ``.npz``.
    cells
        Displaced cells or supercells with energies, forces and stresses.
    cell_energy
        Energy of the undisplaced unit cell, eV, on the scale of ``cells``; by default that in ``cell``.
    test
        Held-out labelled supercells.
    scan
        ``line_scan.extxyz`` of an earlier run, labelled.
    foundation
        Local model to start from.
    trainer_options
        Options of ``mace_run_train`` by name.
    device
        Of the training (:data:`hint_plugins.runs.devices.TRAINER`); by default the GPU when there is one.
    prepare_only
        Write training sets and commands, do not train.
    options
        What ``config.yaml`` keeps; the settings by default.
    overwrite
        Discard an earlier run in the directory.

    Raises
    ------
    InputError
        For files that do not fit, for a device that is not there, where neither ``cell_energy`` nor a label in
        ``cell`` gives the energy of the undisplaced cell, and for a training in the directory with other data or
        options.
    """
    settings = settings or FinetuneSettings()
    device = training_device(device)
    if foundation is not None and not Path(foundation).is_file():
        raise InputError(f"--foundation {foundation}: no such file")
    options = settings.model_dump() if options is None else options
    with RunDirectory(
        directory, "finetune-hydride", options, free=frozenset(options), contents=["hint", "plain"], overwrite=overwrite
    ) as run:
        crystal = read_crystal(cell)
        cell_energy, cell_stress = cell_label(cell, cell_energy)
        constants = read_force_constants(hessian, crystal, any_cell=True)
        files = [cells] if isinstance(cells, str | Path) else cells
        labelled = [atoms for file in files for atoms in read_labelled(file)]
        held = read_labelled(test) if test is not None else []
        scanned = read_labelled(scan) if scan is not None else []
        summary: dict[str, Any] = {"models": {}, "n_cells": len(labelled)}
        potentials = {}
        for name in ("hint", "plain") if settings.compare_without else ("hint",):
            data = build(
                constants,
                labelled,
                cell_energy=cell_energy,
                cell_stress=cell_stress,
                hessians=name == "hint",
                valid_fraction=settings.valid_fraction,
                max_energy=settings.max_energy,
                copies=settings.copies,
                seed=settings.seed,
            )
            summary["skipped_cells"] = data.skipped
            summary["n_train"] = len(data.train)
            command = _prepare(run / name, data, settings, foundation, trainer_options or {}, device)
            if not prepare_only:
                model = train_model(command, run / name, name, settings.epochs)
                potentials[name] = Potential.load(str(model), device, "float64")
                summary["models"][name] = {"file": model}
        if potentials:
            found = check(
                potentials, constants, run.path, cell_energy=cell_energy, cell_stress=cell_stress, test=held,
                scan=scanned,
            )  # fmt: skip
            for name, values in found.pop("models").items():
                summary["models"][name].update(values)
            summary.update(found)
        run.finish(summary)
    return FinetunedModels(run.path, summary)


def _prepare(
    directory: Path,
    data: Any,
    settings: FinetuneSettings,
    foundation: Path | None,
    trainer_options: Mapping[str, Any],
    device: str,
) -> list[str]:
    """Write the training set and the trainer's command of one model; gives the command.

    Raises
    ------
    InputError
        If another training has begun there.
    """
    name, hessians = directory.name, directory.name == "hint"
    directory.mkdir(exist_ok=True)
    earlier = _earlier(directory)
    train, valid = write(data, directory)
    stress = all("REF_stress" in a.info for a in data.train if a.info["config_type"] != "equilibrium")
    if not stress:
        note("some displaced cells carry no stress: the model is trained without, so its pressures are wrong")
    values = {"stress_weight": settings.stress_weight, **trainer_options}
    command = trainer_command(
        train, valid, name=name, epochs=settings.epochs, seed=settings.seed, device=device, hessians=hessians,
        foundation=foundation, stress=stress, options=_only(values, hessians),
    )  # fmt: skip
    now = {"command": ["mace_run_train", *command], "data": _digest(train, valid)}
    if earlier is not None and _elsewhere(earlier) != _elsewhere(now):
        raise InputError(
            f"{directory} holds a training with other data or options: choose another --out, or add --overwrite"
        )
    write_json(directory / "command.json", now)
    return command


def describe(values: Mapping[str, Any]) -> str:
    """The checks of one model in a line."""
    parts = [
        f"frequencies off by {values['frequency_mae_cm1']:.1f} cm^-1 (at most {values['frequency_max_error_cm1']:.1f})"
    ]
    if "pressure_error_GPa" in values:
        parts.append(f"pressure of the undisplaced cell off by {values['pressure_error_GPa']:+.2f} GPa")
    if "held_out" in values:
        parts.append(f"held-out forces off by {values['held_out']['forces_mae']:.3f} eV/A")
        if "stress_mae_GPa" in values["held_out"]:
            parts.append(f"held-out stresses by {values['held_out']['stress_mae_GPa']:.2f} GPa")
    return ", ".join(parts)


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _earlier(directory: Path) -> dict[str, Any] | None:
    """What a training that began in ``directory`` was made with."""
    record = directory / "command.json"
    began = any(directory.glob("*.model")) or any(directory.glob("checkpoints/*"))
    return json.loads(record.read_text()) if began and record.is_file() else None


def _elsewhere(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a training without its device, on which it may be continued elsewhere."""
    return {**record, "command": [word for word in record["command"] if not word.startswith("--device=")]}


def _only(options: Mapping[str, Any], hessians: bool) -> dict[str, Any]:
    """Without the plugin its options must not reach the trainer."""
    return {k: v for k, v in options.items() if hessians or not k.startswith("hessian")}
