"""Batches that fit: nothing lost, nothing done twice, halved when memory runs out."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from helpers.pairs import Pairs
from hypothesis import given
from hypothesis import strategies as st

from hint_plugins.batching.memory import MemoryBudget, is_out_of_memory, run_in_batches, structure_cost
from hint_plugins.curvature.engines import FiniteDifference
from hint_plugins.potential import Potential

CPU = torch.device("cpu")


@given(
    costs=st.lists(st.floats(0.1, 100.0), max_size=40),
    capacity=st.floats(100.0, 1000.0),
    limit=st.one_of(st.none(), st.floats(1.0, 1e4)),
    max_size=st.integers(1, 10),
)
def test_every_item_once_whatever_fits(costs, capacity, limit, max_size):
    budget = MemoryBudget(CPU)
    budget.limit = limit
    tried = []

    def work(chosen):
        tried.append(sum(costs[k] for k in chosen))
        if tried[-1] > capacity:
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert len(chosen) <= max_size
        return [costs[k] for k in chosen]

    results = list(run_in_batches(costs, work, budget, max_size=max_size))
    assert sorted(k for k, _ in results) == list(range(len(costs)))
    assert all(costs[k] == value for k, value in results)
    assert sum(cost > capacity for cost in tried) <= 10


def test_a_structure_too_large_alone():
    budget = MemoryBudget(CPU)

    def work(chosen):
        if 1 in chosen:
            raise MemoryError
        return ["batch"] * len(chosen)

    assert dict(run_in_batches([1.0, 5.0, 2.0], work, budget, single=lambda k: f"alone {k}")) == {
        0: "batch",
        1: "alone 1",
        2: "batch",
    }
    with pytest.raises(MemoryError, match="structure 1 does not fit"):
        list(run_in_batches([1.0, 5.0, 2.0], work, MemoryBudget(CPU)))


def test_other_errors_pass():
    def work(chosen):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(run_in_batches([1.0], work, MemoryBudget(CPU)))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_real_failed_allocation_is_recognised():
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_limit_is_measured_from_saved_tensors():
    budget = MemoryBudget(CPU)

    def work():
        x = torch.ones(1000, dtype=torch.float64, requires_grad=True)
        return x.square().sum()

    budget.measured(work, cost=10.0)
    assert budget.limit == pytest.approx(budget._available() / 800, rel=0.2)


def test_cost_grows_with_neighbours():
    small, large = bulk("Cu", cubic=True), bulk("Cu", cubic=True) * 3
    assert structure_cost(large, 5.0) == pytest.approx(27 * structure_cost(small, 5.0))
    edges = 4 * 42 * 1.0  # 42 neighbours within 5 A in copper
    assert structure_cost(small, 5.0) == pytest.approx(edges, rel=0.2)
    assert structure_cost(molecule("H2O"), 5.0) <= 3 + 6
    assert structure_cost(molecule("H2O"), None) == 3


class Greedy(Pairs):
    """Refuses batches of more than so many atoms, and force graphs of more than so many."""

    largest = 12
    largest_graph = 12
    failures = 0

    def forward(self, graph):
        n = len(graph.positions)
        if n > self.largest or (
            torch.is_grad_enabled() and graph.positions.grad_fn is not None and n > self.largest_graph
        ):
            type(self).failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 PiB")
        return super().forward(graph)


def test_potential_survives_out_of_memory():
    structures = [molecule(name) for name in ("CH3OH", "H2O", "C6H6", "CH4", "H2O", "C2H6")]
    reference = Potential.load(Pairs(), "cpu")
    expected, hessians = reference.evaluate(structures), reference.hessians(structures)
    Greedy.failures = 0
    potential = Potential.load(Greedy(), "cpu")
    potential._budgets["forces"].limit = potential._budgets["hessians"].limit = 1e9
    found = potential.evaluate(structures)
    assert Greedy.failures > 0
    np.testing.assert_allclose(found.energies, expected.energies, atol=1e-12)
    for a, b in zip(potential.hessians(structures), hessians, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-11)
    failures = Greedy.failures
    potential.evaluate(structures)
    assert Greedy.failures == failures, "what did not fit once is not tried again"


def test_hessian_that_does_not_fit_is_done_by_finite_differences(monkeypatch):
    atoms = molecule("CH3OH")
    expected = Potential.load(Pairs(), "cpu").hessian(atoms)
    potential = Potential.load(Pairs(), "cpu")

    def full(view, probes, create_graph=True):
        raise torch.OutOfMemoryError("CUDA out of memory")

    potential.backend.engine = full
    found = potential.hessian(atoms)
    assert not isinstance(potential.backend.engine, FiniteDifference)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_ten_thousand_atoms():
    atoms = bulk("Cu", cubic=True) * (14, 14, 13)
    atoms.rattle(0.05, seed=0)
    assert len(atoms) > 10_000
    potential = Potential.load(Pairs(cutoff=3.0), "cpu")
    found = potential.evaluate([atoms, molecule("H2O")], stress=True)
    np.testing.assert_allclose(found.forces[0].sum(axis=0), 0.0, atol=1e-8)
    product = potential.hvp(atoms, np.ones(3 * len(atoms)))
    np.testing.assert_allclose(product, 0.0, atol=1e-8)
