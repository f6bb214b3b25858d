"""Labels through fairchem's dataset: every kind, fresh in training, fixed in validation, checked."""

import numpy as np
import pytest
import torch
from ase.build import molecule
from helpers.structures import crystals, label_with_emt, molecules

from hint_fairchem.dataset import HessianAseDBDataset, hessian_datasets, labelled_flags
from hint_plugins.config import ConfigError
from hint_plugins.labels.hessian_label import HessianLabel, LabelError
from hint_plugins.storage.store import write_structures


def dataset(path, **hint):
    return HessianAseDBDataset({"src": str(path), "hint": hint})


def probes(data):
    return data[0]["hint_labels"]["drawn_probes"]


def test_products_are_those_of_the_label(stores):
    data = dataset(stores.train, hessian_num_probes=3)
    data.set_epoch(0)
    for index, atoms in enumerate(stores.train_set):
        sample = data[index]
        label = HessianLabel.from_info(atoms.info, len(atoms))
        if label is None:
            assert torch.isnan(sample["hessian_loss"]).all()
            assert sample["hint_labels"] == {}
            continue
        z = sample["hint_labels"]["drawn_probes"].double().permute(1, 0, 2).reshape(3, -1).numpy()
        hz = sample["hint_labels"]["drawn_products"].double().permute(1, 0, 2).reshape(3, -1).numpy()
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
        probes = sample["hint_labels"]["drawn_probes"].double().permute(1, 0, 2).reshape(2, -1).numpy()
        products = sample["hint_labels"]["drawn_products"].double().permute(1, 0, 2).reshape(2, -1).numpy()
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
    fixed = probes(first)
    first.set_epoch(0)
    epoch0 = probes(first)
    first.set_epoch(1)
    assert not torch.equal(epoch0, probes(first))
    second.set_epoch(0)
    assert torch.equal(epoch0, probes(second))
    other = dataset(stores.train, seed=2)
    assert torch.equal(fixed, probes(other))
    other.set_epoch(0)
    assert not torch.equal(epoch0, probes(other))


def test_loader_processes_see_the_epoch(make_run):
    run = make_run("runner.train_dataloader.num_workers=1", start=False)
    loader = run.runner.train_dataloader
    first = hessian_datasets(loader.dataset)[0]
    seen = []
    for epoch in (0, 1):
        first.set_epoch(epoch)
        loader.batch_sampler.set_epoch_and_start_iteration(0, 0)
        seen.append(torch.cat([d["drawn_probes"] for batch in loader for d in batch["hint_labels"] if d]))
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


def test_a_data_set_without_options_is_refused(stores):
    with pytest.raises(ConfigError, match=r"add `hint: \$\{hint\}`"):
        HessianAseDBDataset({"src": str(stores.train)})


