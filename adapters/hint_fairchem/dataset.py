"""ASE databases with Hessian labels."""

from __future__ import annotations

import difflib
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
from hint_plugins.labels.hessian_label import SUFFIXES

#: Key of a sample that says whether it carries a label (0) or not (NaN): the target of the Hessian task.
TARGET = "hessian_loss"
#: Per-atom arrays (N, m, 3) of labelled samples; of length 0 in the others.
ARRAYS = ("hessian_probes", "hessian_products")
#: Keys of ``row.data`` in the store that every host reads.
STORED = "hessian"


class HessianAseDBDataset(AseDBDataset):
    """``AseDBDataset`` whose samples carry probes ``z`` and products ``H z``, drawn anew every epoch.

    In a config: ``format: hint_fairchem.dataset.HessianAseDBDataset`` and ``hint: ${hint}``; everything
    else is as for ``ase_db``. Labels are read from ``row.data`` under ``hint.hessian_key`` or, as
    ``hint label`` writes them, under ``hessian`` (whole, columns or projections).

    Raises
    ------
    ConfigError
        For misspelt options.
    LabelError
        When a sample with a bad label is read (``hint.hessian_on_bad_label: drop`` leaves the label out).
    """

    def __init__(self, config: dict, atoms_transform: Callable[..., Atoms] = apply_one_tags) -> None:
        self.dbs: list[Any] = []  # the host closes them, also when the options are refused
        near = [key for key in config if key != "hint" and difflib.get_close_matches(key, ["hint"], cutoff=0.7)]
        if near:
            raise ConfigError(f"unknown key {near[0]!r} of a data set: did you mean 'hint'?")
        self.hint = read_block(config.get("hint"))
        super().__init__(config, atoms_transform)
        self._from_ase: Callable[..., AtomicData] = self.a2g  # type: ignore[has-type]
        self.a2g = self._to_data  # type: ignore[assignment]
        # Shared with loader processes: which epoch's probes to draw, -1 for validation.
        self._epoch = torch.full((1,), -1, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int | None) -> None:
        """Choose the probes: those of a training epoch, or (None) the fixed ones of validation."""
        self._epoch.fill_(-1 if epoch is None else epoch)

    def get_atoms(self, idx: int) -> Atoms:
        """The structure with its labels in ``info``."""
        atoms = super().get_atoms(idx)
        key = self.hint.config.hessian_key
        if not any(key + suffix in atoms.info for suffix in SUFFIXES):
            for suffix in SUFFIXES:
                if STORED + suffix in atoms.info:
                    atoms.info[key + suffix] = np.asarray(atoms.info[STORED + suffix])
        atoms.info["hint_source"] = f"{self.config.get('src')}, structure {idx} ({atoms.get_chemical_formula()})"
        atoms.info["hint_index"] = int(idx)
        return atoms

    @cached_property
    def labelled(self) -> ndarray:
        """Which structures carry a label: field ``has_hessian`` of ``metadata.npz``, else read from every row."""
        if "has_hessian" in self._metadata:
            return np.asarray(self._metadata["has_hessian"], dtype=bool)
        key = self.hint.config.hessian_key
        keys = {stem + suffix for stem in (key, STORED) for suffix in SUFFIXES}
        flags = []
        for database, ids in zip(self.dbs, self.db_ids, strict=True):
            for row_id in ids:
                data = database._get_row(row_id).data
                flags.append(isinstance(data, dict) and any(len(data.get(k, ())) for k in keys))
        return np.array(flags, dtype=bool)

    def stored_labels(self, idx: int) -> dict[str, ndarray]:
        """What the label of a structure holds (empty when it has none)."""
        return self._read(self.get_atoms(idx))

    def _read(self, atoms: Atoms) -> dict[str, ndarray]:
        out: dict[str, ndarray] = {}
        forces = atoms.calc.results.get("forces") if atoms.calc is not None else None
        for answer in self.hint.hook.read_labels(atoms=atoms, forces=forces):
            out.update(answer or {})
        return out

    def _to_data(self, atoms: Atoms, **options: Any) -> AtomicData:
        data = self._from_ase(atoms, **options)
        stored = self._read(atoms)
        drawn: dict[str, ndarray] = {}
        epoch = int(self._epoch)
        if stored:
            answers = self.hint.hook.draw_labels(
                labels=stored,
                num_atoms=len(atoms),
                epoch=None if epoch < 0 else epoch,
                index=atoms.info["hint_index"],
            )
            for answer in answers:
                drawn.update(answer or {})
        if set(drawn) - set(ARRAYS):
            raise ConfigError(f"label arrays {sorted(set(drawn) - set(ARRAYS))} of a plugin do not ride in fairchem")
        data[TARGET] = torch.tensor([0.0 if drawn else float("nan")], dtype=data.pos.dtype)
        for name in ARRAYS:
            values = drawn.get(name)
            data[name] = (
                torch.empty(0, dtype=data.pos.dtype) if values is None else torch.from_numpy(values).to(data.pos)
            )
        return data


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
