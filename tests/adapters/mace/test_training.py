"""MACE's own commands with ``--plugins hint``: every way in, every mode of training."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("mace")
pytestmark = [pytest.mark.mace, pytest.mark.slow]

from ase.io import read, write  # noqa: E402
from helpers.training import BIN, HINT, SETTINGS, environment, flags, records, train, write_data  # noqa: E402

from hint_plugins.storage.store import write_structures  # noqa: E402

WHOLE = ("hessian_mae", "eigenvalue_mae", "frequency_mae_cm1", "asymmetry", "hvp_mae", "hessian_weight")
#: One engine that differentiates the forces, and one whose copies ride in MACE's own forward pass.
ENGINES = ("vmap", "finite_difference")


@pytest.fixture
def data(tmp_path):
    write_data(tmp_path)
    return tmp_path


def losses(directory, **which):
    return np.array([row["loss"] for row in records(directory, "opt", **which)])


def test_the_command_trains_and_reports(data):
    """The literal command, with self-test, automatic engine, average and second stage."""
    result = train(
        data,
        **HINT
        | {
            "hessian_engine": "auto",
            "hessian_selftest": True,
            "ema": "",
            "swa": "",
            "start_swa": 1,
            "max_num_epochs": 3,
        },
    )
    log = result.stdout + result.stderr
    assert "Plugins: hint (hint-plugins" in log
    assert "4 of 12 training structures carry a Hessian label" in log
    assert "self-test in float64" in log
    assert "HVP engine: " in log
    assert "Epochs done" not in log
    assert re.findall(r"INFO: (\w+ ?\d?): head: Default, hessian_weight", log) == [
        "Initial",
        "Epoch 0",
        "Epoch 1",
        "Epoch 2",
    ]
    rows = records(data, "eval")
    assert all(set(WHOLE) <= set(row) for row in rows)
    assert [row["hessian_weight"] for row in rows] == [0.0, 0.005, 0.01, 0.01]
    assert (data / "results" / "run_hessian.png").stat().st_size > 1000
    for name in ("run.model", "run_stagetwo.model"):
        code = f"import sys, torch, mace; m = torch.load('{name}', weights_only=False); " + (
            "assert not [k for k in sys.modules if k.startswith('hint')]; print(type(m).__name__)"
        )
        loaded = subprocess.run([sys.executable, "-c", code], cwd=data, capture_output=True, text=True, check=False)
        assert "ScaleShiftMACE" in loaded.stdout, loaded.stderr


def test_the_last_tables_hold_the_errors_of_hessians(data):
    """For train, valid and test; those of valid are the ones of the last validation."""
    result = train(data, **HINT | {"max_num_epochs": 1}, test_file="valid.xyz")
    table = {}
    heading = "MAE H / eV / A^2"
    for line in (result.stdout + result.stderr).splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if cells and cells[0] == "config_type":
            names = cells
        elif len(cells) > 4:
            table[cells[0]] = dict(zip(names, cells, strict=True))
    assert set(table) == {"train_Default", "valid_Default", "Default_Default"}
    last = records(data, "eval")[-1]
    columns = {"MAE eigenvalues / eV / A^2": "eigenvalue_mae", "MAE frequencies / cm^-1": "frequency_mae_cm1"}
    for name, key in {heading: "hessian_mae", **columns}.items():
        assert float(table["valid_Default"][name]) == pytest.approx(last[key], rel=1e-3)
        assert table["Default_Default"][name] == table["valid_Default"][name]
        assert float(table["train_Default"][name]) > 0


def test_a_run_that_diverges_stops_with_a_sentence_and_keeps_its_checkpoint(data):
    result = train(data, check=False, **HINT | {"max_num_epochs": 4, "clip_grad": None}, lr=1e200, eval_interval=1)
    assert result.returncode == 1, result.stderr[-2000:]
    assert re.search(r"hint-plugins: Epoch 0: the validation loss is (nan|inf)", result.stderr)
    assert "Traceback" not in result.stderr
    assert not list((data / "checkpoints").glob("*.pt"))


def test_zero_weight_trains_exactly_as_the_plain_loss(data):
    """The sampler, the collate and the wrapped loop change nothing but the added term."""
    train(data, **HINT | {"hessian_weight": 0, "name": "zero"})
    train(data, **HINT | {"hessian_weight": 0, "hessian_num_probes": 5, "name": "again"})
    first, second = losses(data, name="zero"), losses(data, name="again")
    np.testing.assert_array_equal(first, second)
    assert len(first) == 6


#: MACE without any plugin, its training structures in the order of the plugin's batches.
STOCK_IN_ORDER = """
import sys
import mace.tools
from ase.io import read
from hint_plugins.training.sampler import HeterogeneousBatchSampler

