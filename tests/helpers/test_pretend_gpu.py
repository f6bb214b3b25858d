"""The pretend GPU of the tests keeps CUDA's rules and counts what costs time."""

import copy
import io

import numpy as np
import pytest
import torch

from helpers.devices import HAS_GPU
from helpers.pretend_gpu import pretend_gpu

pytestmark = pytest.mark.skipif(HAS_GPU, reason="there is a real one")


@pytest.fixture
def gpu():
    with pretend_gpu() as counts:
        yield counts


def test_it_is_there_within_only():
    assert not torch.cuda.is_available()
    with pretend_gpu():
        assert torch.cuda.is_available()
        assert torch.accelerator.is_available()
        assert torch.ones(2, device="cuda").device == torch.device("cuda:0")
    assert not torch.cuda.is_available()
    assert not torch.accelerator.is_available()
    with pytest.raises((AssertionError, RuntimeError), match="CUDA"):
        torch.ones(2, device="cuda")


def test_numbers_and_gradients_are_those_of_the_cpu(gpu):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.SiLU(), torch.nn.Linear(4, 1)).double()
    there, x = copy.deepcopy(net).to("cuda"), torch.randn(5, 3, dtype=torch.float64)

    def second(model, x):
        x = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        weights = list(model.parameters())
        return torch.autograd.grad(g.square().sum(), weights, allow_unused=True, materialize_grads=True)

    for a, b in zip(second(net, x), second(there, x.to("cuda")), strict=True):
        assert b.is_cuda
        torch.testing.assert_close(b.cpu(), a, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda x: x + torch.ones(3), "same device"),
        (lambda x: torch.ones(3) * x.sum(), "same device"),
        (lambda x: torch.zeros(()).add_(x.sum()), "same device"),
        (lambda x: torch.stack([x.sum(), torch.zeros(())]), "same device"),
        (lambda x: torch.ones(3)[x.long()], "same device"),
        (lambda x: x.index_add(0, torch.tensor([0, 1, 2]), x), "same device"),
        (lambda x: np.asarray(x), "can't convert cuda:0"),
        (lambda x: x.numpy(), "can't convert cuda:0"),
        (lambda x: torch.randn(3, device="cuda", generator=torch.Generator()), "generator"),
    ],
)
def test_what_mixes_the_devices_raises(gpu, mistake, message):
    x = torch.arange(3.0).to("cuda")
    with pytest.raises((RuntimeError, TypeError), match=message):
        mistake(x)


def test_numbers_on_the_host_may_take_part(gpu):
    x = torch.arange(3.0).to("cuda")
    before = gpu.totals
    assert (x * torch.tensor(2.0) + 1).is_cuda
    assert gpu.totals.since(before)[1:] == (0, 0)


@pytest.mark.parametrize(
    ("call", "waits", "copies"),
    [
        (lambda x: x.sum().item(), 1, 0),
        (lambda x: bool((x > 0).any()), 1, 0),
        (lambda x: x[x > 0], 1, 0),
        (lambda x: x[torch.tensor([0, 1])], 1, 1),
        (lambda x: x.nonzero(), 1, 0),
        (lambda x: x.cpu(), 1, 1),
        (lambda x: x.tolist(), 1, 1),
        (lambda x: torch.ones(3).to("cuda"), 1, 1),
        (lambda x: torch.ones(3).to("cuda", non_blocking=True), 1, 1),
        (lambda x: torch.ones(3).pin_memory().to("cuda", non_blocking=True), 0, 1),
        (lambda x: x.repeat_interleave(torch.ones(3, dtype=torch.long, device="cuda")), 1, 0),
        (lambda x: x.repeat_interleave(torch.ones(3, dtype=torch.long, device="cuda"), output_size=3), 0, 0),
        (lambda x: torch.where(x > 0, x, -x).cumsum(0), 0, 0),
    ],
)
def test_waits_and_copies(gpu, call, waits, copies):
    x = torch.arange(3.0).to("cuda")
    before = gpu.totals
    call(x)
    assert gpu.totals.since(before)[1:] == (waits, copies), (gpu.waits, gpu.copies)
    assert all(("test_pretend_gpu.py:" in place) for place in (*gpu.waits, *gpu.copies))


def test_views_launch_nothing_and_operators_do(gpu):
    x = torch.ones(4, 3, device="cuda")
    before = gpu.totals
    x.view(12)[2:].reshape(5, 2).T.detach()
    assert gpu.totals.since(before).launches == 0
    (x * 2).sum()
    assert gpu.totals.since(before).launches == 2


def test_the_optimiser_works_on_all_weights_at_once(gpu):
    net = torch.nn.Sequential(*[torch.nn.Linear(3, 3) for _ in range(10)]).to("cuda")
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(2):
        net(torch.ones(1, 3, device="cuda")).sum().backward()
        before = gpu.totals
        optimizer.step()
    assert gpu.totals.since(before).waits == 0
    assert gpu.totals.since(before).launches < 20


class Scaled(torch.nn.Module):
    """A module with a constant tensor, as e3nn's code in TorchScript."""

    def __init__(self):
        super().__init__()
        self.register_buffer("factor", torch.arange(2.0))

    def forward(self, x):
        return self.factor * x


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_files_say_where_their_tensors_were():
    buffer, script = io.BytesIO(), io.BytesIO()
    with pretend_gpu():
        net = torch.nn.Linear(2, 2).to("cuda")
        torch.save({"net": net.state_dict(), "twice": [net.weight, net.weight]}, buffer)
        torch.jit.save(torch.jit.script(Scaled()).to("cuda"), script)
        again = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
        assert again["net"]["weight"].is_cuda
        assert again["twice"][0] is again["twice"][1]
        assert isinstance(again["twice"][0], torch.nn.Parameter)
        assert not torch.load(io.BytesIO(buffer.getvalue()), map_location="cpu")["net"]["weight"].is_cuda
        assert torch.jit.load(io.BytesIO(script.getvalue())).factor.is_cuda
        assert not torch.jit.load(io.BytesIO(script.getvalue()), map_location="cpu").factor.is_cuda
    with pytest.raises(RuntimeError, match="on a CUDA device but"):
        torch.load(io.BytesIO(buffer.getvalue()))
    with pytest.raises((RuntimeError, NotImplementedError), match="CUDA"):
        torch.jit.load(io.BytesIO(script.getvalue()))
    elsewhere = torch.load(io.BytesIO(buffer.getvalue()), map_location="cpu")
    torch.testing.assert_close(elsewhere["net"]["bias"], net.bias.inner, rtol=0, atol=0)
