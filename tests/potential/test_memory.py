"""Batches that fit: nothing lost, nothing done twice, halved when memory runs out."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from helpers.pairs import Pairs
from hypothesis import given
from hypothesis import strategies as st

from hint_plugins.curvature.engines import FiniteDifference, replicate, reverse, vmap
from hint_plugins.potential import Potential
from hint_plugins.potential.backends.energy_models import EnergyModelBackend
from hint_plugins.potential.memory import MemoryBudget, is_out_of_memory, run_in_batches, structure_cost
from hint_plugins.potential.products import copies, exact_engine

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
    def work(chosen):
        if 1 in chosen:
            raise MemoryError
        return ["batch"] * len(chosen)

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


class Allocator:
    """A GPU's memory: a workspace that the first work allocates for good, then so many bytes a unit of cost."""

    total, workspace, unit = 80 << 30, 40 << 20, 20_000

    def __init__(self, monkeypatch):
        self.allocated = self.peak = self.others = 0
        self.sizes, self.failures = [], 0
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device=None: self.allocated)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device=None: self.allocated)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: self.peak)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device=None: setattr(self, "peak", 0))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (self.free, self.total))
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    @property
    def free(self):
        return self.total - self.others - self.allocated

    @property
    def half(self):
        """Cost of a batch that takes half of the free memory."""
        return 0.5 * self.free / self.unit

    def run(self, costs, budget, **options):
        """Batches in which the items were done."""
        self.sizes = []

        def work(chosen):
            self.allocated, self.workspace = self.allocated + self.workspace, 0
            need = int(self.unit * sum(costs[k] for k in chosen))
            if need > self.free:
                self.failures += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            self.peak = max(self.peak, self.allocated + need)
            self.sizes.append(len(chosen))
            return chosen

        assert sorted(k for k, _ in run_in_batches(costs, work, budget, **options)) == list(range(len(costs)))
        return self.sizes


CRYSTALS = [32 + 32 * 60.0] * 512


@pytest.mark.parametrize("first", [None, 9.0, 122.0], ids=["nothing", "water", "two-atom cell"])
def test_a_small_first_batch_does_not_limit_what_follows(monkeypatch, first):
    """Its workspace of 40 MiB once left a later ensemble of crystals in batches of 4 for the rest of the run."""
    gpu, budget = Allocator(monkeypatch), MemoryBudget(torch.device("cuda"))
    if first is not None:
        gpu.run([first], budget)
    assert len(gpu.run(CRYSTALS, budget)) <= 4
    assert gpu.run(CRYSTALS, budget) == [256, 256]
    assert gpu.failures == 0


def test_a_batch_grows_step_by_step(monkeypatch):
    """An item that says nothing about the memory of the others."""
    gpu, budget = Allocator(monkeypatch), MemoryBudget(torch.device("cuda"))
    gpu.workspace = gpu.unit = 0
    gpu.run([1.0], budget)
    gpu.unit = 40 * Allocator.unit
    gpu.run([4.0] * 100, budget)
    gpu.run([100.0] * 100, budget)
    assert max(gpu.run(CRYSTALS, budget)) == int(gpu.half / CRYSTALS[0])
    assert gpu.failures == 0


def test_the_limit_follows_the_memory_that_is_free(monkeypatch):
    gpu, budget = Allocator(monkeypatch), MemoryBudget(torch.device("cuda"))
    assert gpu.run(CRYSTALS, budget)[-2] == 256
    gpu.others = 76 << 30  # another program takes nearly all of it
    shrunk = gpu.run(CRYSTALS, budget)
    assert 0 < gpu.failures <= 3
    assert max(shrunk) <= gpu.free / gpu.unit / CRYSTALS[0]
    failures = gpu.failures
    assert max(gpu.run(CRYSTALS, budget)) == int(gpu.half / CRYSTALS[0])
    assert gpu.failures == failures, "what did not fit once is not tried again"
    gpu.others = 0  # and ends
    assert max(gpu.run(CRYSTALS, budget)) == 256


def test_batches_shrink_before_memory_runs_out(monkeypatch):
    """Items of the same estimated cost that take ever more memory."""
    gpu, budget = Allocator(monkeypatch), MemoryBudget(torch.device("cuda"))
    gpu.run(CRYSTALS, budget)
    for factor in (2, 4, 8, 16):
        gpu.unit = factor * Allocator.unit
        gpu.run(CRYSTALS, budget)
    assert gpu.failures == 0
    assert max(gpu.sizes[1:]) <= gpu.half / CRYSTALS[0]


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


