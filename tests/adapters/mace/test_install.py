"""What the adapter refuses before MACE starts, and what it hands to the plugins."""

import argparse
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
from ase.build import molecule
from ase.units import Hartree

pytest.importorskip("mace")
pytestmark = pytest.mark.mace

from helpers.mace import manager_with  # noqa: E402
from helpers.structures import label_with_emt, molecules  # noqa: E402
from helpers.training import HINT, environment, train, write_data  # noqa: E402
from mace.data.utils import KeySpecification, config_from_atoms  # noqa: E402

from hint_mace import install  # noqa: E402
from hint_mace.data import read_into, require_numbers, take_labels  # noqa: E402
from hint_mace.session import Session  # noqa: E402
from hint_plugins.labels.hessian_label import HessianLabel, LabelError  # noqa: E402
from hint_plugins.storage.store import write_structures  # noqa: E402
from hint_plugins.training.sampler import HeterogeneousBatchSampler  # noqa: E402

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


@pytest.mark.parametrize(
    ("module", "owner", "method"),
    [
        ("mace.data.lmdb_dataset", "LMDBDataset", "__getitem__"),
        ("mace.data.hdf5_dataset", "HDF5Dataset", "__getitem__"),
        ("mace.tools.checkpoint", "CheckpointIO", "_get_checkpoint_filename"),
        ("mace.tools.checkpoint", "CheckpointBuilder", "load_checkpoint"),
    ],
)
def test_every_wrapped_method_is_checked_first(monkeypatch, module, owner, method):
    monkeypatch.setattr(getattr(sys.modules[module], owner), method, lambda: None)
    with pytest.raises(install.IncompatibleHostError, match=f"{owner}.{method} has parameters"):
        install.check_host()


def test_uninstall_restores_every_attribute():
    """Modules, classes and what MACE's script imported in the meantime hold the original objects again."""
    code = """
import argparse, inspect, sys
import mace.data, torch, torch.distributed as dist
from hint_mace.install import install
from hint_mace.patching import EXPECTED, check_host

check_host()  # imports all that is wrapped

def attributes():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("mace", "torch", "ase") and hasattr(module, "__dict__"):
            found |= {(name, key): value for key, value in vars(module).items() if callable(value)}
            if name.split(".")[0] == "mace":
                classes = [(key, value) for key, value in vars(module).items() if inspect.isclass(value)]
                found |= {(name, key, k): v for key, owner in classes for k, v in vars(owner).items()}
    return found

before = attributes()
adapter = install(["hint"])
for _, _, original, _ in adapter.patches.record:
    function = inspect.unwrap(getattr(original, "__func__", original))
    assert f"{function.__module__}.{function.__qualname__}" in EXPECTED, function
changed = [key for key, value in attributes().items() if key in before and before[key] is not value]
assert len(changed) >= 20, changed
import mace.cli.run_train as script
from mace.tools import distributed_tools
kept = dist.init_process_group, dist.is_initialized
dist.init_process_group, dist.is_initialized = (lambda *args, **kwargs: None), (lambda: False)
distributed_tools.init_distributed(argparse.Namespace(distributed=True, device="cpu", launcher="torchrun"))
dist.init_process_group, dist.is_initialized = kept
assert script.DDP is not torch.nn.parallel.DistributedDataParallel
adapter.uninstall()
after = attributes()
assert [key for key in before if after.get(key) is not before[key]] == []
assert script.DDP is torch.nn.parallel.DistributedDataParallel
assert script.init_distributed is distributed_tools.init_distributed
assert script.create_error_table is before[("mace.tools.tables_utils", "create_error_table")]
print("done")
"""
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29598"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment(**ranks), capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("done"), done.stderr[-3000:]


