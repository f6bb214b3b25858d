"""Labelled sub-batches and replicas give the forces of the structures they were cut from."""

import pytest
import torch
from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch
from helpers.structures import crystals, molecules

from hint_fairchem.checks import inner_model
from hint_fairchem.graphs import ForceOutputs, Forces, labelled_graphs, replicate, select
from hint_plugins.config import ConfigError


@pytest.fixture
def batch():
    structures = [*molecules(3), *crystals(1)]
    data = [AtomicData.from_ase(atoms, task_name="mol", target_dtype=torch.float64) for atoms in structures]
    return atomicdata_list_to_batch(data)


@pytest.fixture
def model(make_run):
    run = make_run(start=False)
    return inner_model(run.unit.model).double().train()


OUTPUTS = ForceOutputs([("forces", "forces", frozenset(["mol"]))])


def test_select_and_replicate_keep_the_forces(model, batch):
    whole = model(batch.clone())["forces"]["forces"]
    keep = torch.tensor([False, True, False, True])
    sub = select(batch, keep)
    assert sub.natoms.tolist() == batch.natoms[keep].tolist()
    copies = Forces(model, sub, OUTPUTS)(sub.pos.expand(3, -1, -1).clone())
    expected = whole[keep[batch.batch]]
    for forces in copies:
        torch.testing.assert_close(forces, expected, rtol=1e-10, atol=1e-12)


def test_given_edges_are_cut_and_shifted(batch):
    structures = [
        AtomicData.from_ase(a, r_edges=True, max_neigh=50, external_graph_method="nvidia") for a in molecules(3)
    ]
    data = atomicdata_list_to_batch(structures)
    sub = select(data, torch.tensor([True, False, True]))
    alone = atomicdata_list_to_batch([structures[0], structures[2]])
    assert torch.equal(sub.edge_index, alone.edge_index)
    twice = replicate(sub, sub.pos.expand(2, -1, -1))
    again = atomicdata_list_to_batch([structures[0], structures[2]] * 2)
    for key in ("edge_index", "batch", "natoms", "nedges", "atomic_numbers", "cell"):
        assert torch.equal(twice[key], again[key]), key


def test_each_structure_gets_the_forces_of_its_dataset(batch):
    batch.dataset = ["a", "b", "a", "b"]
    outputs = {"a_forces": {"forces": torch.full_like(batch.pos, 1.0)}, "b_forces": {"forces": -batch.pos}}
    both = ForceOutputs([("a_forces", "forces", frozenset("a")), ("b_forces", "forces", frozenset("b"))])
    forces = both(outputs, batch)
    of_b = torch.tensor([False, True, False, True])[batch.batch]
    assert torch.equal(forces[of_b], -batch.pos[of_b])
    assert (forces[~of_b] == 1.0).all()


def test_existing_graph_is_used_when_all_are_labelled(model, batch):
    batch.hessian_loss = torch.zeros(4, dtype=torch.float64)
    batch.hint_labels = [
        {"drawn_probes": torch.zeros(n, 1, 3).double(), "drawn_products": torch.zeros(n, 1, 3).double()}
        for n in batch.natoms.tolist()
    ]
    forces = model(batch)["forces"]["forces"]
    assert labelled_graphs(model, batch, OUTPUTS, forces=forces).view.graph is not None
    batch.hessian_loss[1] = torch.nan
    batch.hint_labels[1] = {}
    cut = labelled_graphs(model, batch, OUTPUTS, forces=forces)
    assert cut.view.graph is None
    assert list(cut.sizes) == [int(batch.natoms[g]) for g in (0, 2, 3)]
    del batch.hint_labels[0]["drawn_probes"]
    with pytest.raises(ConfigError, match="'drawn_probes' was drawn for 2 of 3 labelled structures"):
        labelled_graphs(model, batch, OUTPUTS, forces=forces)
    batch.hessian_loss[:] = torch.nan
    assert labelled_graphs(model, batch, OUTPUTS, forces=forces) is None


def test_evaluation_mode_keeps_the_graph_and_the_modes(model, batch):
    model.eval()
    modes = [m.training for m in model.modules()]
    data = select(batch, torch.ones(4, dtype=torch.bool))
    with torch.no_grad():
        forces = Forces(model, data, OUTPUTS)(data.pos[None].clone())
    assert forces.requires_grad
    assert [m.training for m in model.modules()] == modes
