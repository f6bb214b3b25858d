"""Which device trainings and worker processes use."""

import contextlib
import os
import subprocess
import sys

import pytest
import torch
from helpers.devices import HAS_GPU
from helpers.pretend_gpu import pretend_gpu

from hint_plugins.errors import InputError
from hint_plugins.potential import worker as potential_worker
from hint_plugins.runs import devices
from hint_recipes.demo import training
from hint_recipes.demo.settings import DemoSettings

no_gpu = pytest.mark.skipif(HAS_GPU, reason="there is a GPU")


@no_gpu
def test_trainings_use_the_gpu_when_there_is_one():
    assert devices.training_device(None) == "cpu"
    with pretend_gpu():
        assert devices.training_device(None) == "cuda"
        assert devices.training_device("cpu") == "cpu"
    with pytest.raises(InputError, match="sees no GPU; use cpu"):
        devices.training_device("cuda")


def test_a_device_that_the_trainer_does_not_know_is_refused():
    with pytest.raises(InputError, match=r"--device cuda:1: the trainer knows cpu, cuda, mps, xpu.*CUDA_VISIBLE_DEV"):
        devices.training_device("cuda:1")


@no_gpu
def test_the_demo_trains_and_evaluates_on_the_device(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(training, "run_logged", lambda words, directory: commands.append([str(word) for word in words]))
    for device in (None, "cpu"):
        with pretend_gpu(), contextlib.suppress(FileNotFoundError):  # the evaluation writes nothing here
            training.train_and_evaluate(tmp_path, DemoSettings(), 1, True, {"train": []}, device)
    assert [words[words.index("--device") + 1] for words in commands] == ["cuda", "cuda", "cpu", "cpu"]


def worker(directory, count=2):
    """A process that takes one of ``count`` GPUs, and its number."""
    code = f"from hint_plugins.runs.devices import _own_gpu; print(_own_gpu({count}), flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(directory)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, int(process.stdout.readline())


def end(process):
    process.stdin.close()
    process.stdout.close()
    process.wait()


def test_workers_take_the_gpus_in_turn(tmp_path):
    with contextlib.ExitStack() as stack:
        workers = []
        for _ in range(3):
            process, gpu = worker(tmp_path)
            stack.callback(end, process)
            workers.append((process, gpu))
        assert [gpu for _, gpu in workers] == [0, 1, 0]
        end(workers[1][0])
        process, gpu = worker(tmp_path)
        stack.callback(end, process)
        assert gpu == 1, "what a process had is free when it ends"


@pytest.mark.parametrize(
    ("asked", "gpus", "given"),
    [(None, 1, None), ("cpu", 2, "cpu"), ("cuda:0", 2, "cuda:0"), (None, 2, "cuda:1"), ("cuda", 2, "cuda:1")],
)
def test_device_of_a_worker(monkeypatch, asked, gpus, given):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(devices, "_own_gpu", lambda count: count - 1)
    assert devices.worker_device(asked) == given


def test_items_of_workers_use_their_own_gpu(monkeypatch):
    used = []
    monkeypatch.setattr(potential_worker, "worker_device", lambda device: "cuda:1")
    monkeypatch.setattr(potential_worker, "_loaded", lambda model, device, dtype: used.append(device))
    potential_worker._work(None, function=lambda item, potential: None, model="a.model", device=None, dtype=None)
    assert used == ["cuda:1"]


def test_sharing_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.sharing_note(8, "cpu") is None
    assert devices.sharing_note(2, "cuda") is None
    assert devices.sharing_note(3, "cuda").startswith("3 worker processes share 2 GPUs, ")
    assert devices.sharing_note(2, "cuda:1").startswith("2 worker processes share 1 GPU, ")
