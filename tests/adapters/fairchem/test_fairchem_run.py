"""Whole runs: resumed equals unbroken, two processes equal one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.fairchem_run import CONFIGS, SMALL, TINY, run_cli

RAMP = [
    "hint.hessian_weight=0.05",
    "+hint.hessian_ramp_unit=steps",
    "+hint.hessian_ramp_start=1",
    "+hint.hessian_ramp_end=5",
    "+hint.hessian_balance=0.5",
]


def final_weights(folder: Path) -> dict:
    (path,) = folder.glob("*/checkpoints/final/inference_ckpt.pt")
    return torch.load(path, weights_only=False)


@pytest.mark.slow
def test_resume_equals_an_unbroken_run(stores, tmp_path, alone, caplog):
    caplog.set_level("INFO", logger="hint_fairchem.callback")
    data = [f"train_data={stores.train}", f"valid_data={stores.valid}"]
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    run_cli(
        CONFIGS / "minimal.yaml",
        *TINY,
        *SMALL,
        *data,
        *RAMP,
        f"job.run_dir={whole}",
        "runner.callbacks.0.checkpoint_every_n_steps=3",
        "runner.callbacks.0.max_saved_checkpoints=5",
    )
    (saved,) = whole.glob("*/checkpoints/step_3")
    run_cli(saved / "resume.yaml", f"job.run_dir={rest}", "++job.timestamp_id=second")
    first, second = final_weights(whole), final_weights(rest)
    start = torch.load(saved / "inference_ckpt.pt", weights_only=False).model_state_dict
    floats = [name for name, value in start.items() if value.is_floating_point()]
    moved = max((first.model_state_dict[name] - start[name]).abs().max().item() for name in floats)
    assert moved > 1e-4
    seen = [record.args[1]["train/hessian_loss_weighted"] for record in caplog.records if record.msg == "step %d: %s"]
    assert seen[3:6] == pytest.approx(seen[6:], rel=1e-6)
    assert min(seen[3:6]) > 0
    for kind in ("model_state_dict", "ema_state_dict"):
        for name, value in getattr(first, kind).items():
            torch.testing.assert_close(getattr(second, kind)[name], value, rtol=0, atol=1e-6)
    assert (saved.parent / "hint_state.json").read_text() == (
        rest / "second" / "checkpoints" / "hint_state.json"
    ).read_text()


STEP = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
import torch, torch.distributed as dist
sys.path[:0] = {paths!r}
rank, size, out = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{{out / f'store{{size}}'}}", rank=rank, world_size=size)
from helpers import fairchem_run
from fairchem.core.units.mlip_unit.mlip_unit import compute_loss
stores = SimpleNamespace(train=sys.argv[4], valid=sys.argv[4])
options = ["hint.hessian_weight=0.5", "+hint.hessian_schedule=constant", "+hint.hessian_engine=reverse"]
run = fairchem_run.build(stores, out / f"run{{size}}{{rank}}", *options, seed=5)
run.callback.on_train_step_start(run.state, run.unit)
loader = run.runner.train_dataloader
samples = [loader.dataset[i] for i in range(9)]
mine = [samples[:9], ([samples[:6], samples[6:]][rank])][size - 1]
data = loader.collate_fn(mine)
losses = compute_loss(run.unit.tasks, run.unit.model(data), data)
sum(losses.values()).backward()
total = torch.stack([loss.detach() for loss in losses.values()]) / size
dist.all_reduce(total)
if rank == 0:
    torch.save({{"losses": total, "grad": [p.grad for p in run.unit.model.parameters()]}}, out / f"{{size}}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_equal_one(stores, tmp_path):
    paths = [str(Path(__file__).parents[2])]
    script = tmp_path / "step.py"
    script.write_text(STEP.format(paths=paths))
    for size in (1, 2):
        workers = [
            subprocess.Popen(
                [sys.executable, script, str(rank), str(size), tmp_path, stores.train],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stderr=subprocess.PIPE,
            )
            for rank in range(size)
        ]
        try:
            for worker in workers:
                _, err = worker.communicate(timeout=600)
                assert worker.returncode == 0, err.decode()[-2000:]
        finally:
            for worker in workers:
                worker.kill()
    one, two = (torch.load(tmp_path / f"{size}.pt") for size in (1, 2))
    torch.testing.assert_close(two["losses"], one["losses"], rtol=1e-5, atol=0)
    assert one["losses"][2] > 0.1 * one["losses"].sum()
    first, second = (torch.cat([g.flatten() for g in run["grad"] if g is not None]) for run in (one, two))
    assert (second - first).norm() < 1e-4 * first.norm()
