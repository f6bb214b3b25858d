"""Energies of the elements, which total energies are measured from: a model learns the rest."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairchem.core.datasets.ase_datasets import AseDBDataset
from fairchem.core.datasets.atomic_data import AtomicData
from fairchem.core.modules.normalization.element_references import ElementReferences
from fairchem.core.units.mlip_unit.mlip_unit import MLIPTrainEvalUnit
from omegaconf import OmegaConf

from hint_plugins.config import ConfigError
from hint_plugins.runs.files import replacing

#: At most so many structures of a source, evenly spread over it, are read for the fit.
MAX_STRUCTURES = 10_000
#: Error of the first energies, eV per atom, above which element references are missing or wrong. Binding energies
#: stay below it; total energies of free atoms lie above it, but for hydrogen.
ABSURD = 10.0
_OURS = "hint_fairchem.references.fitted"
_STOCK = "fairchem.core.modules.normalization.element_references.ElementReferences"


def fitted(src: Any) -> ElementReferences:
    """Element references by least squares: one energy for each element, eV.

    In the energy task of a config: ``element_references: {_target_: hint_fairchem.references.fitted, src: FILE}``.
    When training starts, the numbers take the place of this entry in the run's config, so that checkpoints and
    resumed runs hold them and need neither this package nor the file.

    Parameters
    ----------
    src
        Training data: file, folder, or a list (of lists) of them.

    Raises
    ------
    ConfigError
        If there is no energy in them.
    """
    return ElementReferences(torch.tensor(_fit(tuple(_flat(src))), dtype=torch.float64))


def _flat(src: Any) -> list[str]:
    return [str(src)] if isinstance(src, (str, Path)) else [part for item in src for part in _flat(item)]


@functools.lru_cache(maxsize=8)
def _fit(sources: tuple[str, ...]) -> tuple[float, ...]:
    counts, energies = [], []
    for source in sources:
        try:
            data = AseDBDataset({"src": source})
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"{source}: there is no ASE database (.aselmdb) with structures") from error
        places = [(db, key) for db, keys in zip(data.dbs, data.db_ids, strict=True) for key in keys]
        chosen = np.unique(np.linspace(0, len(places) - 1, min(len(places), MAX_STRUCTURES)).astype(int))
        for k in chosen:
            db, key = places[k]
            row = db._get_row(key)
            if row.get("energy") is not None:
                counts.append(np.bincount(row.numbers, minlength=119))
                energies.append(float(row.energy))
    if not energies:
        raise ConfigError(f"no structure of {', '.join(sources)} has an energy to fit element references to")
    return tuple(np.linalg.lstsq(np.array(counts, dtype=float), np.array(energies), rcond=None)[0].tolist())


def with_numbers(config: Any) -> Any:
    """``config`` (dictionaries and lists) where the stock entry with the numbers replaces every :func:`fitted`."""
    if isinstance(config, Mapping):
        if config.get("_target_") == _OURS:
            numbers = {"_target_": "torch.DoubleTensor", "_args_": [list(_fit(tuple(_flat(config["src"]))))]}
            return {"_target_": _STOCK, "element_references": numbers}
        return {name: with_numbers(value) for name, value in config.items()}
    return [with_numbers(value) for value in config] if isinstance(config, list) else config


def keep_numbers(path: Path) -> None:
    """Put the fitted numbers into the config file of a run, from which the host makes its checkpoints."""
    before = OmegaConf.to_container(OmegaConf.load(path))
    after = with_numbers(before)
    if after != before:
        with replacing(path) as temporary:
            OmegaConf.save(OmegaConf.create(after), temporary)


def energy_error(unit: MLIPTrainEvalUnit, outputs: dict, data: AtomicData) -> float:
    """Mean error of the predicted energies of a batch, eV per atom, the largest over the energy tasks."""
    errors = [0.0]
    for task in unit.tasks:
        if task.property != "energy":
            continue
        target = data[task.name].detach()
        if task.element_references is not None:
            target = task.element_references.apply_refs(data, target)
        predicted = task.normalizer.denorm(outputs[task.name]["energy"].detach()).view(-1)
        error = ((predicted - target.view(-1)) / data.natoms).abs()
        known = error[torch.isfinite(target.view(-1))]
        if known.numel():
            errors.append(float(known.mean()))
    return max(errors)
