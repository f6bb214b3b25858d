"""ASE databases with Hessian labels."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from ase import Atoms
from fairchem.core.datasets.ase_datasets import AseDBDataset, apply_one_tags
from fairchem.core.datasets.atomic_data import AtomicData
from fairchem.core.datasets.mt_concat_dataset import ConcatDataset
from numpy import ndarray

from hint_fairchem.options import read_block
from hint_plugins.config import ConfigError
from hint_plugins.labelling.engine import EngineError
from hint_plugins.labels.hessian_label import SUFFIXES
from hint_plugins.labels.series import MAX_JUDGED, EnergySeries
from hint_plugins.structures.charges import stated
from hint_plugins.training.label_arrays import KEY, label_keys

log = logging.getLogger(__name__)

#: Key of a sample that says whether it carries a label (0) or not (NaN): the target of the Hessian task.
TARGET = "hessian_loss"
#: Key of a sample with its drawn labels: per-atom arrays by name, none in a sample without a label.
DRAWN = "hint_labels"


class HessianAseDBDataset(AseDBDataset):
    """``AseDBDataset`` whose samples carry probes ``z`` and products ``H z``, drawn anew every epoch.

    In a config: ``format: hint_fairchem.dataset.HessianAseDBDataset`` and ``hint: ${hint}``; everything
    else is as for ``ase_db``. Labels are read from ``row.data`` under ``hint.hessian_key``; where no other key is
    named, also under ``hessian``, as ``hint label`` writes them (whole, columns or projections). Energy, forces and
    stress that a structure lacks are NaN in its sample, which the host leaves out of losses and errors.

    Raises
    ------
    ConfigError
        For misspelt options, and without a ``hint`` block.
    LabelError
        When a sample with a bad label is read (``hint.hessian_on_bad_label: drop`` leaves the label out).
    """

    def __init__(self, config: dict, atoms_transform: Callable[..., Atoms] = apply_one_tags) -> None:
        self.dbs: list[Any] = []  # the host closes them, also when the options are refused
        near = [key for key in config if key != "hint" and difflib.get_close_matches(key, ["hint"], cutoff=0.7)]
        if near:
            raise ConfigError(f"unknown key {near[0]!r} of a data set: did you mean 'hint'?")
        if "hint" not in config:
            raise ConfigError(
                "a data set of format hint_fairchem.dataset.HessianAseDBDataset lacks its options: add `hint: ${hint}`"
            )
        self.hint = read_block(config["hint"])
        try:
            super().__init__(config, atoms_transform)
        except ValueError as error:
            if "No valid ase data" not in str(error):
                raise
            raise ConfigError(f"{config.get('src')}: there is no ASE database (.aselmdb) with structures") from error
        self._from_ase: Callable[..., AtomicData] = self.a2g  # type: ignore[has-type]
        self.a2g = self._to_data  # type: ignore[assignment]
        # Shared with loader processes: which epoch's probes to draw, -1 for validation; whose labels were dropped.
        self._epoch = torch.full((1,), -1, dtype=torch.int64).share_memory_()
        self.dropped = torch.zeros(len(self), dtype=torch.uint8).share_memory_()
        self._told: set[str] = set()

    def set_epoch(self, epoch: int | None) -> None:
        """Choose the probes: those of a training epoch, or (None) the fixed ones of validation."""
        self._epoch.fill_(-1 if epoch is None else epoch)

    def get_atoms(self, idx: int) -> Atoms:
        """The structure with its labels in ``info``, and its charge and spin under the names the host reads."""
        atoms = super().get_atoms(idx)
        atoms.info["hint_source"] = f"{self.config.get('src')}, structure {idx} ({atoms.get_chemical_formula()})"
        atoms.info["hint_index"] = int(idx)
        try:
            atoms.info.update(stated(atoms))
        except EngineError as error:
            raise ConfigError(f"{atoms.info['hint_source']}: {error}") from error
        return atoms

    @cached_property
    def labelled(self) -> ndarray:
        """Which structures carry a label.

        Field ``has_hessian`` of ``metadata.npz``, which knows the labels under the default key; otherwise every row
        is read, and its label checked.
        """
        if "has_hessian" in self._metadata and self.hint.config.hessian_key == KEY:
            return np.asarray(self._metadata["has_hessian"], dtype=bool)
        return np.array([bool(self.stored_labels(index)) for index in range(len(self))], dtype=bool)

    def energy_verdict(self) -> str:
        """Why the energies cannot be in eV, from at most the first ``MAX_JUDGED`` structures; empty when they can."""
        series = EnergySeries()
        for index in range(min(len(self), MAX_JUDGED)):
            atoms = super().get_atoms(index)
            results = atoms.calc.results if atoms.calc is not None else {}
            energy, forces = results.get("energy"), results.get("forces")
            if energy is not None and np.isfinite(energy) and (forces is None or np.isfinite(forces).all()):
                series.take(atoms, float(energy), forces)
        return series.verdict()

    def stored_labels(self, idx: int) -> dict[str, ndarray]:
        """What the label of a structure holds (empty when it has none, or one that was dropped)."""
        return self._read(self.get_atoms(idx))

    def _read(self, atoms: Atoms) -> dict[str, ndarray]:
        out: dict[str, ndarray] = {}
        forces = atoms.calc.results.get("forces") if atoms.calc is not None else None
        for answer in self.hint.hook.read_labels(atoms=atoms, forces=forces):
            out.update(answer or {})
        keys = [stem + suffix for stem in label_keys(self.hint.config) for suffix in SUFFIXES]
        if not out and any(np.size(atoms.info.get(key, ())) for key in keys):
            self.dropped[atoms.info["hint_index"]] = 1
        return out

    def _to_data(self, atoms: Atoms, **options: Any) -> AtomicData:
        data = self._from_ase(atoms, **options)
        stored = self._read(atoms)
        drawn: dict[str, torch.Tensor] = {}
        epoch = int(self._epoch)
        if stored:
            answers = self.hint.hook.draw_labels(
                labels=stored,
                num_atoms=len(atoms),
                epoch=None if epoch < 0 else epoch,
                index=atoms.info["hint_index"],
            )
            for answer in answers:
                drawn.update({name: _tensor(name, values, data) for name, values in (answer or {}).items()})
        data[TARGET] = torch.tensor([0.0 if drawn else float("nan")], dtype=data.pos.dtype)
        data[DRAWN] = drawn
        self._tell_charge(atoms, data)
        return self._complete(data, atoms.info["hint_source"])

    def _tell_charge(self, atoms: Atoms, data: AtomicData) -> None:
        """Name, once, a charge or spin that the host was not told to read."""
        for name, usual in (("charge", (0,)), ("spin", (0, 1))):
            stated = atoms.info.get(name, 0)
            if stated not in usual and stated != int(data[name]) and name not in self._told:
                log.warning(
                    "%s states %s %s, which the model does not get: add `a2g_args: {r_data_keys: [charge, spin]}` to "
                    "the data set",
                    atoms.info["hint_source"],
                    name,
                    stated,
                )
                self._told.add(name)

    def _complete(self, data: AtomicData, source: str) -> AtomicData:
        """NaN for the targets a structure lacks: samples of one batch must have the same keys."""
        for name, shape in (("energy", (1,)), ("forces", data.pos.shape), ("stress", (1, 3, 3))):
            if name not in data:
                data[name] = data.pos.new_full(shape, float("nan"))
                if name not in self._told:
                    level = logging.INFO if name == "stress" else logging.WARNING
                    log.log(level, "%s has no %s: such structures are left out of its loss and errors", source, name)
                self._told.add(name)
        return data


def _tensor(name: str, values: ndarray, data: AtomicData) -> torch.Tensor:
    """A drawn array as a tensor; floating-point numbers in the precision of the positions."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if len(tensor) != len(data.pos):
        raise ConfigError(f"a plugin drew label {name!r} with {len(tensor)} rows for {len(data.pos)} atoms")
    return tensor.to(data.pos.dtype) if tensor.is_floating_point() else tensor


