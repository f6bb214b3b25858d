"""Energies of the elements: fitted, kept in the run's files as numbers, missed when they are not there."""

import logging

import numpy as np
import pytest
from ase import Atoms
from hydra.utils import instantiate
from omegaconf import OmegaConf

from hint_fairchem.references import fitted, keep_numbers, with_numbers
from hint_plugins.config import ConfigError
from hint_plugins.storage.store import read_structures, write_structures

ENERGY = {1: -13.6, 6: -1030.0, 8: -2041.0}


@pytest.fixture
def totals(tmp_path):
    """Structures whose energies are sums over elements."""
    frames = [Atoms("H2"), Atoms("CO"), Atoms("OH2"), Atoms("CH4"), Atoms("CO2")]
    for atoms in frames:
        atoms.positions[:, 0] = np.arange(len(atoms))
        atoms.info["REF_energy"] = sum(ENERGY[z] for z in atoms.numbers)
    write_structures(tmp_path / "a.aselmdb", frames[:3])
    write_structures(tmp_path / "b.aselmdb", frames[3:])
    return [str(tmp_path / "a.aselmdb"), str(tmp_path / "b.aselmdb")]


def test_sums_over_elements_are_found(totals):
    for source in (totals, [totals[:1], totals[1:]]):
        numbers = fitted(source).element_references
        for z, energy in ENERGY.items():
            assert numbers[z].item() == pytest.approx(energy, abs=1e-8)
        assert (numbers[[2, 7, 92]].abs() < 1e-8).all()


def test_no_energies(tmp_path):
    write_structures(tmp_path / "none.aselmdb", [Atoms("H")])
    with pytest.raises(ConfigError, match=r"no structure of .*none\.aselmdb has an energy"):
        fitted(str(tmp_path / "none.aselmdb"))


def test_the_runs_config_gets_the_numbers(totals, tmp_path):
    entry = {"_target_": "hint_fairchem.references.fitted", "src": totals}
    config = {"tasks": [{"name": "energy", "element_references": entry}, {"name": "forces"}], "run": {"again": entry}}
    OmegaConf.save(OmegaConf.create(config), tmp_path / "config.yaml")
    keep_numbers(tmp_path / "config.yaml")
    kept = OmegaConf.load(tmp_path / "config.yaml")
    assert "hint_fairchem" not in OmegaConf.to_yaml(kept)
    for node in (kept.tasks[0].element_references, kept.run.again):
        np.testing.assert_array_equal(instantiate(node).element_references, fitted(totals).element_references)
    plain = {"tasks": [{"name": "forces"}], "n": 3}
    assert with_numbers(plain) == plain


@pytest.mark.parametrize("references", [True, False])
def test_total_energies_without_references_are_named(make_run, stores, tmp_path, caplog, references):
    frames = list(read_structures(stores.train))
    for atoms in frames:
        atoms.info["REF_energy"] += sum(-500.0 * z for z in atoms.numbers)
    write_structures(tmp_path / "totals.aselmdb", frames)
    options = [] if references else ["tasks.0.element_references=null"]
    run = make_run(f"train_data={tmp_path / 'totals.aselmdb'}", "+hint.hessian_selftest=false", *options)
    data = next(iter(run.runner.train_dataloader))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            run.unit.model(data.clone())
    said = [r.getMessage() for r in caplog.records if "eV per atom" in r.getMessage()]
    assert len(said) == (0 if references else 1)
    assert all("hint_fairchem.references.fitted" in message for message in said)
