"""Labels through fairchem's dataset: every kind, fresh in training, fixed in validation, checked."""

import numpy as np
import pytest
import torch
from helpers.structures import label_with_emt, molecules

from hint_fairchem.dataset import HessianAseDBDataset, hessian_datasets, labelled_flags
from hint_plugins.config import ConfigError
from hint_plugins.labels.hessian_label import HessianLabel, LabelError
from hint_plugins.labels.store import write_structures


def dataset(path, **hint):
    return HessianAseDBDataset({"src": str(path), "hint": hint})


def test_products_are_those_of_the_label(stores):
    data = dataset(stores.train, hessian_num_probes=3)
    data.set_epoch(0)
    for index, atoms in enumerate(stores.train_set):
        sample = data[index]
        label = HessianLabel.from_info(atoms.info, len(atoms))
        if label is None:
            assert torch.isnan(sample["hessian_loss"]).all()
            assert sample["hessian_probes"].numel() == 0
            continue
        z = sample["hessian_probes"].double().permute(1, 0, 2).reshape(3, -1).numpy()
        hz = sample["hessian_products"].double().permute(1, 0, 2).reshape(3, -1).numpy()
        assert sample["hessian_loss"].item() == 0.0
        np.testing.assert_allclose(hz, z @ label.products.T, rtol=1e-5, atol=1e-4)


def test_columns_and_projections(tmp_path):
    atoms = label_with_emt(molecules(1)[0])
    full = HessianLabel.from_info(atoms.info, len(atoms)).products
    columns, projected = atoms.copy(), atoms.copy()
    HessianLabel.columns([0, 4], full[[0, 4]]).to_info(columns.info)
    z = np.random.default_rng(0).standard_normal((4, len(full)))
    HessianLabel.projections(z, z @ full, len(atoms)).to_info(projected.info)
    write_structures(tmp_path / "kinds.aselmdb", [columns, projected])
    data = dataset(tmp_path / "kinds.aselmdb", hessian_num_probes=2)
    assert data.labelled.tolist() == [True, True]
    for index in range(2):
        sample = data[index]
        probes = sample["hessian_probes"].double().permute(1, 0, 2).reshape(2, -1).numpy()
        products = sample["hessian_products"].double().permute(1, 0, 2).reshape(2, -1).numpy()
        np.testing.assert_allclose(products, probes @ full, rtol=1e-5, atol=1e-3)


def test_misspelt_block_is_named(stores):
    with pytest.raises(ConfigError, match="unknown key 'hnt' of a data set: did you mean 'hint'"):
        HessianAseDBDataset({"src": str(stores.train), "hnt": {"hessian_num_probes": 2}})


def test_labels_are_held_to_the_stored_forces(tmp_path):
    """Projections in Ha/Bohr^2: only the forces can tell."""
    atoms = label_with_emt(molecules(5, seed=3)[4])
    n = len(atoms)
    z = np.random.default_rng(0).choice([-1.0, 1.0], (4, 3 * n))
    h = atoms.info.pop("REF_hessian").reshape(3 * n, 3 * n)
    HessianLabel.projections(z, z @ h / 97.17364, n).to_info(atoms.info)
    write_structures(tmp_path / "a.aselmdb", [atoms])
    with pytest.raises(LabelError, match="structure 0"):
        dataset(tmp_path / "a.aselmdb")[0]


def test_probes_are_fresh_in_training_and_fixed_in_validation(stores):
    first, second = dataset(stores.train, seed=1), dataset(stores.train, seed=1)
    fixed = first[0]["hessian_probes"]
    first.set_epoch(0)
    epoch0 = first[0]["hessian_probes"]
    first.set_epoch(1)
    assert not torch.equal(epoch0, first[0]["hessian_probes"])
    second.set_epoch(0)
    assert torch.equal(epoch0, second[0]["hessian_probes"])
    other = dataset(stores.train, seed=2)
    assert torch.equal(fixed, other[0]["hessian_probes"])
    other.set_epoch(0)
    assert not torch.equal(epoch0, other[0]["hessian_probes"])


def test_loader_processes_see_the_epoch(make_run):
    run = make_run("runner.train_dataloader.num_workers=1", start=False)
    loader = run.runner.train_dataloader
    first = hessian_datasets(loader.dataset)[0]
    seen = []
    for epoch in (0, 1):
        first.set_epoch(epoch)
        loader.batch_sampler.set_epoch_and_start_iteration(0, 0)
        seen.append(torch.cat([batch["hessian_probes"] for batch in loader]))
    assert not torch.equal(*seen)


def test_flags_follow_the_concatenation(make_run, stores):
    run = make_run(start=False)
    concat = run.runner.train_dataloader.dataset
    flags = labelled_flags(concat)
    assert flags.sum() == sum("REF_hessian" in atoms.info for atoms in stores.train_set)
    for index, flag in enumerate(flags):
        assert bool(torch.isfinite(concat[index]["hessian_loss"])) == flag


def test_bad_label_is_named_or_dropped(tmp_path):
    atoms = label_with_emt(molecules(1)[0])
    atoms.info["REF_hessian"] = atoms.info["REF_hessian"].copy()
    atoms.info["REF_hessian"][1] += 50.0
    write_structures(tmp_path / "bad.aselmdb", [atoms])
    with pytest.raises(LabelError, match=r"bad\.aselmdb, structure 0 .*asymmetric"):
        dataset(tmp_path / "bad.aselmdb")[0]
    dropping = dataset(tmp_path / "bad.aselmdb", hessian_on_bad_label="drop")
    assert torch.isnan(dropping[0]["hessian_loss"]).all()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"hessian_wieght": 0.1}, "did you mean hessian_weight"),
        ({"sede": 1}, "did you mean seed"),
        ({"hessian_engine": "revers"}, "unknown hessian_engine 'revers'"),
        ({"hessian_weight": -1}, "hessian_weight"),
        ({"seed": "a"}, "hint.seed"),
    ],
)
def test_misspelt_options_are_named(stores, block, message):
    with pytest.raises(ConfigError, match=message):
        dataset(stores.train, **block)
