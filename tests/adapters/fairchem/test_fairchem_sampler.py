"""The sampler: every structure once, atom budgets, shares, equal steps on all processes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hint_fairchem import sampler as module
from hint_fairchem.sampler import HessianBatchSampler
from hint_plugins.config import ConfigError


@pytest.fixture(autouse=True)
def _flags(monkeypatch):
    monkeypatch.setattr(module, "labelled_flags", lambda dataset: dataset.flags)


class Sizes:
    def __init__(self, natoms, flags):
        self.natoms, self.flags = np.asarray(natoms), np.asarray(flags, dtype=bool)

    def __len__(self):
        return len(self.natoms)

    def get_metadata(self, attr, indices):
        return self.natoms[indices]


def make(data, ranks=1, rank=0, max_atoms=30, **options):
    hint = {f"hessian_{k}": options.pop(k) for k in ("batch_fraction", "every", "recycle") if k in options}
    return HessianBatchSampler(data, max_atoms, ranks, rank, seed=3, hint=hint, **options)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=8, max_size=60),
    st.sampled_from([{"batch_fraction": 0.4}, {"batch_fraction": 1.0}, {"every": 3}, {}]),
    st.integers(1, 3),
    st.integers(0, 4),
)
def test_every_structure_within_budget_on_equal_steps(items, shares, ranks, epoch):
    natoms, flags = zip(*items, strict=True)
    data = Sizes(natoms, [True, *flags[1:]])
    ranks = min(ranks, len(make(data, **dict(shares)).all_batches))
    parts = [make(data, ranks, rank, **dict(shares)) for rank in range(ranks)]
    batches = []
    for part in parts:
        part.set_epoch_and_start_iteration(epoch, 0)
        mine = list(part)
        assert len(mine) == len(part) == len(parts[0])
        batches += mine
    seen = [i for batch in batches for i in batch]
    assert set(seen) == set(range(len(data)))
    assert len(seen) - len(data) <= sum(sorted((len(b) for b in batches), reverse=True)[: ranks - 1])
    assert all(data.natoms[batch].sum() <= 30 for batch in batches)


def test_share_and_spread():
    rng = np.random.default_rng(0)
    data = Sizes(rng.integers(3, 9, 300), np.arange(300) < 40)
    sampler = make(data, batch_fraction=0.5)
    sampler.set_epoch_and_start_iteration(2, 0)
    batches = list(sampler)
    held = np.array([data.flags[b].any() for b in batches])
    for batch in (b for b in batches if data.flags[b].any()):
        assert data.natoms[[i for i in batch if data.flags[i]]].sum() <= 15
    gaps = np.diff(np.flatnonzero(held))
    assert gaps.max() - gaps.min() <= 1
    assert not make(data, every=5).plain
    thirds = [data.flags[b].any() for b in make(data, every=4)]
    assert abs(np.mean(thirds) - 0.25) < 0.1


def test_all_processes_differentiate_at_the_same_steps():
    data = Sizes(np.full(120, 5), np.arange(120) % 4 == 0)
    parts = [list(make(data, 2, rank, batch_fraction=1.0)) for rank in (0, 1)]
    held = [[data.flags[b].any() for b in part] for part in parts]
    assert sum(a != b for a, b in zip(*held, strict=True)) <= 1


def test_recycling_gives_every_batch_its_share():
    data = Sizes(np.full(200, 5), np.arange(200) < 6)
    batches = list(make(data, batch_fraction=0.34, recycle=True))
    assert all(data.flags[b].any() for b in batches)
    assert {i for b in batches for i in b} == set(range(200))


def test_resume_continues_the_epoch():
    data = Sizes(np.full(60, 5), np.arange(60) % 3 == 0)
    sampler = make(data, batch_fraction=0.5)
    sampler.set_epoch_and_start_iteration(4, 0)
    whole = list(sampler)
    sampler.set_epoch_and_start_iteration(4, 5)
    assert list(sampler) == whole[5:]
    sampler.set_epoch_and_start_iteration(5, 0)
    assert list(sampler) != whole


def test_refusals():
    data = Sizes(np.full(9, 5), np.zeros(9))
    with pytest.raises(ConfigError, match="carries a Hessian label"):
        make(data, batch_fraction=0.5)
    with pytest.raises(ConfigError, match="leave no room"):
        make(Sizes(np.full(9, 5), np.arange(9) < 2), batch_fraction=1.0, recycle=True)
    with pytest.raises(ConfigError, match="did you mean max_atoms"):
        HessianBatchSampler(data, 10, 1, 0, 0, max_atom=3)
