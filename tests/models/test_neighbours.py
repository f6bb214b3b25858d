"""The neighbour list is complete for any cell, and refuses what is not a structure."""

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.geometry import complete_cell
from hypothesis import assume, given, settings
from hypothesis import strategies as st

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
    assert batch.n_graphs == 3
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_search_equals_cpu_search():
    atoms = bulk("PdH", "rocksalt", a=4.09) * (2, 1, 1)
    host, device = graph_from_atoms(atoms, 5.0), graph_from_atoms(atoms, 5.0, device="cuda").to("cpu")
    assert host.edge_index.shape == device.edge_index.shape
    assert torch.allclose(host.shifts.sum(0), device.shifts.sum(0))
