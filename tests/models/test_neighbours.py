"""The neighbour list is complete for any cell, and refuses what is not a structure."""

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.geometry import complete_cell
from helpers.devices import DEVICES
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from hint_plugins.models import graph_from_atoms, neighbour_list

SLOW_BUT_SURE = settings(max_examples=40, deadline=None)


def brute_force(positions, cell, pbc, cutoff):
    """Every (i, j, offset) within the cutoff, by trying all images that could reach."""
    cell = complete_cell(np.where(np.asarray(pbc)[:, None], cell, 0.0))
    inverse = np.linalg.inv(cell)
    reach = cutoff * np.linalg.norm(inverse, axis=0) + np.ptp(positions @ inverse, axis=0)
    ranges = [range(-int(np.ceil(r)), int(np.ceil(r)) + 1) if p else (0,) for r, p in zip(reach, pbc, strict=True)]
    pairs = set()
    for offset in itertools.product(*ranges):
        vectors = positions[None] - positions[:, None] + np.array(offset) @ cell
        distance = np.linalg.norm(vectors, axis=-1)
        for i, j in zip(*np.nonzero((distance <= cutoff) & (distance > 1e-9)), strict=True):
            pairs.add((int(i), int(j), *offset))
    return pairs, cell


@SLOW_BUT_SURE
@given(
    seed=st.integers(0, 2**32 - 1),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    spread=st.sampled_from([1.0, 4.0, 10.0]),
    size=st.sampled_from([1.5, 2.5, 4.0]),
    open_rows_zero=st.booleans(),
)
def test_complete_for_any_cell(seed, pbc, spread, size, open_rows_zero):
    rng = np.random.default_rng(seed)
    cell = rng.normal(size=(3, 3)) * size + 1.5 * np.eye(3)
    assume(abs(np.linalg.det(cell)) > 0.1 * np.prod(np.linalg.norm(cell, axis=1)))
    positions = rng.normal(size=(rng.integers(1, 5), 3)) * spread
    cutoff = rng.uniform(1.0, 4.0)
    if open_rows_zero:
        cell[~np.array(pbc)] = 0.0
    expected, lattice = brute_force(positions, cell, pbc, cutoff)
    edges, shifts = neighbour_list(positions, cutoff, cell, pbc, min_distance=1e-9)
    offsets = np.rint(shifts.numpy() @ np.linalg.inv(lattice)).astype(int)
    found = [(int(i), int(j), *o.tolist()) for (j, i), o in zip(edges.T, offsets, strict=True)]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert (edges[1].diff() >= 0).all()


def test_unwrapped_atoms_keep_their_neighbours():
    hydride = bulk("PdH", "rocksalt", a=4.09)
    moved = hydride.copy()
    moved.positions[1] += 3 * hydride.cell[0] - 2 * hydride.cell[2]
    lengths = []
    for atoms in (hydride, moved):
        graph = graph_from_atoms(atoms, 5.0).validate()
        source, centre = graph.edge_index
        lengths.append((graph.positions[source] - graph.positions[centre] + graph.shifts).norm(dim=1).sort()[0])
    assert torch.allclose(*lengths, atol=1e-12)


def test_batch_of_molecule_slab_crystal_matches_the_parts():
    parts = [molecule("H2O"), fcc111("Pd", (1, 1, 2), a=3.9, vacuum=5.0), bulk("Pd", a=3.9)]
    batch = graph_from_atoms(parts, 4.0).validate()
    assert batch.num_graphs == 3
    singles = [graph_from_atoms(p, 4.0) for p in parts]
    assert batch.edge_index.shape[1] == sum(g.edge_index.shape[1] for g in singles)
    assert batch.cell is not None
    assert (batch.cell[0] == 0).all()
    assert torch.equal(batch.batch_index, torch.tensor([0, 0, 0, 1, 1, 2]))


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, 0]]), "0 and 1 are 0 Angstrom apart"),
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, np.nan]]), "atom 1 is not finite"),
        (Atoms("H2", positions=[[0, 0, 0], [4, 0, 0]], cell=[4, 4, 4], pbc=True), "apart"),
        (Atoms("H", positions=[[0, 0, 0]], cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], pbc=True), "no volume"),
        (Atoms("H", positions=[[0, 0, 0]], cell=[1, 0, 1], pbc=True), "no volume"),
        (Atoms(), "N > 0"),
    ],
)
def test_bad_structures_are_named(atoms, message):
    with pytest.raises(ValueError, match=message) as error:
        graph_from_atoms([molecule("H2O"), atoms], 3.0)
    assert "structure 1" in str(error.value)


def test_empty_list_is_refused():
    with pytest.raises(ValueError, match="empty"):
        graph_from_atoms([], 3.0)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, np.inf])
def test_bad_cutoff_is_refused(cutoff):
    with pytest.raises(ValueError, match="cutoff"):
        neighbour_list(np.zeros((1, 3)), cutoff)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_graph_on_a_device_is_the_one_of_the_list(device, dtype):
    """Every field, on any device and in any dtype, against neighbour lists put together by hand."""
    parts = [molecule("H2O"), bulk("PdH", "rocksalt", a=4.09) * (2, 1, 1), Atoms("H", [[1.0, 2.0, 3.0]])]
    graph = graph_from_atoms(parts, 5.0, device, dtype)
    assert graph.positions.device.type == device
    assert graph.positions.dtype == graph.shifts.dtype == dtype
    edges, shifts, start = [], [], 0
    for atoms in parts:
        pairs, offsets = neighbour_list(atoms.positions, 5.0, atoms.cell, atoms.pbc)
        edges.append(pairs + start)
        shifts.append(offsets)
        start += len(atoms)
    assert torch.equal(graph.edge_index.cpu(), torch.cat(edges, dim=1))
    assert torch.equal(graph.shifts.cpu(), torch.cat(shifts).to(dtype))
    assert graph.positions.cpu().numpy() == pytest.approx(np.concatenate([a.positions for a in parts]), rel=1e-7)
    assert graph.numbers.tolist() == [z for a in parts for z in a.numbers]
    assert graph.offsets().tolist() == [0, 3, 7, 8]


def test_a_batch_is_put_together_on_the_host():
    """The tensors of any number of structures are made by the same few operators: none of them can wait for a GPU."""

    class Operators(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.names = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.names.append(str(function))
            return function(*args, **(kwargs or {}))

    made = {}
    for count in (2, 40):
        with Operators() as operators:
            graph_from_atoms(
                [molecule("CH3OH"), *[bulk("PdH", "rocksalt", a=4.09)] * (count - 1)], 3.0, dtype=torch.float32
            )
        made[count] = operators.names
    assert made[2] == made[40]
    assert set(made[2]) <= {"aten._to_copy.default", "aten.lift_fresh.default", "aten.detach.default"}


def test_the_first_overlap_of_a_batch_is_named():
    good, bad = molecule("CH3OH"), molecule("C6H6")
    bad.positions[7] = bad.positions[3] + [0.0, 0.03, 0.0]
    bad.positions[9] = bad.positions[8] + [0.0, 0.02, 0.0]
    alone = Atoms("H", [[0.0, 0.0, 0.0]])  # without an edge, before and after
    with pytest.raises(ValueError, match=r"structure 3: neighbour list: atoms (8 and 9|9 and 8) are 0.02 Angstrom"):
        graph_from_atoms([good, alone, alone, bad, alone, bad], 3.0)
