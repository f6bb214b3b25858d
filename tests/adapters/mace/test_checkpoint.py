"""Checkpoints that are killed, torn, exchanged or continued under other settings."""

import argparse
import io
import os
import zipfile
from pathlib import Path

import pytest
import torch

pytest.importorskip("mace")
pytestmark = pytest.mark.mace

from helpers.training import HINT, records, train, write_data  # noqa: E402
from mace.tools import CheckpointHandler, CheckpointState  # noqa: E402

from hint_mace import checkpoint  # noqa: E402
from hint_mace.checkpoint import (  # noqa: E402
    CheckpointError,
    given_settings,
    read_checkpoint,
    require_same_settings,
    side_file,
    write_checkpoint,
)


def contents(handler, value):
    model = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(model.weight, value)
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    return handler.builder.create_checkpoint(CheckpointState(model, optimizer, scheduler))


def save(handler, epoch, keep_last=False):
    write_checkpoint(handler.io, contents(handler, epoch), {"epoch": epoch, "history": []}, epoch, keep_last)


@pytest.fixture
def handler(tmp_path):
    return CheckpointHandler(directory=str(tmp_path), tag="run_run-1")


def newest(handler):
    """What a restart would read: weight and epoch beside it."""
    content, beside = read_checkpoint(handler.io._get_latest_checkpoint_path(swa=False), None)
    return float(content["model"]["weight"][0, 0]), beside["epoch"]


