from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hint_plugins.training.sampler import HeterogeneousBatchSampler

shapes = st.tuples(st.integers(1, 12), st.integers(0, 40), st.integers(1, 8))


@settings(max_examples=150, deadline=None)
@given(
    shape=shapes,
    fraction=st.one_of(st.none(), st.floats(0.05, 1.0)),
    seed=st.integers(0, 9),
    world=st.integers(1, 3),
    epoch=st.integers(0, 3),
)
def test_every_structure_once_per_epoch(shape, fraction, seed, world, epoch):
    labelled, others, size = shape
    flags = [True] * labelled + [False] * others
    sampler = HeterogeneousBatchSampler(flags, size, fraction=fraction, seed=seed, world_size=world)
    sampler.set_epoch(epoch)
    batches = sampler.global_batches()
    assert Counter(i for batch in batches for i in batch) == Counter(range(len(flags)))
    assert all(0 < len(batch) <= size * world for batch in batches)
    assert len(batches) == len(sampler)
    ranks = [
        list(HeterogeneousBatchSampler(flags, size, fraction=fraction, seed=seed, world_size=world, rank=r))
        for r in range(world)
    ]
    assert len({len(r) for r in ranks}) == 1, "all processes make the same number of steps"
    assert all(batch for rank in ranks for batch in rank), "no process runs dry"


@settings(max_examples=60, deadline=None)
@given(shape=shapes, every=st.integers(1, 5), seed=st.integers(0, 9))
def test_every_kth_batch_sees_all_once(shape, every, seed):
    labelled, others, size = shape
    flags = [True] * labelled + [False] * others
    sampler = HeterogeneousBatchSampler(flags, size, every=every, seed=seed)
    batches = sampler.global_batches()
    assert Counter(i for batch in batches for i in batch) == Counter(range(len(flags)))
    holding = sum(any(flags[i] for i in batch) for batch in batches)
    assert holding <= max(len(batches) // every, -(-labelled // size), 1)


def test_fraction_groups_labels_and_spreads_the_batches():
    flags = np.arange(1000) < 10
    sampler = HeterogeneousBatchSampler(flags, 10, fraction=0.5)
    counts = [sum(flags[i] for i in batch) for batch in sampler]
    assert sorted(counts)[-2:] == [5, 5]
    assert sum(counts) == 10
    where = np.flatnonzero(counts)
    assert list(where) == [25, 75]


def test_recycling_fills_every_batch():
    flags = np.arange(40) < 3
    sampler = HeterogeneousBatchSampler(flags, 8, fraction=0.25, recycle=True)
    batches = list(sampler)
    assert all(sum(flags[i] for i in batch) == 2 for batch in batches)
    seen = Counter(i for batch in batches for i in batch)
    assert all(seen[i] == 1 for i in range(3, 40))
    assert max(seen[i] for i in range(3)) - min(seen[i] for i in range(3)) <= 1


@settings(max_examples=400, deadline=None)
@given(
    shape=shapes,
    fraction=st.one_of(st.none(), st.floats(0.01, 1.0)),
    every=st.one_of(st.none(), st.integers(1, 9)),
    recycle=st.booleans(),
    world=st.integers(1, 4),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 3),
)
def test_every_setting_gives_whole_epochs(shape, fraction, every, recycle, world, seed, epoch):
    """What holds for every combination of options, or the combination is refused by name."""
    labelled, others, size = shape
    flags = np.arange(labelled + others) < labelled
    settings = {"fraction": fraction, "every": every, "recycle": recycle, "seed": seed, "world_size": world}
    asked = fraction is not None or every is not None
    global_size = size * world
    share = global_size if fraction is None else min(global_size, max(1, round(fraction * global_size)))
    if recycle and asked and others and (every or 1) * global_size == share:
        with pytest.raises(ValueError, match="leave no room"):
            HeterogeneousBatchSampler(flags, size, **settings)
        return
    ranks = [HeterogeneousBatchSampler(flags, size, rank=r, **settings) for r in range(world)]
    for sampler in ranks:
        sampler.set_epoch(epoch)
    batches = ranks[0].global_batches()
    seen = Counter(i for batch in batches for i in batch)
    counts = [[seen[i] for i in range(labelled)], [seen[i] for i in range(labelled, labelled + others)]]
    assert set(counts[1]) <= {1}, "structures without a label come once"
    assert min(counts[0]) >= 1
    assert max(counts[0]) - min(counts[0]) <= (1 if recycle and asked else 0)
    assert all(0 < len(batch) <= size * world for batch in batches)
    assert len(batches) == len(ranks[0])
    assert all(len(list(sampler)) == len(batches) and all(sampler) for sampler in ranks)
    holding = [sum(flags[batch]) for batch in batches if any(flags[batch])]
    if every is not None and fraction is None:
        assert len(holding) <= max(-(-len(batches) // every), -(-labelled // (size * world)))
    if recycle and asked:
        assert len(set(holding)) == 1, "every batch that holds labels holds its share"


def test_every_kth_batch_of_recycled_labels():
    flags = np.arange(103) < 3
    batches = list(HeterogeneousBatchSampler(flags, 4, every=3, recycle=True))
    holding = [b for b, batch in enumerate(batches) if any(flags[batch])]
    assert len(batches) == 38
    assert len(holding) == 13
    assert all(all(flags[batches[b]]) for b in holding)
    assert max(np.diff(holding)) <= 3


def test_labelled_structures_are_dealt_evenly_to_processes():
    flags = np.arange(64) < 16
    shares = []
    for rank in range(2):
        sampler = HeterogeneousBatchSampler(flags, 8, fraction=0.5, world_size=2, rank=rank)
        shares.append([sum(flags[i] for i in batch) for batch in sampler])
    assert shares[0] == shares[1]


def test_order_depends_on_seed_and_epoch_only():
    flags = [True, False] * 10
    make = lambda seed=0: HeterogeneousBatchSampler(flags, 4, fraction=0.5, seed=seed)  # noqa: E731
    sampler = make()
    first = list(sampler)
    assert list(sampler) == first == list(make())
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(make(1)) != first


def test_global_batches_do_not_depend_on_the_number_of_processes():
    flags = np.arange(40) % 3 == 0
    one = HeterogeneousBatchSampler(flags, 8, fraction=0.5, seed=3)
    two = [HeterogeneousBatchSampler(flags, 4, fraction=0.5, seed=3, world_size=2, rank=r) for r in range(2)]
    for whole, left, right in zip(one, *two, strict=True):
        assert sorted(whole) == sorted(left + right)


def test_drop_last_leaves_out_the_rest():
    sampler = HeterogeneousBatchSampler([True] * 5 + [False] * 16, 4, fraction=0.5, drop_last=True)
    assert [len(batch) for batch in sampler] == [4] * 5


def test_impossible_requests_are_named():
    with pytest.raises(ValueError, match="no structures"):
        HeterogeneousBatchSampler([], 4)
    with pytest.raises(ValueError, match="no structure carries"):
        HeterogeneousBatchSampler([False], 4, fraction=0.5)
    with pytest.raises(ValueError, match="rank 2"):
        HeterogeneousBatchSampler([True], 4, world_size=2, rank=2)
    with pytest.raises(ValueError, match="at least one structure"):
        HeterogeneousBatchSampler([True], 0)
    with pytest.raises(ValueError, match="lower the fraction"):
        HeterogeneousBatchSampler([True, False], 4, fraction=1.0, recycle=True)
