"""Frozen atoms: they reach the host, and losses and errors are those of the free ones."""

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase_db_backends.aselmdb import LMDBDatabase
from fairchem.core.units.mlip_unit.mlip_unit import compute_loss
from helpers.fairchem_run import steps
from helpers.structures import label_with_emt, molecules

from hint_plugins.labels.hessian_label import HessianLabel
from hint_plugins.storage.store import write_structures

OPTIONS = ("hint.hessian_weight=0.5", "+hint.hessian_schedule=constant", "+hint.hessian_engine=reverse")
FROZEN = [0, 1]


def write(path, spoil=0.0):
    """Formaldehyde with two frozen atoms, as ASE writes it; ``spoil`` is added to what concerns frozen atoms."""
    atoms = label_with_emt(molecules(5)[4])
    forces, hessian = atoms.arrays["REF_forces"].copy(), atoms.info["REF_hessian"].reshape(12, 12).copy()
    forces[FROZEN] += spoil
    hessian[:6, :6] += spoil * np.kron(np.array([[1, -1], [-1, 1]]), np.eye(3))  # keeps the sum rule
    bare = atoms.copy()
    bare.set_constraint(FixAtoms(FROZEN))
    bare.calc = SinglePointCalculator(bare, energy=atoms.info["REF_energy"], forces=forces)
    path.mkdir()
    with LMDBDatabase(path / "frozen.aselmdb", use_lock_file=False) as database:
        database._write(bare, {}, {"hessian": hessian.reshape(-1)})
    return path / "frozen.aselmdb"


@pytest.fixture
def losses(make_run, tmp_path, monkeypatch):
    """Losses of the host's tasks, and Hessian metrics, of a run on one structure."""
    monkeypatch.setattr(
        "hint_plugins.training.label_arrays.check_label", lambda *_: type("Report", (), {"reasons": []})
    )

    def compute(name, spoil=0.0):
        path = write(tmp_path / name, spoil)
        run = make_run(*OPTIONS, f"train_data={path}", f"valid_data={path}")
        data = next(iter(run.runner.train_dataloader))
        assert data.fixed.tolist() == [1, 1, 0, 0]
        terms = {key: float(value) for key, value in compute_loss(run.unit.tasks, run.unit.model(data), data).items()}
        steps(run, 1)
        return terms, run.callback.history[-1]

    return compute


def test_what_concerns_frozen_atoms_changes_nothing(losses):
    (first, metrics), (second, others) = losses("plain"), losses("spoilt", 0.3)
    assert first["hessian_loss"] > 0
    assert first == pytest.approx(second, rel=1e-5)
    assert metrics == pytest.approx(others, rel=1e-4)
    assert all(np.isfinite(list(metrics.values())))


def write_block(path, free, part):
    """Formaldehyde without constraints, labelled with a block, or whole with an active region; by this package."""
    atoms = label_with_emt(molecules(5)[4])
    index = np.flatnonzero(np.repeat(free, 3))
    if part == "active":
        atoms.arrays["active"] = free.astype(int)
    else:
        block = atoms.info["REF_hessian"].reshape(12, 12)[np.ix_(index, index)]
        HessianLabel.block(index, block, 4).to_info(atoms.info)
    path.mkdir()
    write_structures(path / "block.aselmdb", [atoms])
    return path / "block.aselmdb"


@pytest.mark.parametrize("kind", ["frozen", "block", "active"])
def test_hessian_loss_is_that_of_the_free_block(make_run, tmp_path, kind):
    """Of frozen atoms; of a label that knows no more; of an active region."""
    free = ~np.isin(np.arange(4), FROZEN)
    path = write(tmp_path / "plain") if kind == "frozen" else write_block(tmp_path / "plain", free, kind)
    part = ("+hint.hessian_part=active",) if kind == "active" else ()
    run = make_run(*OPTIONS, *part, f"train_data={path}", f"valid_data={path}", "hint.hessian_num_probes=2")
    data = next(iter(run.runner.train_dataloader))
    model = run.unit.model
    losses = compute_loss(run.unit.tasks, model(data), data)
    (drawn,) = data["hint_labels"]
    z = drawn["drawn_probes"].permute(1, 0, 2)
    assert (z[:, FROZEN] == 0).all()
    step, total = 1e-2, 0.0
    for probe, product in zip(z, drawn["drawn_products"].permute(1, 0, 2), strict=True):
        forces = []
        for sign in (1, -1):
            moved = data.clone()
            moved.pos = data.pos.detach() + sign * step * probe
            forces.append(model(moved)["forces"]["forces"].detach())
        difference = -(forces[0] - forces[1]) / (2 * step) - product
        total += float(difference[2:].square().mean()) / len(z)
    assert float(losses["hessian_loss"]) == pytest.approx(0.5 * total, rel=2e-2)
    assert torch.isnan(drawn["drawn_products"][FROZEN]).all()
