"""What the adapter refuses before MACE starts, and what it hands to the plugins."""

import argparse
import sys

import numpy as np
import pytest

pytest.importorskip("mace")
pytestmark = pytest.mark.mace

from helpers.mace import manager_with  # noqa: E402
from helpers.structures import label_with_emt, molecules  # noqa: E402
from helpers.training import HINT, train, write_data  # noqa: E402
from mace.data.utils import KeySpecification, config_from_atoms  # noqa: E402

from hint_mace import install  # noqa: E402
from hint_mace.data import read_into, take_labels  # noqa: E402
from hint_mace.session import Session  # noqa: E402
from hint_plugins.labels.hessian_label import HessianLabel, LabelError  # noqa: E402
from hint_plugins.labels.store import write_structures  # noqa: E402

HA_BOHR2 = 97.17364


def test_a_host_of_another_shape_is_named(monkeypatch):
    install.check_host()
    monkeypatch.setattr(sys.modules["mace.tools.train"], "train", lambda model: None)
    with pytest.raises(install.IncompatibleHostError, match=r"mace-torch .*train\.train has parameters \('model',\)"):
        install.check_host()
    with pytest.raises(SystemExit) as left:
        install.install_or_exit(["hint"])
    assert left.value.code == 2


def test_the_oldest_host_lacks_the_process_group_function(monkeypatch):
    install.check_host()
    monkeypatch.delattr(sys.modules["mace.tools.distributed_tools"], "init_distributed")
    install.check_host()
    monkeypatch.delattr(sys.modules["mace.data.utils"], "load_from_xyz")
    with pytest.raises(install.IncompatibleHostError, match="load_from_xyz is missing"):
        install.check_host()


@pytest.mark.parametrize("flag", ["enable_cueq", "only_cueq", "enable_oeq", None])
def test_kernels_without_second_derivatives_are_told_to_the_plugins(flag):
    session = Session.__new__(Session)
    session.args = argparse.Namespace(results_dir=".", name="run", **({flag: True} if flag else {}))
    session.flags, session.model, session.history = [], None, []
    session.epoch, session.step, session.steps_per_epoch = 0, 0, 1
    session.rank, session.world_size = 0, 1
    session.call = {"max_num_epochs": 1}
    assert session.run().exact_derivatives is (flag is None)


def in_hartree(atoms):
    """Projections in Ha/Bohr^2: only the forces can tell."""
    n = len(atoms)
    z = np.random.default_rng(0).choice([-1.0, 1.0], (4, 3 * n))
    h = atoms.info.pop("REF_hessian").reshape(3 * n, 3 * n)
    turned = HessianLabel.projections(z, z @ h / HA_BOHR2, n)
    turned.to_info(atoms.info)
    return atoms


def test_labels_are_held_to_the_forces_of_the_chosen_key():
    manager, _ = manager_with()
    good, bad = (label_with_emt(molecules(5, seed=3)[4]) for _ in range(2))
    keys = KeySpecification(info_keys={"energy": "REF_energy"}, arrays_keys={"forces": "dft_forces"})
    for atoms in (good, bad):
        atoms.info["hint_source"] = "train.xyz, frame 0"
        atoms.arrays["dft_forces"] = atoms.arrays.pop("REF_forces")
        atoms.arrays["REF_forces"] = np.ones_like(atoms.positions)  # of another method
    assert take_labels(read_into(config_from_atoms(good, keys), good, manager))
    with pytest.raises(LabelError, match="frame 0"):
        read_into(config_from_atoms(in_hartree(bad), keys), bad, manager)


def test_bad_label_in_a_database_is_named(tmp_path):
    write_data(tmp_path)
    frames = [label_with_emt(a) for a in molecules(6)]
    wrong = frames[4].info["REF_hessian"].copy()
    wrong[1] += 100.0
    frames[4].info["REF_hessian"] = wrong
    write_structures(tmp_path / "train.aselmdb", frames)
    write_structures(tmp_path / "valid.aselmdb", frames[:4])
    done = train(
        tmp_path, check=False, **HINT, train_file="train.aselmdb", valid_file="valid.aselmdb",
        atomic_numbers="[1,6,7,8]",
        E0s="{1:0.0,6:0.0,7:0.0,8:0.0}",
    )  # fmt: skip
    assert done.returncode == 2
    assert "train.aselmdb" in done.stderr
    assert "structure 4" in done.stderr
    assert "asymmetric" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "AlphaNet", "enable_cueq": True}, "--enable_cueq is for MACE's own models"),
        ({"hessian_ramp_start": 1.5, "hessian_ramp_end": None}, "give an end, or begin earlier"),
    ],
)
def test_refused_with_a_sentence(tmp_path, options, message):
    write_data(tmp_path)
    done = train(tmp_path, check=False, **HINT | options)
    assert done.returncode == 2, done.stderr[-2000:]
    assert message in done.stderr
    assert "Traceback" not in done.stderr
