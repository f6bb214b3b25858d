"""Every script in benchmarks/ runs; its numbers at this size mean nothing."""

import json
import multiprocessing
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
import torch
from helpers.devices import HAS_GPU
from helpers.pretend_gpu import pretend_gpu
from helpers.training import ROOT, environment

#: Words that make each script small; {out} is a directory. Those of fairchem need an environment of their own.
SMALL = {
    "alphanet": "--repeats 1 --copies 1 --out {out}/table.csv",
    "alphanet_ablation": "--steps 2 --seeds 1 --each 1 1 --only smooth --data {out}/data.npz --out {out}/table.csv",
    "label_checks": "--limit 1",
    "gpu": "--out {out} --device cpu --size small --only ensembles two_gpus",
    "labels": "--sizes 5 --repeats 1 --count 40",
    "minireactions_search": "{out}/found.json 'hydrogen cyanide = hydrogen isocyanide'",
    "molecules_table": "--out {out}/table --limit 1 --models MACE --seeds 1 --per-image 1 --structures 2 --labelled 1 "
    "--probes 1 --steps 2 --ramp 500 0.002 500 --max-seconds 20",
    "partial_hessians": "{out} --epochs 1 --structures 4 --seeds 1",
    "pretrain": "{out} --models MACE --few 6 --epochs 1 --engine '--engine xtb'",
    "projections": "{out} --epochs 1 --structures 5 --seeds 1",
    "rank_neon": "--help",  # two minutes at its smallest
    "sscha_errors": "--configurations 20 --runs 2 --out {out}/table.csv",
    "sscha_steps": "--steps 0.2 --seeds 1 --configurations 20 --crystals quartic --out {out}/table.csv",
    "training_step": "--out {out} --device cpu --channels 4 --batch-size 2 --structures 4 --rounds 1 --shares 1 "
    "--only 'vmap, m = 1'",
    "whole_hessians": "--device cpu --sizes 3 --repeats 1 --columns 2 --chunk 2 --out {out}/table.csv",
}
FAIRCHEM = {"fairchem_demo", "fairchem_step"}
SLOW = {"molecules_table", "partial_hessians", "pretrain", "projections"}


def run(name, out, *more):
    words = [word.format(out=out) for word in shlex.split(SMALL[name])]
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *words, *more]
    return subprocess.run(command, env=environment(), cwd=out, capture_output=True, text=True, check=False)


def test_every_script_is_tried():
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} == set(SMALL) | FAIRCHEM | {"gpu_sections"}


@pytest.mark.mace
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in SMALL])
def test_script_runs(name, tmp_path):
    if name.startswith("sscha"):
        pytest.importorskip("sscha")
    done = run(name, tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "nan" not in done.stdout.split()


class HereAndNow:
    """Stands for multiprocessing.Process, and does the work in this process."""

    def __init__(self, target, args):
        self.target, self.args = target, args

    def start(self):
        self.target(*self.args)

    def is_alive(self):
        return False

    def join(self, timeout=None):
        pass


@pytest.mark.mace
@pytest.mark.skipif(HAS_GPU, reason="there is a real GPU")
def test_training_steps_are_timed_on_a_gpu(tmp_path, monkeypatch):
    """On a pretend one, on which steps and measures of memory must run."""
    pytest.importorskip("mace")
    context = SimpleNamespace(Queue=SimpleQueue, Process=HereAndNow)
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)
    words = SMALL["training_step"].format(out=tmp_path).replace("cpu", "cuda").replace("vmap", "reverse")
    monkeypatch.setattr(sys, "argv", ["training_step.py", *shlex.split(words)])
    before = torch.get_default_dtype(), torch.get_num_threads()
    try:
        with pretend_gpu() as counts:
            runpy.run_path(str(ROOT / "benchmarks" / "training_step.py"), run_name="__main__")
    finally:
        torch.set_default_dtype(before[0])
        torch.set_num_threads(before[1])
    (row,) = json.loads((tmp_path / "training_step.json").read_text())["rows"]
    assert row["ratio"] > 1
    assert counts.totals.launches > 0


@pytest.mark.mace
def test_a_case_that_failed_is_told(tmp_path):
    """A batch of no structure: the case fails, and the script says so."""
    done = run("training_step", tmp_path, "--batch-size", "0")
    assert done.returncode != 0
    assert "1 of 1 cases failed" in done.stderr
    assert json.loads((Path(tmp_path) / "training_step.json").read_text())["rows"] == []


@pytest.mark.mace
def test_the_labels_of_the_training_step_pass_their_check(monkeypatch):
    """All of them, not only those of the few structures of the run above."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from training_step import make_data

    from hint_plugins.training.hint import HintPlugin

    frames = make_data(200, 1.0)
    assert all(HintPlugin().read_labels(atoms=atoms, forces=None) for atoms in frames)