def test_a_failed_installation_leaves_nothing_behind(monkeypatch):
    from mace.tools import arg_parser, scripts_utils

    before = arg_parser.build_default_arg_parser, scripts_utils.get_params_options
    monkeypatch.setattr("hint_mace.tables.wrap_tables", lambda adapter: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        install.install(["hint"])
    assert (arg_parser.build_default_arg_parser, scripts_utils.get_params_options) == before


@pytest.mark.parametrize(
    ("module", "name"), [("torch.jit", "load"), ("torch.nn.parallel", "DistributedDataParallel"), ("ase.io", "read")]
)
def test_functions_beside_the_host_are_checked_too(monkeypatch, module, name):
    monkeypatch.setattr(sys.modules[module], name, lambda: None)
    with pytest.raises(install.IncompatibleHostError, match=rf"mace-torch \S+ with \w+ \S+: {module}.{name} has para"):
        install.check_host()


def test_torch_is_left_alone():
    """Data parallelism on CPUs is a matter of MACE's run, not of torch's class."""
    code = (
        "import argparse, sys, mace.data, torch.distributed as dist\n"
        "from torch.nn.parallel import DistributedDataParallel as Torch\n"
        "from hint_mace.install import install\n"
        "before = Torch, Torch.__init__\n"
        "install(['hint'])\n"
        "import mace.cli.run_train as run\n"
        "from mace.tools import distributed_tools as tools\n"
        "assert run.DDP is Torch\n"
        "dist.init_process_group = lambda *a, **k: None\n"
        "dist.is_initialized = lambda: False\n"
        "tools.init_distributed(argparse.Namespace(distributed=True, device='cpu', launcher='torchrun'))\n"
        "from torch.nn.parallel import DistributedDataParallel\n"
        "assert (DistributedDataParallel, DistributedDataParallel.__init__) == before\n"
        "assert run.DDP is not Torch\n"
        "print('done')\n"
    )
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29599"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment(**ranks), capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("done"), done.stderr[-2000:]


def bare_session(flags=(), **options):
    session = Session.__new__(Session)
    session.args = argparse.Namespace(results_dir=".", name="run", **options)
    session.flags, session.model, session.history = list(flags), None, []
    session.epoch, session.step, session.steps_per_epoch = 0, 0, 1
    session.rank, session.world_size = 0, 1
    session.call = {"max_num_epochs": 1}
    return session


@pytest.mark.parametrize("flag", ["enable_cueq", "only_cueq", None])
def test_kernels_without_second_derivatives_are_told_to_the_plugins(flag):
    session = bare_session(**({flag: True} if flag else {}))
    assert session.run().exact_derivatives is (flag is None)


@pytest.mark.parametrize(
    ("installed", "exact"),
    [
        (None, False),
        ("0.5.4", False),
        ("0.6.6", False),
        ("0.6.7", None),
        ("0.6.10", None),
        ("0.7.0rc1", None),
        ("1", None),
    ],
)
def test_openequivariance_is_judged_by_its_version(installed, exact, monkeypatch):
    import hint_mace.kernels as kernels

    def version(name):
        assert name == "openequivariance"
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(kernels, "version", version)
    assert bare_session(enable_oeq=True).run().exact_derivatives is exact
    assert bare_session(enable_oeq=True, enable_cueq=True).run().exact_derivatives is False


def test_engines_are_measured_on_the_largest_labelled_batch_of_the_epoch(monkeypatch):
    flags = [k % 3 == 0 for k in range(20)]
    session = bare_session(flags)
    session.dataset = argparse.Namespace(sizes=[30 if k == 9 else 3 + k for k in range(20)])
    monkeypatch.setattr("hint_mace.examples._batch", lambda session, indices: indices)
    for options in ({}, {"fraction": 0.5}, {"every": 2}):
        session.sampler = HeterogeneousBatchSampler(flags, 4, seed=5, **options)
        session.epoch = 2
        chosen = session.run().labelled_example()
        sampler = HeterogeneousBatchSampler(flags, 4, seed=5, **options)
        sampler.set_epoch(2)
        atoms = [sum(session.dataset.sizes[i] for i in batch if flags[i]) for batch in sampler]
        assert sum(session.dataset.sizes[i] for i in chosen) == max(atoms)
        assert all(flags[i] for i in chosen)
    session.sampler = None
    session.call["train_loader"] = argparse.Namespace(batch_size=2)
    assert session.run().labelled_example() == [0, 3]


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
        ({"hessian_ramp_start": 2, "hessian_ramp_end": 3}, "lies after the end of the run"),
        ({"hessian_weight": "inf"}, "hessian_weight"),
    ],
)
def test_refused_with_a_sentence(tmp_path, options, message):
    write_data(tmp_path)
    done = train(tmp_path, check=False, **HINT | options)
    assert done.returncode == 2, done.stderr[-2000:]
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("positions", np.nan), ("energy", np.inf), ("forces", np.nan), ("energy", "abc")]
)
def test_references_that_are_no_numbers_are_named(name, value):
    atoms = label_with_emt(molecules(1)[0])
    keys = KeySpecification(info_keys={"energy": "REF_energy"}, arrays_keys={"forces": "REF_forces"})
    config = config_from_atoms(atoms, keys)
    require_numbers(config, "train.xyz, frame 0")
    if name == "positions":
        config.positions[1, 2] = value
    else:
        config.properties[name] = np.full_like(config.properties[name], value) if name == "forces" else value
    with pytest.raises(LabelError, match=f"train.xyz, frame 0: {name} is not all finite numbers"):
        require_numbers(config, "train.xyz, frame 0")
    config.property_weights[name] = 0.0
    if name != "positions":
        require_numbers(config, "train.xyz, frame 0")


@pytest.mark.parametrize("value", ["abc", "nan"])
def test_a_structure_without_a_finite_energy_is_named(tmp_path, value):
    write_data(tmp_path)
    text = (tmp_path / "train.xyz").read_text()
    lines = text.splitlines(keepends=True)
    frames = [k for k, line in enumerate(lines) if "REF_energy=" in line]
    lines[frames[2]] = re.sub(r"REF_energy=\S+", f"REF_energy={value}", lines[frames[2]])
    (tmp_path / "train.xyz").write_text("".join(lines))
    done = train(tmp_path, check=False, **HINT)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "train.xyz, frame 2" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("file", ["train.xyz", "train.aselmdb"])
def test_energies_in_another_unit_are_named_once(tmp_path, file):
    write_data(tmp_path)
    frames = []
    for seed in range(6):
        atoms = molecule("CH3OH")
        atoms.rattle(0.05, seed=seed)
        frames.append(label_with_emt(atoms))
        frames[-1].info["REF_energy"] /= Hartree
    write_structures(tmp_path / file, frames)
    write_structures(tmp_path / f"valid_{file}", frames[:1])
    numbers = {"atomic_numbers": "[1,6,7,8,13,29]", "E0s": "{1:0.0,6:0.0,7:0.0,8:0.0,13:0.0,29:0.0}"}
    done = train(tmp_path, **HINT, **numbers, train_file=file, valid_file=f"valid_{file}", max_num_epochs=1)
    told = [line for line in (done.stdout + done.stderr).splitlines() if "the energies are in Hartree" in line]
    assert len(told) == 1
    ratio = re.search(rf"{file}: energies change (\S+) times as much as the forces say", told[0])
    assert float(ratio.group(1)) * Hartree == pytest.approx(1.0, abs=0.02)