def test_the_checkpoint_before_goes_only_when_the_new_one_is_whole(handler, tmp_path):
    save(handler, 0)
    save(handler, 1)
    assert newest(handler) == (1.0, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run_run-1_epoch-1.pt", "run_run-1_epoch-1.pt.hint"]
    save(handler, 2, keep_last=True)
    assert len(list(tmp_path.glob("*.pt"))) == 2
    handler.io.keep = True
    save(handler, 3)
    assert len(list(tmp_path.glob("*.pt"))) == 3


class Killed(BaseException):
    """Like a kill: nothing catches it."""


MOMENTS = [
    (name, count, when) for name in ("save", "replace") for count in (1, 2) for when in ("before", "half", "after")
]


@pytest.mark.parametrize(("name", "count", "when"), MOMENTS)
def test_a_kill_at_any_moment_leaves_a_checkpoint_with_its_state(handler, monkeypatch, name, count, when):
    """Before, in the middle of and after each write and each rename, the newest checkpoint is whole."""
    save(handler, 0)
    module = {"save": torch, "replace": os}[name]
    real, calls = getattr(module, name), [0]

    def killed(*args, **kwargs):
        calls[0] += 1
        if calls[0] != count or when == "after":
            real(*args, **kwargs)
        if calls[0] == count:
            if when == "half" and name == "save":
                real(*args, **kwargs)
                data = Path(args[1]).read_bytes()
                Path(args[1]).write_bytes(data[: len(data) // 2])
            raise Killed

    monkeypatch.setattr(module, name, killed)
    with pytest.raises(Killed):
        save(handler, 1)
    monkeypatch.undo()
    done = (name, count, when) == ("replace", 2, "after")
    assert newest(handler) == ((1.0, 1) if done else (0.0, 0))
    save(handler, 1)
    assert newest(handler) == (1.0, 1)


def test_a_full_disk_keeps_the_checkpoint_before(handler, monkeypatch, tmp_path):
    save(handler, 0)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        CheckpointError, match=r"epoch-1.pt cannot be written: .*No space left.*earlier epochs are whole"
    ):
        save(handler, 1)
    assert newest(handler) == (0.0, 0)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("PWNED",)


@pytest.mark.parametrize("which", ["checkpoint", "side"])
@pytest.mark.parametrize("damage", ["torn", "empty", "text", "code", "bits", "payload"])
def test_damaged_files_are_named_and_run_no_code(handler, tmp_path, monkeypatch, which, damage):
    monkeypatch.chdir(tmp_path)
    save(handler, 0)
    path = Path(handler.io.old_path)
    target = path if which == "checkpoint" else side_file(path)
    data = target.read_bytes()
    if damage == "code":
        torch.save({"model": Evil(), "optimizer": {}, "lr_scheduler": {}}, target)
    else:
        flipped = bytearray(data)
        flipped[20:60] = os.urandom(40)
        target.write_bytes({"torn": data[: len(data) // 2], "empty": b"", "text": b"abc"}.get(damage, bytes(flipped)))
        if damage == "payload":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                largest = max(archive.infolist(), key=lambda entry: entry.file_size)
                content = archive.read(largest)
            target.write_bytes(data.replace(content, bytes([content[0] ^ 1]) + content[1:]))

    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(path, None)
    assert not (tmp_path / "PWNED").exists()


def test_a_missing_or_foreign_side_file_is_refused(handler, tmp_path):
    save(handler, 0)
    path = Path(handler.io.old_path)
    beside = side_file(path).read_bytes()
    side_file(path).unlink()
    with pytest.raises(CheckpointError, match="missing or belongs to another"):
        read_checkpoint(path, None)
    save(handler, 0)
    side_file(path).write_bytes(beside)
    with pytest.raises(CheckpointError, match="missing or belongs to another"):
        read_checkpoint(path, None)


def test_a_checkpoint_of_stock_mace_has_nothing_beside_it(handler):
    handler.io.save(contents(handler, 3), 0)
    content, beside = read_checkpoint(handler.io.old_path, None)
    assert beside is None
    assert set(content) == {"model", "optimizer", "lr_scheduler"}


def test_changes_are_listed_unless_they_are_allowed():
    first = given_settings(argparse.Namespace(hessian_weight=0.1, lr=0.01, num_workers=0, max_num_epochs=5))
    then = given_settings(argparse.Namespace(hessian_weight=0.2, lr=0.01, num_workers=4, max_num_epochs=9, new=1))
    assert require_same_settings(first, first, False) == []
    with pytest.raises(CheckpointError, match=r"\(hessian_weight: 0.1 -> 0.2\).*--hessian_allow_changes True"):
        require_same_settings(first, then, False)
    assert require_same_settings(first, then, True) == ["hessian_weight: 0.1 -> 0.2"]


def test_nothing_but_the_known_options_may_change_freely():
    """Options that MACE does not know are of no use in the list."""
    from mace.tools import build_default_arg_parser

    from hint_plugins.config import HintConfig

    known = {action.dest for action in build_default_arg_parser()._actions} | set(HintConfig.model_fields)
    known |= {"plugins", "hessian_allow_changes"}
    assert set(checkpoint.FREE) <= known
    for name in (
        "hessian_weight",
        "hessian_ramp_end",
        "hessian_num_probes",
        "hessian_key",
        "default_dtype",
        "lr",
        "seed",
    ):
        assert name not in checkpoint.FREE


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    directory = tmp_path_factory.mktemp("trained")
    write_data(directory)
    train(directory, **OPTIONS)
    return directory


OPTIONS = HINT | {"hessian_metrics": "probes", "max_num_epochs": 2}


@pytest.mark.slow
def test_restarts_under_other_settings_are_refused_until_allowed(trained):
    changed = {
        "hessian_weight": 0.02,
        "hessian_ramp_end": 1,
        "hessian_num_probes": 3,
        "hessian_probes": "gaussian",
        "batch_size": 3,
        "default_dtype": "float32",
        "lr": 0.1,
        "hessian_engine": "reverse",
        "max_num_epochs": 3,
    }
    done = train(trained, check=False, **OPTIONS | changed, restart_latest="")
    assert done.returncode == 2
    for name, value in changed.items():
        assert (f"{name}: " in done.stderr) is (name not in ("max_num_epochs", "batch_size")), value
    assert "hessian_weight: 0.01 -> 0.02" in done.stderr
    assert "Traceback" not in done.stderr
    allowed = {"max_num_epochs": 3, "batch_size": 3, "hessian_allow_changes": True}
    done = train(trained, **OPTIONS | allowed, restart_latest="")
    assert "changed since the checkpoint: structures per step: 4 -> 3" in done.stdout + done.stderr
    assert {row["epoch"] for row in records(trained, "opt")} == {0, 1, 2}


@pytest.mark.slow
def test_restarts_on_other_data_are_refused(trained):
    """Another order, other labels, other positions: all are other data."""
    from ase.io import read, write

    structures = read(trained / "train.xyz", ":")
    labels = next(a for a in structures if "REF_hessian" in a.info)
    labels.info["REF_hessian"] = labels.info["REF_hessian"] * 1.0001
    write(trained / "other.xyz", structures)
    done = train(trained, check=False, **OPTIONS | {"max_num_epochs": 4}, train_file="other.xyz", restart_latest="")
    assert done.returncode == 2
    assert "training data: 12 structures, 4 labelled, digest" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["torn", "model"])
def test_a_checkpoint_that_does_not_fit_never_means_the_first_epoch(trained, damage):
    path = max((trained / "checkpoints").glob("run_run-1_epoch-*.pt"))
    data = path.read_bytes()
    options = OPTIONS | {"max_num_epochs": 4}
    if damage == "torn":
        path.write_bytes(data[:-100])
        message = "cannot be read"
    else:
        content = torch.load(path, weights_only=True)
        content["model"] = {name: value for name, value in content["model"].items() if "interactions.1" not in name}
        torch.save(content, path)
        message = "does not fit the model"
    try:
        done = train(trained, check=False, **options, restart_latest="")
    finally:
        path.write_bytes(data)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Epoch 0" not in done.stdout + done.stderr


def test_the_parser_says_each_default_once():
    import pluggy
    from mace.tools import build_default_arg_parser

    from hint_mace.options import extend_parser
    from hint_plugins.plugins import load_plugins

    manager: pluggy.PluginManager = load_plugins(["hint"])
    text = " ".join(extend_parser(build_default_arg_parser(), manager).format_help().split())
    assert "--hessian_weight" in text
    assert text.count("(default: 0.1)") >= 1
    assert "(default: 0.1) (default: 0.1)" not in text
    assert ". (default: rademacher)" in text.replace("(one-hot) or orthogonal.", ".")


def test_digest_of_a_data_set_sees_order_and_labels_not_precision():
    from helpers.mace import atomic_data, manager_with
    from helpers.structures import labelled_set

    from hint_mace.data import LabelledDataset

    manager, _ = manager_with()
    data = [atomic_data(atoms, manager) for atoms in labelled_set(4, every=2)]
    flags, digest = LabelledDataset(data).survey()
    assert flags == [True, False, True, False]
    assert LabelledDataset(data).survey()[1] == digest
    assert LabelledDataset(data[::-1]).survey()[1] != digest
    data[0].__dict__["__hint_labels__"]["hessian"] = data[0].__dict__["__hint_labels__"]["hessian"] * 1.001
    assert LabelledDataset(data).survey()[1] != digest
