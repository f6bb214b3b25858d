"""Batches when only some structures carry labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class HeterogeneousBatchSampler(Sampler[list[int]]):
    """Batches with a chosen share of labelled structures.

    Every structure is seen once per epoch. Batches that hold labelled structures are spread evenly over the
    epoch, so that the cost of second derivatives comes at a steady rate. The order is a function of
    (seed, epoch) alone: a restarted run, and a run on more processes, sees the same global batches.

    Parameters
    ----------
    labelled
        For each structure, whether it carries a label.
    batch_size
        Structures per batch and process.
    fraction
        Share of labelled structures in a batch that holds any (at least one); None shuffles plainly unless
        ``every`` is given.
    every
        Labelled structures only in every k-th batch, spread evenly over these; more often only when they (or, with
        ``recycle``, too few structures without a label) leave no other way.
    recycle
        Repeat labelled structures within the epoch until every batch has its share; with ``every``, until every
        k-th batch is made of them alone.
    world_size, rank
        Number of processes and which one this is; labelled structures are dealt to them in turn.
    seed
        Of the shuffling.
    drop_last
        Leave out the structures of an incomplete last global batch.

    Raises
    ------
    ValueError
        If there is nothing to sample, or no labelled structure for a share of them.
    """

    def __init__(
        self,
        labelled: Sequence[bool],
        batch_size: int,
        *,
        fraction: float | None = None,
        every: int | None = None,
        recycle: bool = False,
        world_size: int = 1,
        rank: int = 0,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        flags = np.asarray(labelled, dtype=bool)
        if not len(flags):
            raise ValueError("there are no structures to make batches of")
        if (fraction is not None or every is not None) and not flags.any():
            raise ValueError("no structure carries a Hessian label, so no batch can hold a share of them")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in 0..{world_size - 1}")
        if batch_size < 1:
            raise ValueError(f"a batch holds at least one structure, not {batch_size}")
        self.with_label, self.without = np.flatnonzero(flags), np.flatnonzero(~flags)
        self.global_size = batch_size * world_size
        self.fraction, self.every, self.recycle = fraction, every, recycle
        self.world_size, self.rank, self.seed, self.drop_last = world_size, rank, seed, drop_last
        self.epoch = 0
        self._plan = self._make_plan()

    def _make_plan(self) -> np.ndarray:
        """Number of labelled structures in each global batch; -1 everywhere means plain shuffling."""
        size, total = self.global_size, len(self.with_label) + len(self.without)
        rounding = math.floor if self.drop_last else math.ceil
        if self.fraction is None and self.every is None:
            return np.full(max(1, rounding(total / size)), -1)
        labelled = len(self.with_label)
        if self.recycle:
            return self._recycling_plan(size)
        batches = max(1, rounding(total / size))
        if self.every is not None:
            slots = max(1, batches // self.every)
            slots = max(slots, math.ceil(labelled / size))
        else:
            assert self.fraction is not None
            slots = math.ceil(labelled / max(1, round(self.fraction * size)))
        slots = min(slots, batches)
        return _spread(min(labelled, batches * size), slots, batches, size)

    def _recycling_plan(self, size: int) -> np.ndarray:
        """Every batch holds the share, or every k-th is labelled alone; labelled structures repeat as needed."""
        every = self.every or 1
        share = size if self.fraction is None else min(size, max(1, round(self.fraction * size)))
        room = every * size - share
        others = len(self.without)
        if room == 0 and others:
            raise ValueError(
                "batches of labelled structures alone leave no room for the others: lower the fraction, or put "
                "labelled structures into every second batch at most"
            )
        slots = max(math.ceil(len(self.with_label) / share), math.ceil(others / room) if room else 1)
        # no more batches without labels than structures to fill them: an empty batch is no step
        plain = math.ceil(max(0, others - slots * (size - share)) / size)
        return _spread(slots * share, slots, slots + plain, size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.global_batches():
            mine = batch[self.rank :: self.world_size]
            if not mine:  # a process must never run dry while others still have a batch
                mine = [batch[self.rank % len(batch)]]
            yield mine

    def global_batches(self) -> list[list[int]]:
        """Batches of all processes together, in order; rank r takes every world_size-th entry from r on."""
        rng = np.random.default_rng([self.seed & (2**63 - 1), self.epoch])
        size = self.global_size
        if self._plan[0] < 0:
            order = rng.permutation(np.concatenate([self.with_label, self.without]))
            return [order[size * b : size * (b + 1)].tolist() for b in range(len(self._plan))]
        needed = int(self._plan.sum())
        rounds = max(1, -(-needed // len(self.with_label)))
        labelled = np.concatenate([rng.permutation(self.with_label) for _ in range(rounds)])[:needed]
        others = rng.permutation(self.without)
        batches, used, taken = [], 0, 0
        for share in self._plan:
            room = size - share
            batch = np.concatenate([labelled[used : used + share], others[taken : taken + room]])
            used, taken = used + share, taken + room
            batches.append(batch.tolist())
        return batches


def _spread(items: int, slots: int, batches: int, size: int) -> np.ndarray:
    """Deal ``items`` over ``slots`` of ``batches`` that lie as far from each other as they can."""
    plan = np.zeros(batches, dtype=int)
    where = np.floor((np.arange(slots) + 0.5) * batches / slots).astype(int)
    counts = np.full(slots, items // slots)
    counts[: items % slots] += 1
    plan[where] = np.minimum(counts, size)
    return plan
