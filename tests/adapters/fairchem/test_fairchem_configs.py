"""The shipped configs, run at toy size."""

import csv
import re

import pytest
import torch
from helpers.fairchem_run import CONFIGS, SMALL, TINY, run_cli, save, steps
from helpers.structures import labelled_set

from hint_plugins.config import HintConfig
from hint_plugins.storage.store import write_structures

MODEL = "runner.train_eval_unit.model"


SHIPPED = sorted(path.name for path in CONFIGS.glob("*.yaml"))


def finite(values):
    return bool(torch.isfinite(torch.tensor(values)).all())


@pytest.fixture
def others(tmp_path):
    """A data set without Hessians."""
    frames = labelled_set(8, every=100, seed=3)
    for atoms in frames:
        for key in [key for key in atoms.info if "hessian" in key]:
            del atoms.info[key]
    write_structures(tmp_path / "other.aselmdb", frames)
    return tmp_path / "other.aselmdb"


@pytest.fixture
def checkpoint(make_run, tmp_path):
    """A toy of UMA's kind: mixture of experts, an embedding of data sets."""
    source = make_run(
        f"{MODEL}.backbone.model=fairchem.core.models.uma.escn_moe.eSCNMDMoeBackbone",
        f"+{MODEL}.backbone.num_experts=2",
        f"{MODEL}.backbone.use_dataset_embedding=true",
        f"+{MODEL}.backbone.dataset_mapping={{omol: omol, mol: omol}}",
        start=False,
    )
    return source, save(source, tmp_path / "uma.pt")


def test_there_are_configs():
    assert SHIPPED == ["direct.yaml", "kitchen-sink.yaml", "minimal.yaml", "realistic.yaml"]


@pytest.mark.parametrize("config", SHIPPED)
def test_the_hosts_command_runs_the_shipped_file(config, stores, others, checkpoint, alone, tmp_path):
    """``fairchem -c FILE`` with nothing but sizes and paths changed: training, validation, checkpoint, metrics."""
    own = {"kitchen-sink.yaml": [f"other_data={others}"], "realistic.yaml": [f"checkpoint={checkpoint[1]}"]}
    ramped = config in own  # a ramp in steps stands in the file; the others take half of the run
    run_cli(
        CONFIGS / config,
        *TINY,
        *(SMALL if config != "realistic.yaml" else []),
        *own.get(config, []),
        *(["hint.hessian_ramp_start=0", "hint.hessian_ramp_end=2"] if ramped else []),
        f"train_data={stores.train}",
        f"valid_data={stores.valid}",
        "steps=3",
        f"job.run_dir={tmp_path / 'runs'}",
        "+job.timestamp_id=run",
    )
    folder = tmp_path / "runs" / "run"
    rows = list(csv.DictReader((folder / "results" / "hessian_metrics.csv").open()))
    assert rows[-1]["step"] == "3"
    assert float(rows[-1]["hessian_weight"]) > 0
    assert float(rows[-1]["hessian_mae"]) > 0
    assert (folder / "checkpoints" / "final" / "inference_ckpt.pt").is_file()


@pytest.mark.parametrize("config", SHIPPED)
def test_every_line_is_explained(config):
    """By a comment at its end or, for a long one, on the line above."""
    lines = (CONFIGS / config).read_text().splitlines()
    bare = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if line.strip() and not re.search(r"# .*[a-z]{3}", line) and not before.strip().startswith("# ")
    ]
    assert bare == []


@pytest.mark.parametrize("config", ["minimal.yaml", "direct.yaml"])
def test_trains_and_reports(make_run, config):
    run = make_run("+hint.hessian_ramp_unit=steps", "+hint.hessian_ramp_end=2", config=config)
    assert finite(steps(run, 3))
    (row,) = run.callback.history
    assert {"hessian_mae", "eigenvalue_mae", "frequency_mae_cm1", "asymmetry", "hvp_mae"} <= set(row)
    assert max(run.hessian_losses) > 0
    assert (row["asymmetry"] > 1e-4) == (config == "direct.yaml")


def test_kitchen_sink(make_run, others):
    run = make_run(
        f"other_data={others}",
        "hint.hessian_ramp_start=0",
        "hint.hessian_ramp_end=2",
        "runner.train_dataloader.num_workers=0",
        config="kitchen-sink.yaml",
    )
    assert finite(steps(run, 4))
    assert run.callback.history[0]["hessian_mae"] > 0


def test_kitchen_sink_names_every_option():
    text = (CONFIGS / "kitchen-sink.yaml").read_text()
    block = text[text.index("\nhint:") : text.index("\njob:")]
    lines = [line for line in block.splitlines() if line.strip()]
    named = {line.split(":")[0].strip() for line in lines if ":" in line.split("#")[0]}
    assert set(HintConfig.model_fields) <= named
    assert all("#" in line for line in lines)


def test_fine_tuning_a_checkpoint(make_run, checkpoint):
    source, file = checkpoint
    run = make_run(
        f"checkpoint={file}",
        "hint.hessian_ramp_start=0",
        "hint.hessian_ramp_end=2",
        "runner.train_dataloader.num_workers=0",
        "runner.eval_dataloader.num_workers=0",
        config="realistic.yaml",
        small=False,
    )
    before = run.unit.model.module.backbone.sphere_embedding.weight.detach().clone()
    torch.testing.assert_close(before, source.unit.model.module.backbone.sphere_embedding.weight)
    assert finite(steps(run, 3))
    assert max(run.hessian_losses) > 0
    assert not torch.equal(before, run.unit.model.module.backbone.sphere_embedding.weight)


def test_symmetry_penalty_lowers_the_asymmetry(make_run):
    """Direct forces: the same start and steps, with and without the penalty."""
    left = {}
    for weight in (0, 3):
        run = make_run(
            "hint.hessian_weight=0.1",
            "+hint.hessian_schedule=constant",
            "+hint.hessian_engine=reverse",
            "+hint.hessian_selftest=false",
            "hint.hessian_num_probes=2",
            f"hint.hessian_symmetry_weight={weight}",
            "runner.train_eval_unit.optimizer_fn.lr=0.01",
            "steps=30",
            config="direct.yaml",
        )
        with torch.no_grad():  # an asymmetry of the size of the Hessians
            run.unit.model.module.output_heads["forces"].linear.weight.mul_(1000)
            run.unit.ema_model.module.module.output_heads["forces"].linear.weight.mul_(1000)
        steps(run, 1)
        before = run.callback.history[-1]["asymmetry"]
        steps(run, 25)
        left[weight] = run.callback.history[-1]["asymmetry"] / before
    assert left[3] < 0.7
    assert left[3] < 0.7 * left[0]
