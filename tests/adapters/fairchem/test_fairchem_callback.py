"""What the callback reports, keeps and hands on."""

import csv
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.units import Hartree
from helpers.fairchem_run import begin, steps
from helpers.structures import label_with_emt, labelled_set

from hint_fairchem.resume import kept_history
from hint_plugins.hookspecs import hookimpl
from hint_plugins.runs.files import write_csv
from hint_plugins.storage.store import write_structures

QUICK = ("+hint.hessian_selftest=false", "+hint.hessian_engine=reverse")


@pytest.fixture
def spoilt(tmp_path):
    """Six structures, three of them labelled, one of these asymmetric."""
    frames = labelled_set(6, every=2)
    frames[2].info["REF_hessian"] = frames[2].info["REF_hessian"].copy()
    frames[2].info["REF_hessian"][1] += 50.0
    (tmp_path / "spoilt").mkdir()
    write_structures(tmp_path / "spoilt" / "train.aselmdb", frames)
    return tmp_path / "spoilt" / "train.aselmdb"


def messages(caplog):
    return [r.getMessage() for r in caplog.records if "were dropped" in r.getMessage()]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("metadata", [False, True])
def test_dropped_labels_are_counted(make_run, spoilt, caplog, metadata, workers):
    """At the start where every row is read, else after they have been met; also when loader processes meet them."""
    if metadata:
        flags = np.array([True, False] * 3)
        np.savez(spoilt.parent / "metadata.npz", natoms=np.full(6, 5), has_hessian=flags)
    caplog.set_level(logging.INFO)
    loader = "runner.train_dataloader"
    run = make_run(*QUICK, "+hint.hessian_on_bad_label=drop", f"train_data={spoilt}", f"{loader}.num_workers={workers}",
                   start=False)  # fmt: skip
    begin(run)
    said = [r.getMessage() for r in caplog.records if "structures labelled" in r.getMessage()]
    assert any(line == f"mol.train: {3 if metadata else 2} of 6 structures labelled" for line in said)
    expected = "1 Hessian labels failed their checks and were dropped (mol.train 1)"
    assert (expected in messages(caplog)) == (not metadata)
    steps(run, 2)
    assert messages(caplog).count(expected) == 1


def test_energies_in_another_unit_are_named(make_run, tmp_path, caplog):
    frames = []
    for seed in range(6):
        atoms = molecule("CH3OH")
        atoms.rattle(0.05, seed=seed)
        frames.append(label_with_emt(atoms))
        frames[-1].info["REF_energy"] /= Hartree
    write_structures(tmp_path / "hartree.aselmdb", frames)
    run = make_run(*QUICK, f"train_data={tmp_path / 'hartree.aselmdb'}", start=False)
    begin(run)
    said = [r.getMessage() for r in caplog.records if "the energies are in Hartree" in r.getMessage()]
    assert [line.partition(":")[0] for line in said] == ["mol.train"]


def test_parts_share_the_plugins(make_run):
    run = make_run(*QUICK)
    managers = {id(dataset.hint.manager) for _, dataset in run.callback.datasets.datasets}
    assert managers == {id(run.callback.hint.manager)}
    assert [name for name, _ in run.callback.datasets.datasets] == ["mol.train", "mol.val"]


def test_labels_of_other_plugins_ride_along(make_run):
    seen = []

    class Charges:
        @hookimpl
        def draw_labels(self, labels, num_atoms, epoch, index):
            return {"charges": np.arange(num_atoms, dtype=np.int64)}

        @hookimpl
        def loss_terms(self, model, batch, predictions, progress):
            seen.append(batch.labelled.labels["charges"])
            return {"charges": predictions["energy"]["energy"].sum() * 0}

    run = make_run(*QUICK, start=False)
    run.callback.hint.manager.register(Charges(), name="charges")
    begin(run)
    steps(run, 1)
    assert seen[0].dtype == torch.int64
    starts = torch.nonzero(seen[0] == 0).flatten().tolist()
    assert starts[0] == 0
    assert len(starts) >= 1


def test_metrics_of_an_earlier_run_are_continued(make_run, tmp_path):
    """The file of the checkpoint's run gives the rows up to the checkpoint."""
    run = make_run(*QUICK, start=False)
    checkpoint = tmp_path / "earlier" / "checkpoints" / "step_4"
    rows = [{"epoch": 0.5 * k, "step": 2 * k, "hessian_mae": 1.0 / k, "hvp_mae": None} for k in (1, 2, 3)]
    (tmp_path / "earlier" / "results").mkdir(parents=True)
    write_csv(tmp_path / "earlier" / "results" / "hessian_metrics.csv", rows)
    kept = [{"epoch": 0.5, "step": 2, "hessian_mae": 1.0}, {"epoch": 1.0, "step": 4, "hessian_mae": 0.5}]
    assert kept_history(checkpoint, 4) == kept
    assert isinstance(kept_history(checkpoint, 4)[0]["step"], int)
    assert kept_history(tmp_path / "none" / "checkpoints" / "step_4", 4) == []
    begin(run)
    for _ in range(4):
        run.unit.train_progress.increment_step()
    run.callback._take_progress(run.state, run.unit)
    run.callback._restore(SimpleNamespace(lazy_state_location=str(checkpoint)))
    steps(run, 2)
    with open(f"{run.callback._run.directory}/hessian_metrics.csv", newline="") as handle:
        written = list(csv.DictReader(handle))
    assert [row["step"] for row in written] == ["2", "4", "6"]
    assert [row["hessian_mae"] for row in written[:2]] == ["1.0", "0.5"]
