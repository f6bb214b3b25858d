"""`hint fairchem-train`: what is wrong is said in one sentence, before training."""

from pathlib import Path

import pytest
import torch
import typer
from helpers.fairchem_run import CONFIGS, SMALL, TINY
from typer.testing import CliRunner

from hint_fairchem.cli import fairchem_train
from hint_fairchem.train import sentence, train
from hint_plugins.errors import InputError
from hint_plugins.labels.hessian_label import LabelError

TRAIN = "runner.train_dataloader"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["runner.callbacks.1._target_=hint_fairchem.callback.HintCalback"],
            r"runner\.callbacks\.1\._target_: there is no hint_fairchem\.callback\.HintCalback; did you mean "
            r"hint_fairchem\.callback\.HintCallback\?",
        ),
        (
            [f"{TRAIN}.dataset.dataset_configs.mol.format=hint_fairchem.dataset.HessianDataset"],
            r"dataset_configs\.mol\.format: there is no hint_fairchem\.dataset\.HessianDataset",
        ),
        (["runner.callbacks=[]"], r"hessian_task needs hint_fairchem\.callback\.HintCallback, .* runner\.callbacks"),
        ([f"~{TRAIN}.batch_sampler_fn"], r"runner\.train_dataloader lacks batch_sampler_fn"),
        (["job.device_type=CUDA"], r"torch sees no GPU: set job\.device_type=CPU"),
        (["job.device_type=GPU"], r"Invalid value 'GPU', expected one of \[CPU, CUDA\]"),
        (["runner.max_stepps=3"], r"Could not override 'runner\.max_stepps'"),
        (["+hint.hessian_wieght=1"], r"hint\.hessian_wieght: no such option; did you mean hessian_weight\?"),
        (["train_data=none.aselmdb"], r"none\.aselmdb: there is no ASE database"),
    ],
)
def test_one_sentence(stores, tmp_path, alone, monkeypatch, overrides, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = [*TINY, *SMALL, f"train_data={stores.train}", f"valid_data={stores.valid}", f"job.run_dir={tmp_path}"]
    with pytest.raises(InputError, match=message) as caught:
        train(CONFIGS / "minimal.yaml", [*given, *overrides])
    assert "\n" not in str(caught.value)


def test_no_such_config(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        train(tmp_path / "none.yaml", [])


def test_out_of_memory_says_what_to_change(stores, tmp_path, alone, monkeypatch):
    given = [*TINY, *SMALL, f"train_data={stores.train}", f"valid_data={stores.valid}", f"job.run_dir={tmp_path}"]
    for error, expected in (
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"), InputError),
        (RuntimeError("shapes do not fit"), RuntimeError),
    ):

        def fails(*_, error=error):
            raise error

        monkeypatch.setattr("hint_fairchem.train.main", fails)
        with pytest.raises(expected) as caught:
            train(CONFIGS / "minimal.yaml", given)
        if expected is InputError:
            assert "(CUDA out of memory. Tried to allocate 2 GiB). Lower" in str(caught.value)
            assert "hint.hessian_num_probes" in str(caught.value)
            assert "\n" not in str(caught.value)


def test_errors_of_loader_processes():
    text = "Caught LabelError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File\n"
    assert sentence(LabelError(text + "a.b.LabelError: bad Hessian label: x: y")) == "bad Hessian label: x: y"


def test_shipped_configs_are_known_by_name(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("hint_fairchem.train.train", lambda config, overrides: seen.append((config, overrides)))
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command(**fairchem_train.typer_settings)(fairchem_train)
    CliRunner().invoke(app, ["minimal.yaml", "steps=3", "~hint"], catch_exceptions=False)
    Path("minimal.yaml").touch()
    CliRunner().invoke(app, ["minimal.yaml"], catch_exceptions=False)
    assert seen == [(CONFIGS / "minimal.yaml", ["steps=3", "~hint"]), (Path("minimal.yaml"), [])]