def hessian_datasets(dataset: ConcatDataset) -> list[HessianAseDBDataset]:
    """Our datasets inside the host's concatenation.

    Raises
    ------
    ConfigError
        If one of them is of another kind: all samples of a batch need the same keys.
    """
    found = []
    for name, part in zip(dataset.dataset_names, dataset.datasets, strict=True):
        base = getattr(part, "dataset", part)
        if not isinstance(base, HessianAseDBDataset):
            raise ConfigError(
                f"dataset {name} is a {type(base).__name__}: give all datasets of the run "
                "`format: hint_fairchem.dataset.HessianAseDBDataset` (structures without labels are welcome in it)"
            )
        found.append(base)
    return found


def labelled_flags(dataset: ConcatDataset) -> ndarray:
    """(len(dataset),) whether each sample carries a label."""
    flags, start = [], 0
    for part, base, stop in zip(dataset.datasets, hessian_datasets(dataset), dataset.cumulative_sizes, strict=True):
        mine = base.labelled[np.asarray(part.indices)]
        flags.append(mine[np.arange(stop - start) % len(mine)])
        start = stop
    return np.concatenate(flags)


def stored_labels(dataset: ConcatDataset, index: int) -> dict[str, ndarray]:
    """Stored label of sample ``index`` of the concatenation."""
    which, inner = dataset._get_dataset_and_sample_index(index)
    part = dataset.datasets[which]
    return part.dataset.stored_labels(int(part.indices[inner]))
