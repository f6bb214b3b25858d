"""Set-ups under which Hessians are impossible or wrong are refused with the reason."""

import pytest
import torch
from fairchem.core.common import gp_utils
from helpers.fairchem_run import begin
from hydra.errors import InstantiationException

from hint_plugins.config import ConfigError
from hint_plugins.hookspecs import hookimpl
from hint_plugins.storage.store import read_structures, write_structures

BACKBONE = "runner.train_eval_unit.model.backbone"


def test_euler_angles(make_run):
    with pytest.raises(ConfigError, match="use_quaternion_wigner: true"):
        make_run(f"+{BACKBONE}.use_quaternion_wigner=false")


def test_bf16(make_run):
    with pytest.raises(ConfigError, match="bf16"):
        make_run("+runner.train_eval_unit.bf16=true")


def test_compiled_model(make_run):
    run = make_run(start=False)
    run.unit.model.module.backbone = torch.compile(run.unit.model.module.backbone)
    with pytest.raises(ConfigError, match=r"torch\.compile"):
        begin(run)


def test_graph_parallel(make_run, monkeypatch):
    run = make_run(start=False)
    run.unit.on_train_start(run.state)
    monkeypatch.setattr(gp_utils, "initialized", lambda: True)
    with pytest.raises(ConfigError, match="graph-parallel"):
        run.callback.on_train_start(run.state, run.unit)


def test_no_labels_at_all(make_run, stores, tmp_path):
    bare = [a for a in read_structures(stores.train) if "REF_hessian" not in a.info]
    write_structures(tmp_path / "bare.aselmdb", bare)
    with pytest.raises(ConfigError, match="none of the 6 training structures carries a Hessian label"):
        make_run(f"train_data={tmp_path / 'bare.aselmdb'}")
    make_run(f"train_data={tmp_path / 'bare.aselmdb'}", "hint.hessian_weight=0")


def test_labels_are_counted_by_data_set(make_run, caplog):
    with caplog.at_level("INFO"):
        make_run()
    lines = [r.getMessage() for r in caplog.records if "structures labelled" in r.getMessage()]
    assert lines == ["mol.train: 6 of 12 structures labelled", "mol.val: 3 of 5 structures labelled"]


def test_missing_task(make_run):
    run = make_run(start=False)
    run.unit.tasks.pop()
    with pytest.raises(ConfigError, match=r"hint_fairchem\.task\.hessian_task, datasets: \[mol\]"):
        begin(run)


def test_task_that_lacks_a_data_set(make_run):
    with pytest.raises(ConfigError, match="lacks dataset mol"):
        make_run("tasks.2.datasets=[others]")


@pytest.mark.parametrize("loader", ["train", "eval"])
def test_stock_data_set(make_run, loader):
    with pytest.raises(ConfigError, match=r"hint_fairchem\.dataset\.HessianAseDBDataset"):
        make_run(f"runner.{loader}_dataloader.dataset.dataset_configs.mol.format=ase_db")


def test_recomputed_experts(make_run):
    experts = f"{BACKBONE}.model=fairchem.core.models.uma.escn_moe.eSCNMDMoeBackbone"
    with pytest.raises(ConfigError, match="activation_checkpointing: false"):
        make_run(experts, f"+{BACKBONE}.num_experts=2", f"+{BACKBONE}.activation_checkpointing=true")


@pytest.mark.parametrize("option", ["hessian_batch_fraction=0.5", "hessian_every=2"])
def test_sampler_options_without_the_sampler(make_run, option):
    with pytest.raises(ConfigError, match=r"hint_fairchem\.sampler\.HessianBatchSampler"):
        make_run(f"+hint.{option}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+hint.hesian_weight=1", "hint.hesian_weight: no such option; did you mean hessian_weight"),
        ("hint.hessian_num_probes=0", "hessian_num_probes"),
        ("+tasks.2.dataset=[mol]", "hessian_task.dataset: no such key; did you mean datasets"),
        ("+runner.callbacks.1.hints={}", "HintCallback.hints: no such key; did you mean hint"),
    ],
)
def test_typing_errors_in_the_yaml(make_run, override, message):
    with pytest.raises((ConfigError, InstantiationException, ValueError), match=message):
        make_run(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("~runner.train_dataloader.dataset.dataset_configs.mol.hint", r"lacks its options: add `hint: \$\{hint\}`"),
        (
            "runner.eval_dataloader.dataset.dataset_configs.mol.hint={hessian_num_probes: 2}",
            "hint.hessian_weight is 0.1 in the callback but 0.0 in data set mol.val|hint.hessian_num_probes is 5",
        ),
        ("runner.callbacks.1.hint={seed: 3}", r"hint.hessian_\w+ is|hint.seed is 3 in the callback but 0 in data set"),
    ],
)
def test_parts_with_other_options(make_run, override, message):
    with pytest.raises((ConfigError, InstantiationException, ValueError), match=message):
        make_run("hint.hessian_weight=0.1", override)


def test_a_sampler_with_other_options(make_run):
    sampler = "runner.train_dataloader.batch_sampler_fn"
    with pytest.raises(
        ConfigError, match=r"hint\.hessian_batch_fraction is 0\.5 in the callback but None in batch_sampler"
    ):
        make_run("+hint.hessian_batch_fraction=0.5", f"{sampler}._target_=hint_fairchem.sampler.HessianBatchSampler")


def test_a_plugins_sampler(make_run):
    class Sampling:
        @hookimpl
        def batch_sampler(self, labelled, batch_size, world_size, rank, seed):
            return None

    run = make_run(start=False)
    run.callback.hint.manager.register(Sampling(), name="sampling")
    with pytest.raises(ConfigError, match=r"plugin 'sampling' makes a batch sampler \(hook batch_sampler\)"):
        begin(run)


def test_missing_callback(make_run):
    """The host's own step: the task says what it lacks."""
    run = make_run(start=False)
    run.unit.on_train_start(run.state)
    with pytest.raises(ConfigError, match=r"no callback: add `- \{_target_: hint_fairchem\.callback\.HintCallback"):
        run.unit.train_step(run.state, next(iter(run.runner.train_dataloader)))