@pytest.fixture
def two_labels(tmp_path):
    """A structure with its label, and twice its label under another key, in a row as ASE writes it."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase_db_backends.aselmdb import LMDBDatabase

    atoms = label_with_emt(molecules(1)[0])
    bare = atoms.copy()
    bare.calc = SinglePointCalculator(bare, energy=atoms.info["REF_energy"], forces=atoms.arrays["REF_forces"])
    hessian = atoms.info["REF_hessian"]
    with LMDBDatabase(tmp_path / "two.aselmdb", use_lock_file=False) as database:
        database._write(bare, {}, {"hessian": hessian, "other_hessian": 1.01 * hessian})
    return tmp_path / "two.aselmdb", hessian


@pytest.mark.parametrize(("key", "factor"), [("other_hessian", 1.01), ("REF_hessian", 1.0), ("hessian", 1.0)])
def test_the_named_key_is_read(two_labels, key, factor):
    path, hessian = two_labels
    stored = dataset(path, hessian_key=key).stored_labels(0)
    np.testing.assert_allclose(stored["hessian"], factor * hessian)


def test_a_misspelt_key_finds_no_other_label(two_labels):
    data = dataset(two_labels[0], hessian_key="other_hesian")
    assert data.labelled.tolist() == [False]
    assert torch.isnan(data[0]["hessian_loss"]).all()


def test_flags_of_another_key_are_not_those_of_the_metadata(two_labels):
    path, _ = two_labels
    np.savez(path.parent / "metadata.npz", natoms=np.array([3]), has_hessian=np.array([True]))
    assert dataset(path).labelled.tolist() == [True]
    assert dataset(path, hessian_key="other_hesian").labelled.tolist() == [False]


def test_dropped_labels_are_noted_when_flags_are_read(tmp_path):
    good, bad = (label_with_emt(atoms) for atoms in molecules(2))
    bad.info["REF_hessian"] = -bad.info["REF_hessian"] + np.tri(bad.info["REF_hessian"].size, 1)[:, 0] * 300
    write_structures(tmp_path / "two.aselmdb", [good, bad])
    data = dataset(tmp_path / "two.aselmdb", hessian_on_bad_label="drop")
    assert data.labelled.tolist() == [True, False]
    assert data.dropped.tolist() == [0, 1]
    with pytest.raises(LabelError, match="structure 1"):
        _ = dataset(tmp_path / "two.aselmdb").labelled


def test_targets_that_are_missing_are_not_a_number(tmp_path):
    """Molecules without stress and crystals with it are one batch, whichever comes first."""
    from fairchem.core.datasets.atomic_data import atomicdata_list_to_batch

    molecule = label_with_emt(molecules(1)[0])
    crystal = label_with_emt(crystals(1)[0], hessian=False, stress=True)
    del crystal.info["REF_energy"]
    write_structures(tmp_path / "mixed.aselmdb", [molecule, crystal])
    data = dataset(tmp_path / "mixed.aselmdb")
    for order in ((0, 1), (1, 0)):
        batch = atomicdata_list_to_batch([data[k] for k in order])
        first = order.index(0)
        assert torch.isnan(batch.stress[first]).all()
        assert torch.isfinite(batch.stress[1 - first]).all()
        assert torch.isnan(batch.energy).tolist() == [k == 1 for k in order]
        assert torch.isfinite(batch.forces).all()


@pytest.mark.parametrize("read", [True, False])
def test_a_charge_that_is_not_read_is_named(tmp_path, caplog, read):
    frames = [label_with_emt(atoms) for atoms in molecules(2)]
    frames[0].info |= {"total_charge": -0.9999999, "multiplicity": 2}  # as other programs name them
    frames[1].info |= {"charge": -1, "spin": 2}
    write_structures(tmp_path / "ions.aselmdb", frames)
    options = {"a2g_args": {"r_data_keys": ["charge", "spin"]}} if read else {}
    data = HessianAseDBDataset({"src": str(tmp_path / "ions.aselmdb"), "hint": {}, **options})
    samples = [data[0], data[1]]
    assert [(int(sample.charge), int(sample.spin)) for sample in samples] == [(-1 * read, 2 * read)] * 2
    said = [r.getMessage() for r in caplog.records if "which the model does not get" in r.getMessage()]
    assert len(said) == (0 if read else 2)


def test_a_contradicted_charge_is_refused(tmp_path):
    atoms = label_with_emt(molecules(1)[0])
    atoms.info |= {"charge": -1, "total_charge": 1}
    write_structures(tmp_path / "ion.aselmdb", [atoms])
    with pytest.raises(ConfigError, match=r"ion\.aselmdb, structure 0 .* contradicts itself about its charge"):
        dataset(tmp_path / "ion.aselmdb")[0]


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, ""), (1 / 27.2114, "the energies are in Hartree")])
def test_energies_are_judged_by_the_forces(tmp_path, factor, verdict):
    frames = []
    for seed in range(6):
        atoms = molecule("CH3OH")
        atoms.rattle(0.05, seed=seed)
        frames.append(label_with_emt(atoms, hessian=False))
        frames[-1].info["REF_energy"] *= factor
    frames[2].info.pop("REF_energy")
    write_structures(tmp_path / "a.aselmdb", frames)
    found = dataset(tmp_path / "a.aselmdb").energy_verdict()
    assert verdict in found
    assert bool(found) == bool(verdict)
