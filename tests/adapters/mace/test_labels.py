"""Labels through MACE's data path."""

import itertools

import numpy as np
import pytest
import torch

pytest.importorskip("mace")
pytestmark = pytest.mark.mace

from helpers.mace import atomic_data, collated, manager_with  # noqa: E402
from helpers.structures import label_with_emt, labelled_set, molecules  # noqa: E402

from hint_mace.data import Collate, stored_labels  # noqa: E402
from hint_plugins.labels.hessian_label import HessianLabel, LabelError  # noqa: E402


@pytest.fixture(scope="module")
def manager():
    return manager_with(hessian_num_probes=3)[0]


def test_labels_in_any_order_survive_the_collate(manager):
    """MACE's own collate drops or breaks on fields that not every structure has."""
    structures = labelled_set(3, every=2)
    for order in itertools.permutations(range(3)):
        batch = collated([structures[i] for i in order], manager)
        assert batch.num_graphs == 3
        assert batch.drawn.sizes == [len(structures[i]) for i in order if i % 2 == 0]
        labels = batch.drawn.tensors("labels")
        z, hz = labels["drawn_probes"], labels["drawn_products"]
        start = 0
        for i in (i for i in order if i % 2 == 0):
            n = len(structures[i])
            h = torch.tensor(structures[i].info["REF_hessian"].reshape(3 * n, 3 * n))
            flat = z[start : start + n].permute(1, 0, 2).reshape(3, -1)
            expected = (flat @ h).view(3, n, 3).permute(1, 0, 2)
            torch.testing.assert_close(hz[start : start + n], expected)
            start += n


def test_the_batch_that_mace_sees_is_the_stock_one(manager):
    from mace.tools.torch_geometric.batch import Batch

    structures = labelled_set(3, every=2)
    ours = collated(structures, manager)
    stock = Batch.from_data_list([atomic_data(a, manager) for a in structures])
    assert sorted(ours.keys) == sorted(stock.keys)
    for key in stock.keys:
        assert torch.equal(ours[key], stock[key]), key


@pytest.mark.parametrize("kind", ["full", "columns", "projections", "block"])
def test_every_kind_of_label_is_read_and_drawn(manager, kind):
    atoms = label_with_emt(molecules(1)[0])
    n = len(atoms)
    h = atoms.info["REF_hessian"].reshape(3 * n, 3 * n)
    if kind == "columns":
        HessianLabel.columns(np.arange(4), h[:4]).to_info(atoms.info)
    elif kind == "projections":
        z = np.random.default_rng(0).choice([-1.0, 1.0], (2, 3 * n))
        HessianLabel.projections(z, z @ h, n).to_info(atoms.info)
    elif kind == "block":
        HessianLabel.block(np.arange(4), h[:4, :4], n).to_info(atoms.info)
    (labels,) = manager.hook.read_labels(atoms=atoms, forces=atoms.arrays["REF_forces"])
    (drawn,) = manager.hook.draw_labels(labels=labels, num_atoms=n, epoch=0, index=0)
    z = drawn["drawn_probes"].transpose(1, 0, 2).reshape(3, -1)
    hz = drawn["drawn_products"].transpose(1, 0, 2).reshape(3, -1)
    known = slice(0, 4) if kind == "block" else slice(None)
    assert np.isfinite(hz).sum() == np.isfinite(hz[:, known]).sum() == hz[:, known].size
    np.testing.assert_allclose(hz[:, known], (z @ h)[:, known], atol=1e-9)


def test_draws_change_with_epoch_and_are_fixed_in_validation(manager):
    data = [(0, atomic_data(labelled_set(1, every=1)[0], manager))]

    def probes(epoch):
        return Collate(manager, epoch).labelled(data).drawn.tensors("labels")["drawn_probes"]

    assert torch.equal(probes(1), probes(1))
    assert not torch.equal(probes(1), probes(2))
    assert torch.equal(probes(None), probes(None))


def spoiled(kind):
    atoms = label_with_emt(molecules(5, seed=3)[4])
    n = len(atoms)
    h = atoms.info["REF_hessian"].reshape(3 * n, 3 * n).copy()
    if kind == "length":
        atoms.info["REF_hessian"] = h.reshape(-1)[:-1]
    elif kind == "nan":
        h[0, 0] = np.nan
        atoms.info["REF_hessian"] = h.reshape(-1)
    elif kind == "asymmetric":
        h[0, 4] += 0.5 * np.abs(h).max()
        atoms.info["REF_hessian"] = h.reshape(-1)
    atoms.info["hint_source"] = "train.xyz, frame 7"
    return atoms


@pytest.mark.parametrize(("kind", "reason"), [("length", "9N"), ("nan", "not finite"), ("asymmetric", "asymmetric")])
def test_bad_labels_are_refused_with_file_frame_and_reason(kind, reason):
    manager, _ = manager_with()
    with pytest.raises(LabelError, match=f"train.xyz, frame 7: .*{reason}.*hessian_on_bad_label drop"):
        manager.hook.read_labels(atoms=spoiled(kind), forces=None)


def test_bad_labels_are_dropped_and_counted_when_asked():
    manager, plugin = manager_with(hessian_on_bad_label="drop")
    assert manager.hook.read_labels(atoms=spoiled("nan"), forces=None) == []
    assert stored_labels(atomic_data(spoiled("nan"), manager)) == {}
    assert plugin.labels.dropped == {"train.xyz, frame 7"}


def test_structures_without_label_carry_none(manager):
    assert stored_labels(atomic_data(labelled_set(1, every=0)[0], manager)) == {}
    assert collated(labelled_set(2, every=0), manager).drawn is None
