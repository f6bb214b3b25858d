"""Batches of labelled structures outside the host's own loop: examples and validation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from fairchem.core.common.distutils import get_device_for_local_rank
from fairchem.core.datasets.atomic_data import AtomicData

from hint_fairchem.dataset import TARGET, labelled_flags, stored_labels


def to_dtype(data: AtomicData, dtype: torch.dtype) -> AtomicData:
    """Floating-point tensors of ``data`` in ``dtype``, in place."""
    return data.apply(lambda x: x.to(dtype) if x.is_floating_point() else x)


def example_batch(loader: Any, count: int, dtype: torch.dtype | None = None) -> AtomicData:
    """The first ``count`` labelled structures of the loader's dataset (fewer if there are fewer) on the device.

    Structures whose label is dropped when it is read are passed over.
    """
    data = _batch(loader, np.flatnonzero(labelled_flags(loader.dataset)), count)
    return data if dtype is None else to_dtype(data, dtype)


def largest_labelled_batch(loader: Any) -> AtomicData:
    """The labelled structures of the batch that holds most of their atoms, of those that come next, on the device."""
    labelled = np.flatnonzero(labelled_flags(loader.dataset))
    sizes = dict(zip(labelled.tolist(), loader.dataset.get_metadata("natoms", labelled.tolist()), strict=True))
    batches = [[int(index) for index in batch if int(index) in sizes] for batch in loader.batch_sampler]
    largest = max(batches, key=lambda batch: sum(sizes[index] for index in batch), default=[])
    return _batch(loader, largest or labelled, max(1, len(largest)))


def _batch(loader: Any, indices: Iterable[int], count: int) -> AtomicData:
    """The first ``count`` of the structures whose label is not dropped when it is read."""
    samples = []
    for index in indices:
        sample = loader.dataset[int(index)]
        if torch.isfinite(sample[TARGET]).all():
            samples.append(sample)
        if len(samples) == count:
            break
    if not samples:
        raise ValueError("none of the Hessian labels passed its checks")
    return loader.collate_fn(samples).to(get_device_for_local_rank())


def labelled_batches(loader: Any, rank: int, world_size: int) -> Iterator[tuple[AtomicData, list[dict]]]:
    """This process's share of the labelled structures, in order, with their stored labels.

    Batches keep the atom budget of the loader's sampler.
    """
    mine = np.flatnonzero(labelled_flags(loader.dataset))[rank::world_size]
    budget = getattr(loader.batch_sampler, "max_atoms", 1000)
    samples: list[AtomicData] = []
    stored: list[dict] = []

    def batch() -> tuple[AtomicData, list[dict]]:
        return loader.collate_fn(samples).to(get_device_for_local_rank()), stored

    atoms = 0
    for index in mine:
        sample = loader.dataset[int(index)]
        if not torch.isfinite(sample[TARGET]).all():
            continue
        size = int(sample.natoms)
        if samples and atoms + size > budget:
            yield batch()
            samples, stored, atoms = [], [], 0
        samples.append(sample)
        stored.append(stored_labels(loader.dataset, int(index)))
        atoms += size
    if samples:
        yield batch()