def short_of_memory(engine, most: int, tried: list):
    """An engine that runs out of memory with more than so many products."""

    def products(view, probes, create_graph=True):
        tried.append(len(probes))
        if len(probes) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return engine(view, probes, create_graph)

    return products


@pytest.mark.parametrize("most", [1, 3, 7])
def test_products_that_do_not_fit_are_made_in_smaller_parts(most):
    atoms = molecule("CH3OH")
    vectors = np.random.default_rng(0).standard_normal((18, 18))
    exact = Potential.load(Pairs(), "cpu")
    potential, tried = Potential.load(Pairs(), "cpu"), []
    potential.backend.engine = short_of_memory(vmap, most, tried)
    potential._budgets["hessians"].limit = 1e9
    np.testing.assert_allclose(potential.hvp(atoms, vectors), exact.hvp(atoms, vectors), atol=1e-11)
    failed = [count for count in tried if count > most]
    assert 0 < len(failed) <= 5
    assert sum(tried) == 18 + sum(failed), "what was done once is not done again"
    tried.clear()
    np.testing.assert_allclose(potential.hessian(atoms), exact.hessian(atoms), atol=1e-11)
    assert max(tried) <= most, "what did not fit once is not tried again"
    assert potential.calls.products == 18


@pytest.mark.parametrize("work", ["hvp", "hessian"])
def test_what_does_not_fit_at_all_is_done_by_differences_or_refused(work, monkeypatch, caplog):
    atoms, vectors = molecule("CH3OH"), np.eye(18)
    expected = Potential.load(Pairs(), "cpu").hessian(atoms)

    def find(potential):
        return potential.hvp(atoms, vectors) if work == "hvp" else potential.hessian(atoms)

    potential = Potential.load(Pairs(), "cpu")
    potential.backend.engine = short_of_memory(vmap, 0, [])
    for _ in range(2):
        np.testing.assert_allclose(find(potential), expected, atol=1e-6)
    told = [record.getMessage() for record in caplog.records if record.name == "hint_plugins.potential.products"]
    assert len(told) == 1
    assert "structure 0 (CH4O, 6 atoms) do not fit into the memory of cpu" in told[0]
    monkeypatch.setattr(FiniteDifference, "__call__", staticmethod(short_of_memory(vmap, 0, [])))
    with pytest.raises(
        MemoryError, match=r"structure 0 \(CH4O, 6 atoms\).* central difference .* memory of cpu; choose"
    ):
        find(potential)


def test_other_errors_of_an_engine_pass():
    potential = Potential.load(Pairs(), "cpu")

    def wrong(view, probes, create_graph=True):
        raise RuntimeError("shapes do not fit")

    potential.backend.engine = wrong
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        potential.hvp(molecule("H2O"), np.ones(9))


@pytest.mark.parametrize("engine", [vmap, replicate, reverse, copies])
def test_whole_hessians_of_a_batch_are_joined_as_memory_permits(engine):
    """Many small structures in one batch, large ones alone; a batch that fails is taken apart."""
    structures = [molecule(name) for name in ("H2O", "C6H6", "H2O", "CH4", "H2", "C6H6", "CH3OH", "H2O")]
    expected = [Potential.load(Pairs(), "cpu").hessian(atoms) for atoms in structures]
    batches = []

    class Counted(EnergyModelBackend):
        def view(self, structures):
            batches.append(len(structures))
            if sum(len(atoms) for atoms in structures) > 12:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().view(structures)

    potential = Potential(Counted(Pairs(), "pairs", engine=engine))
    potential._budgets["hessians"].limit = 1e9
    for found, hessian in zip(potential.hessians(structures), expected, strict=True):
        np.testing.assert_allclose(found, hessian, atol=1e-11)
    assert max(batches) > 2
    assert potential.calls.hessians == len(structures)


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


def test_the_engine_suits_the_device():
    assert exact_engine(CPU) is reverse
    assert exact_engine(CPU, vmap) is vmap
    assert exact_engine(torch.device("cuda"), vmap) is copies
    model = Pairs()
    model.cpu_engine = "vmap"
    assert Potential.load(model, "cpu").backend.engine is vmap