loop = sys.modules["mace.tools.train"]  # behind a function of the same name
stock = loop.train_one_epoch
flags = ["REF_hessian" in atoms.info for atoms in read("train.xyz", ":")]

def train_one_epoch(data_loader, epoch, **others):
    sampler = HeterogeneousBatchSampler(flags, data_loader.batch_size, seed=1)
    sampler.set_epoch(epoch)
    order = [index for batch in sampler for index in batch]
    again = type(data_loader)(data_loader.dataset, batch_size=data_loader.batch_size, sampler=order)
    return stock(data_loader=again, epoch=epoch, **others)

loop.train_one_epoch = train_one_epoch
from mace.cli.run_train import main

main()
assert "hint_mace.install" not in sys.modules
"""


@pytest.mark.parametrize("ema", [False, True])
def test_zero_weight_equals_stock_mace(data, ema):
    """To the bit: the same losses, validation errors and parameters as MACE without a plugin."""
    shared = {"ema": "", "ema_decay": 0.9} if ema else {}
    train(data, [sys.executable, "-c", STOCK_IN_ORDER], name="stock", **shared)
    train(data, **HINT | {"hessian_weight": 0, "name": "zero"} | shared)
    assert len(losses(data, name="stock")) == 6
    np.testing.assert_array_equal(losses(data, name="zero"), losses(data, name="stock"))
    for name in ("loss", "rmse_e_per_atom", "rmse_f"):
        stock, zero = ([row[name] for row in records(data, "eval", name=run)] for run in ("stock", "zero"))
        assert zero == stock
    stock, zero = (torch.load(data / f"{run}.model", weights_only=False).state_dict() for run in ("stock", "zero"))
    assert zero.keys() == stock.keys()
    assert all(torch.equal(zero[name], tensor) for name, tensor in stock.items())


def test_zero_weight_equals_the_stock_command(data):
    """MACE's own command and loader; one batch holds all structures, whose order moves the last digits only."""
    shared = {"batch_size": 12, "max_num_epochs": 6}
    train(data, name="stock", **shared)
    train(data, **HINT | {"hessian_weight": 0, "name": "zero"} | shared)
    np.testing.assert_allclose(losses(data, name="zero"), losses(data, name="stock"), rtol=1e-12)
    stock, zero = (torch.load(data / f"{run}.model", weights_only=False).state_dict() for run in ("stock", "zero"))
    for name, tensor in stock.items():
        np.testing.assert_allclose(zero[name], tensor, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("entry", ["module", "alias", "environment", "yaml"])
def test_other_ways_in(data, entry):
    options = dict(HINT)
    command, env = None, {}
    if entry == "module":
        command = [sys.executable, "-m", "mace.cli.run_train"]
    elif entry == "alias":
        command = [str(BIN / "hint"), "mace-train"]
        del options["plugins"]
    elif entry == "environment":
        env = {"HINT_PLUGINS": options.pop("plugins")}
    else:
        (data / "run.yaml").write_text(yaml.safe_dump(options))
        options = {"config": "run.yaml"}
    result = train(data, command, env=env, **options, max_num_epochs=1)
    assert "Hessian label" in result.stdout + result.stderr
    assert "hessian_mae" in records(data, "eval")[-1]


def test_without_plugins_mace_is_untouched(data):
    code = (
        "import sys, mace.cli.run_train, mace.tools, mace.data;"
        "import inspect, torch;"
        "bad = [k for k in sys.modules if k.startswith(('hint_mace', 'hint_plugins', 'pluggy'))];"
        "assert not bad, bad;"
        "objects = [mace.tools.train, mace.tools.check_args, mace.data.config_from_atoms,"
        " mace.data.AtomicData.from_config.__func__, torch.nn.parallel.DistributedDataParallel.__init__];"
        "assert not any(hasattr(o, '__wrapped__') for o in objects)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "mace_run_train"], env=environment(), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    train(data, max_num_epochs=1, name="stock")
    code = "import sys; sys.argv = sys.argv[1:]; from mace.cli.run_train import main; main()"  # no start-up files: -S
    paths = os.pathsep.join(p for p in sys.path if p.endswith("site-packages"))
    words = [
        sys.executable,
        "-S",
        "-c",
        code,
        "mace_run_train",
        *flags({**SETTINGS, "max_num_epochs": 1, "name": "bare"}),
    ]
    subprocess.run(words, cwd=data, env=environment() | {"PYTHONPATH": paths}, check=True, capture_output=True)
    assert list(losses(data, name="stock")) == list(losses(data, name="bare"))
    model = [torch.load(data / f"{n}.model", weights_only=False).state_dict() for n in ("stock", "bare")]
    assert all(torch.equal(a, b) for a, b in zip(*(m.values() for m in model), strict=True))


@pytest.mark.parametrize("ema", [False, True])
def test_kill_and_restart_equals_an_unbroken_run(data, ema):
    options = HINT | {"max_num_epochs": 5, "hessian_ramp_end": 4, "save_all_checkpoints": ""}
    options |= {"ema": "", "ema_decay": 0.9} if ema else {}
    train(data, **options, name="whole")
    words = [str(BIN / "mace_run_train"), *flags({**SETTINGS, **options, "name": "cut", "eval_interval": 1})]
    with (data / "cut.log").open("w") as log:
        process = subprocess.Popen(words, cwd=data, env=environment(), stdout=log, stderr=log)
        deadline = time.monotonic() + 200
        while not list((data / "checkpoints").glob("cut_run-1_epoch-1.pt.hint")):
            assert process.poll() is None, (data / "cut.log").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    train(data, **options, name="cut", restart_latest="")

    def by_epoch(name):
        found = {}
        for row in records(data, "opt", name=name):
            found.setdefault(row["epoch"], []).append(row["loss"])
        return {epoch: values[-3:] for epoch, values in found.items()}

    whole, cut = by_epoch("whole"), by_epoch("cut")
    assert sorted(whole) == sorted(cut) == [0, 1, 2, 3, 4]
    for epoch in (2, 3, 4):
        np.testing.assert_allclose(cut[epoch], whole[epoch], rtol=1e-9)
    weights = [{r["epoch"]: r["hessian_weight"] for r in records(data, "eval", name=n)} for n in ("whole", "cut")]
    assert all(weights[0][e] == weights[1][e] for e in range(5))


@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_equal_one(data, engine):
    """Half the batch on each of two gloo processes gives the same weights."""
    # MACE takes the scale of energies and the number of neighbours from each process's share of the data
    options = HINT | {"hessian_ramp_end": 1, "scaling": "no_scaling", "hessian_engine": engine}
    options |= {"compute_avg_num_neighbors": False, "avg_num_neighbors": 3}
    options |= {"valid_batch_size": 2}  # MACE sums its validation loss over batches: equally many in both runs
    train(data, **options, name="one")
    torchrun = [
        *(str(BIN / "torchrun"), "--nproc_per_node", "2", "--master_port", "29517"),
        str(BIN / "mace_run_train"),
    ]
    train(data, torchrun, **options | {"batch_size": 2, "name": "two", "distributed": "", "launcher": "torchrun"})
    paths = [data / f"checkpoints/{name}_run-1_epoch-1.pt" for name in ("one", "two")]
    models = [torch.load(path, weights_only=False)["model"] for path in paths]
    for name in models[0]:
        if models[0][name].is_floating_point():
            torch.testing.assert_close(models[0][name], models[1][name], rtol=1e-7, atol=1e-9)
    ours, theirs = (records(data, "eval", name=n)[-1] for n in ("one", "two"))
    for key in ("hessian_mae", "hvp_mae", "eigenvalue_mae"):
        assert theirs[key] == pytest.approx(ours[key], rel=1e-6)
    # what the Hessians add to the loss that drives the learning rate; results/*.txt holds MACE's part alone
    added = []
    for name in ("one", "two"):
        rows = {row["epoch"]: row["loss"] for row in records(data, "eval", name=name)}
        added.append(np.subtract(valid_losses(data, name)[-2:], [rows[0], rows[1]]))
    assert added[0].min() > 1e-3
    np.testing.assert_allclose(added[1], added[0], rtol=1e-4)


def valid_losses(directory, name):
    text = (directory / f"logs/{name}_run-1.log").read_text()
    return [float(x) for x in re.findall(r"head: Default, loss=\s*([0-9.e+-]+)", text)]


def test_validation_loss_does_not_move_with_the_curriculum(data):
    """At fixed weights (rate 0) the loss is the same whatever the weight of the Hessian loss in training."""
    for name, schedule in (("ramp", "linear"), ("flat", "constant")):
        train(data, **HINT, name=name, lr=0.0, weight_decay=0.0, hessian_schedule=schedule, eval_interval=1)
    ramp, flat = valid_losses(data, "ramp"), valid_losses(data, "flat")
    assert len(ramp) >= 2
    assert ramp == pytest.approx(flat, rel=1e-9)
    assert ramp == pytest.approx([ramp[0]] * len(ramp), rel=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
def test_stress_training(tmp_path, engine):
    write_data(tmp_path, stress=True)
    train(tmp_path, **HINT | {"hessian_engine": engine}, loss="stress", stress_key="REF_stress", compute_stress=True)
    assert records(tmp_path, "eval")[-1]["hessian_mae"] > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_lbfgs(data, engine):
    options = {"max_num_epochs": 1, "hessian_schedule": "constant", "hessian_engine": engine}
    train(data, **HINT | options, lbfgs="")
    rows = records(data, "opt")
    assert len(rows) == 1
    assert np.isfinite(rows[0]["loss"])


def test_prepared_hdf5_files_keep_their_labels(data):
    words = ["--train_file", "train.xyz", "--valid_file", "valid.xyz", "--energy_key", "REF_energy", "--forces_key"]
    words += ["REF_forces", "--h5_prefix", "prepared/", "--r_max", "3.0", "--num_process", "1", "--E0s", "average"]
    words += ["--plugins", "hint", "--seed", "1"]
    subprocess.run(
        [str(BIN / "mace_prepare_data"), *words],
        cwd=data,
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    files = {"train_file": "prepared/train", "valid_file": "prepared/val", "atomic_numbers": "[1, 6, 7, 8]"}
    files["E0s"] = "{1: 0.0, 6: 0.0, 7: 0.0, 8: 0.0}"
    result = train(data, **HINT | {"max_num_epochs": 1}, **files)
    assert "4 of 12 training structures carry a Hessian label" in result.stdout + result.stderr
    with h5py.File(data / "prepared" / "train" / "train_0.h5", "r+") as file:
        labels = []
        file.visit(lambda name: labels.append(name) if name.endswith("properties/hint.hessian") else None)
        labels = [name for name in labels if file[name].dtype.kind == "f" and file[name].shape]
        values = file[labels[0]][()]
        del file[labels[0]]
        file[labels[0]] = values + np.arange(values.size)
    result = train(data, check=False, **HINT | {"max_num_epochs": 1}, **files)
    assert result.returncode == 2
    assert re.search(r"bad Hessian label: \S*train_0.h5, structure \d+: asymmetric", result.stderr)
    assert "Traceback" not in result.stderr
    result = train(data, **HINT | {"max_num_epochs": 1, "hessian_on_bad_label": "drop"}, **files)
    assert "3 of 12 training structures carry a Hessian label" in result.stdout + result.stderr
    assert "1 Hessian labels failed their checks and were dropped" in result.stdout + result.stderr


def test_databases_are_read_lazily(data):
    """An .aselmdb store, read by MACE's own data set class and by worker processes."""
    for name in ("train", "valid"):
        write_structures(data / f"{name}.aselmdb", read(data / f"{name}.xyz", ":"))
    result = train(
        data,
        **HINT | {"max_num_epochs": 1},
        train_file="train.aselmdb",
        valid_file="valid.aselmdb",
        atomic_numbers="[1, 6, 7, 8]",
        E0s="{1: 0.0, 6: 0.0, 7: 0.0, 8: 0.0}",
        num_workers=1,
    )
    assert "4 of 12 training structures carry a Hessian label" in result.stdout + result.stderr
    assert records(data, "eval")[-1]["hessian_mae"] > 0


def test_fine_tuning_with_two_heads(data):
    """A local foundation model, its replay data without Hessians, and a labelled head."""
    train(data, name="foundation", max_num_epochs=1)
    replay = read(data / "valid.xyz", ":")
    for atoms in replay:
        atoms.info.pop("REF_hessian", None)
    write(data / "replay.xyz", replay)
    options = HINT | {"max_num_epochs": 1, "foundation_model": "foundation.model", "multiheads_finetuning": True}
    result = train(data, **options, pt_train_file="replay.xyz", name="tuned", num_samples_pt=4, E0s="foundation")
    assert "carry a Hessian label" in result.stdout + result.stderr
    assert any("hessian_mae" in row for row in records(data, "eval", name="tuned"))


ALPHANET = "hidden_channels: 16\nnum_layers: 2\nmain_chi1: 4\nmp_chi1: 4\nchi2: 2\nframe_channels: 4\n"


def test_alphanet_trains_restarts_and_evaluates(data):
    """Second stage, average, restart; the saved model is read by ``hint evaluate``."""
    (data / "net.yaml").write_text(ALPHANET)
    options = HINT | {"model": "AlphaNet", "alphanet_config": "net.yaml", "max_num_epochs": 2, "hessian_selftest": True}
    options |= {"ema": "", "swa": "", "start_swa": 2}
    result = train(data, **options)
    assert "Building AlphaNet" in result.stdout + result.stderr
    train(data, **options | {"max_num_epochs": 3}, restart_latest="")
    assert {row["epoch"] for row in records(data, "opt")} == {0, 1, 2}
    words = [str(BIN / "hint"), "evaluate", "run_stagetwo.model", "valid.xyz", "--out", "errors"]
    subprocess.run(words, cwd=data, env=environment(), check=True, capture_output=True)
    errors = json.loads((data / "errors" / "summary.json").read_text())
    assert errors["n_hessians"] == 2
    assert errors["hessian_mae"] == pytest.approx(records(data, "eval")[-1]["hessian_mae"], rel=1e-6)


def test_alphanet_goes_on_from_a_trained_model(data):
    """With steps of no size the tuned model is the pre-trained one, scale and shift included, in any precision."""
    (data / "net.yaml").write_text(ALPHANET)
    options = HINT | {"model": "AlphaNet", "max_num_epochs": 1, "hessian_metrics": "none"}
    train(data, **options, alphanet_config="net.yaml", default_dtype="float32")
    write(data / "few.xyz", read(data / "train.xyz", ":8"))
    tuned = options | {"name": "tuned", "alphanet_checkpoint": "run.model", "lr": 1e-12, "train_file": "few.xyz"}
    result = train(data, **tuned)
    assert "come with the weights" in result.stdout + result.stderr
    before, after = (torch.load(data / f"{name}.model", weights_only=False) for name in ("run", "tuned"))
    assert after.scale.dtype == torch.float64
    torch.testing.assert_close(after.scale, before.scale.double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(after.shift, before.shift.double(), rtol=1e-6, atol=0)
    for name, parameter in before.inner.state_dict().items():
        torch.testing.assert_close(after.inner.state_dict()[name], parameter.to(torch.float64), rtol=1e-6, atol=1e-9)
    after.inner.set_scale_shift(shift=-5.0)
    after.inner.save(data / "total.pt")
    result = train(data, **tuned | {"name": "total", "alphanet_checkpoint": "total.pt"})
    assert "those of the isolated atoms (--E0s) are not added" in result.stdout + result.stderr
    total = torch.load(data / "total.model", weights_only=False)
    assert not total.atomic_energies.any()
    assert (total.inner.shift == -5).all()


def test_alphanet_trains_on_crystals_with_stress(tmp_path):
    write_data(tmp_path, stress=True)
    (tmp_path / "net.yaml").write_text(ALPHANET)
    options = HINT | {"model": "AlphaNet", "alphanet_config": "net.yaml", "max_num_epochs": 1}
    train(tmp_path, **options, loss="stress", stress_key="REF_stress", compute_stress=True)
    assert records(tmp_path, "eval")[-1]["rmse_stress"] > 0


def test_a_step_without_memory_says_what_to_change(data, tmp_path):
    """The second epoch needs more memory than there is."""
    site = tmp_path / "site"
    info = site / "greedy-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greedy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hint_plugins]\ngreedy = greedy:Greedy\n")
    (site / "greedy.py").write_text(
        "import torch\n"
        "from hint_plugins.hookspecs import hookimpl\n"
        "class Greedy:\n"
        "    @hookimpl\n"
        "    def loss_terms(self, progress):\n"
        "        if progress.epoch == 1:\n"
        "            torch.empty(2**60, dtype=torch.uint8)\n"
    )
    options = HINT | {"plugins": "hint,greedy"}
    result = train(data, check=False, **options, env={"PYTHONPATH": str(site)})
    assert result.returncode == 1, result.stderr[-2000:]
    assert re.search(
        r"hint-plugins: Epoch 1: out of memory on cpu \(.*\)\. Lower --batch_size \(now 4;.*--hessian_num_probes.*"
        r"--hessian_engine reverse",
        result.stderr,
    )
    assert "Traceback" not in result.stderr
    assert list((data / "checkpoints").glob("*epoch-0.pt"))


def test_somebody_elses_plugin_adds_a_term_and_a_metric(data, tmp_path):
    info = tmp_path / "site" / "netforce-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: netforce\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hint_plugins]\nnetforce = helpers.netforce:NetForce\n")
    env = {"PYTHONPATH": str(tmp_path / "site")}
    result = train(data, **HINT | {"plugins": "hint,netforce", "max_num_epochs": 1}, netforce_weight=2.0, env=env)
    assert "netforce (netforce 1.0)" in result.stdout + result.stderr
    assert records(data, "eval")[-1]["netforce_steps"] == 3.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hessian_key": "REF_nothing"}, "carries a Hessian label under 'REF_nothing'"),
        ({"hessian_ramp_start": 3}, "lies before"),
        ({"hessian_engine": "magic"}, "unknown hessian_engine"),
        ({"hessian_num_probes": 0}, "hessian_num_probes"),
        ({"plugins": "hint,nope"}, "'nope' is not installed"),
    ],
)
def test_refusals_come_before_training(data, options, message):
    result = train(data, check=False, **HINT | options)
    assert result.returncode == 2
    text = result.stdout + result.stderr
    assert message in text
    assert "Traceback" not in text
    assert "Epoch 0" not in text


def test_a_bad_label_names_file_and_frame(data):
    structures = read(data / "train.xyz", ":")
    structures[3].info["REF_hessian"] = np.full_like(structures[3].info["REF_hessian"], np.nan)
    write(data / "train.xyz", structures)
    result = train(data, check=False, **HINT)
    assert result.returncode == 2
    assert "train.xyz, frame 3" in result.stderr
    result = train(data, **HINT | {"hessian_on_bad_label": "drop", "max_num_epochs": 1})
    assert "3 of 12 training structures carry" in result.stdout + result.stderr
