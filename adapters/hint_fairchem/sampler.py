"""Batches of bounded size when only some structures carry labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from fairchem.core.datasets.mt_concat_dataset import ConcatDataset
from fairchem.core.datasets.samplers.max_atom_distributed_sampler import (
    MaxAtomDistributedBatchSampler,
    get_batches,
)

from hint_fairchem.dataset import labelled_flags
from hint_fairchem.options import no_unknown, read_block
from hint_plugins.config import ConfigError

_KEYS = ["dataset", "max_atoms", "num_replicas", "rank", "seed", "shuffle", "drop_last", "min_atoms", "hint"]


class HessianBatchSampler(MaxAtomDistributedBatchSampler):
    """``MaxAtomDistributedBatchSampler`` that gives labelled structures their share of a batch.

    With ``hint.hessian_batch_fraction`` f, the atoms of labelled structures fill at most f of the batches that
    hold any (at least one structure); with ``hint.hessian_every`` k, only every k-th batch holds any;
    ``hint.hessian_recycle`` repeats them until every batch (every k-th) has its share. Without these it is the
    host's sampler. Batches are composed once, as the host does; the order is a function of (seed, epoch).
    Labelled batches are spread evenly over the epoch and come at the same step on every process, so that none
    waits for another's Hessians.

    Parameters
    ----------
    dataset, max_atoms, num_replicas, rank, seed, shuffle, drop_last, min_atoms
        As in the host's class.
    hint
        The ``hint:`` block.

    Raises
    ------
    ConfigError
        If a share is asked for and no structure is labelled, or a recycled share leaves no room.
    """

    def __init__(
        self,
        dataset: ConcatDataset,
        max_atoms: int,
        num_replicas: int,
        rank: int,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = False,
        min_atoms: int = 0,
        hint: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> None:
        no_unknown("HessianBatchSampler", unknown, _KEYS)
        self.hint = read_block(hint)
        self.config = self.hint.config
        self.plain = self.config.hessian_batch_fraction is None and self.config.hessian_every is None
        super().__init__(dataset, max_atoms, num_replicas, rank, seed, shuffle, drop_last, min_atoms)

    def _prepare_batches(self) -> list[list[int]]:
        if self.plain:
            return super()._prepare_batches()
        order = np.random.default_rng(self.seed).permutation(len(self.dataset))
        natoms = np.asarray(self.dataset.get_metadata("natoms", order.tolist()))
        flags = labelled_flags(self.dataset)
        fits = natoms <= self.max_atoms
        with_label, without = order[flags[order] & fits], order[~flags[order] & fits]
        if not len(with_label):
            raise ConfigError(
                f"no structure of at most {self.max_atoms} atoms carries a Hessian label, so no batch can hold a share"
            )
        sizes = np.zeros(len(order), dtype=np.int64)
        sizes[order] = natoms
        chunks = self._labelled_chunks(with_label, sizes, int(sizes[without].sum()))
        batches, rest = self._fill(chunks, without, sizes)
        self.labelled_batches = len(batches)
        if len(rest):
            batches += get_batches(sizes[rest], rest, self.max_atoms, self.min_atoms)[0]
        return [[int(i) for i in batch] for batch in batches]

    def _labelled_chunks(self, indices: np.ndarray, sizes: np.ndarray, other_atoms: int) -> list[list[int]]:
        """Groups of labelled structures, one for each batch that holds any."""
        total, largest = int(sizes[indices].sum()), int(sizes[indices].max())
        every = self.config.hessian_every or 1
        if self.config.hessian_batch_fraction is not None:
            budget = math.floor(self.config.hessian_batch_fraction * self.max_atoms)
        elif self.config.hessian_recycle:
            budget = self.max_atoms
        else:
            slots = max(1, math.ceil((total + other_atoms) / self.max_atoms) // every)
            budget = math.ceil(total / slots)
        budget = min(self.max_atoms, max(budget, largest))
        chunks = [list(chunk) for chunk in get_batches(sizes[indices], indices, budget, 0)[0]]
        if not self.config.hessian_recycle:
            return chunks
        room = every * self.max_atoms - budget
        if room <= 0 and other_atoms:
            raise ConfigError(
                "batches of labelled structures alone leave no room for the others: lower hessian_batch_fraction, or "
                "leave hessian_recycle out"
            )
        needed = math.ceil(other_atoms / room) if room > 0 else 0
        return [chunks[k % len(chunks)] for k in range(max(len(chunks), needed))]

    def _fill(
        self, chunks: list[list[int]], others: np.ndarray, sizes: np.ndarray
    ) -> tuple[list[list[int]], np.ndarray]:
        """Top the labelled groups up with other structures; give the batches and what is left over."""
        if self.config.hessian_every:
            return [list(chunk) for chunk in chunks], others
        used, batches = 0, []
        for chunk in chunks:
            room = self.max_atoms - int(sizes[chunk].sum())
            first = used
            while used < len(others) and sizes[others[used]] <= room:
                room -= sizes[others[used]]
                used += 1
            batches.append([*chunk, *others[first:used]])
        return batches, others[used:]

    def __iter__(self) -> Iterator[list[int]]:
        if self.plain:
            yield from super().__iter__()
            return
        yield from (self.all_batches[i] for i in self._order()[self.rank :: self.num_replicas][self.start_iter :])

    def _order(self) -> list[int]:
        """Batches of all processes: consecutive groups of ``num_replicas`` make one step."""
        rng = np.random.default_rng([self.seed, self.epoch])
        shuffled = rng.permutation if self.shuffle else np.array
        ours = list(shuffled(np.arange(self.labelled_batches)))
        others = list(shuffled(np.arange(self.labelled_batches, len(self.all_batches))))
        size, steps = self.num_replicas, self.num_samples
        slots = min(steps, math.ceil(len(ours) / size))
        special = set(np.floor((np.arange(slots) + 0.5) * steps / slots).astype(int).tolist())
        order: list[int] = []
        for step in range(steps):
            first, second = (ours, others) if step in special else (others, ours)
            for _ in range(size):
                source = first or second
                order.append(int(source.pop() if source else order[len(order) % len(self.all_batches)]))
        return order
