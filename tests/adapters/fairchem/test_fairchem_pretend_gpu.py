"""A training step of fairchem on a GPU, a pretend one: it runs, and the callback adds no more cost than it must.

The cost is what a step has beyond that of the same step without Hessians: waits of the host, copies, and the ratio of
kernel launches.
"""

import pytest
import torch
from helpers.devices import HAS_GPU
from helpers.fairchem_run import build, steps
from helpers.pretend_gpu import pretend_gpu

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(HAS_GPU, reason="counted on a pretend GPU"),
]

#: Launches of a step with two probes, half of the structures labelled, in those of the step without Hessians.
LAUNCHES = {"reverse": 4.8, "finite_difference": 2.0}
#: Waits that the Hessian loss adds to a step (the host's search for neighbours waits, at every structure and copy).
WAITS = {"reverse": 75, "finite_difference": 174}
#: Copies that it adds.
COPIES = 4


class OneProcess(torch.nn.Module):
    """Stands for DistributedDataParallel, whose C++ code knows no pretend GPU."""

    def __init__(self, module, *args, **kwargs):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)


@pytest.fixture
def gpu(monkeypatch):
    from torchtnt.utils import prepare_module

    monkeypatch.setenv("CURRRENT_DEVICE_TYPE", "cuda")  # the host's own spelling
    monkeypatch.setattr(prepare_module, "DDP", OneProcess)
    with pretend_gpu() as counts:
        yield counts


SETTINGS = ("++hint.hessian_selftest=False", "++hint.hessian_metrics=none", "++hint.hessian_num_probes=2")


def second_step(counts, stores, directory, *overrides):
    """Losses of two steps, and the cost of the second."""
    run = build(stores, directory, "job.device_type=CUDA", *SETTINGS, *overrides)
    assert next(run.unit.model.parameters()).is_cuda
    costs, train_step = [], run.unit.train_step

    def counted(*args):
        counts.waits.clear()
        counts.copies.clear()
        costs.append(counts.cost(lambda: train_step(*args)))

    run.unit.train_step = counted
    losses = steps(run, 2)
    return losses, costs[-1]


def test_a_step_keeps_its_budget_and_has_the_numbers_of_the_cpu(gpu, stores, tmp_path):
    _, plain = second_step(gpu, stores, tmp_path / "plain", "hint.hessian_weight=0")
    expected = steps(build(stores, tmp_path / "cpu", *SETTINGS), 2)
    for engine, ratio in LAUNCHES.items():
        losses, cost = second_step(gpu, stores, tmp_path / engine, f"++hint.hessian_engine={engine}")
        assert losses == pytest.approx(expected, rel=1e-5)
        added = cost.since(plain)
        assert cost.launches <= ratio * plain.launches, engine
        assert added.waits <= WAITS[engine], (engine, gpu.waits)
        assert added.copies <= COPIES, (engine, gpu.copies)
