import threading

import pytest
import torch
from helpers.devices import DEVICES
from helpers.registered import registered
from torch import nn

from hint_plugins.curvature.auto import fastest_engine, measure_engines
from hint_plugins.curvature.engines import EXACT, FiniteDifference, ForceView, get_engine
from hint_plugins.curvature.full import full_hessians
from hint_plugins.registries import registries
from hint_plugins.testing.toy import ToyPotential, toy_view

SIZES = [3, 1, 4]


@pytest.fixture(params=DEVICES)
def setting(request):
    torch.manual_seed(0)
    model = ToyPotential().double().to(request.param)
    positions = torch.randn(sum(SIZES), 3, dtype=torch.float64, device=request.param)
    return model, positions


def finite_difference_hessian(view, h=1e-4):
    positions = view.positions
    rows = []
    for component in range(positions.numel()):
        shift = torch.zeros(positions.numel(), dtype=positions.dtype, device=positions.device)
        shift[component] = h
        shift = shift.view_as(positions)
        plus, minus = view.forces_at(torch.stack([positions + shift, positions - shift])).detach()
        rows.append(((minus - plus) / (2 * h)).reshape(-1))
    return torch.stack(rows)


@pytest.mark.parametrize("name", list(registries().engines))
def test_products_equal_finite_differences_of_forces(setting, name):
    model, positions = setting
    reference = finite_difference_hessian(toy_view(model, positions, SIZES))
    probes = torch.randn(4, len(positions), 3, dtype=torch.float64, device=positions.device)
    products = get_engine(name)(toy_view(model, positions, SIZES), probes)
    expected = (probes.flatten(1) @ reference).view_as(probes)
    tolerance = 1e-4 if name.endswith("one_sided") else 1e-6
    assert (products - expected).abs().max() / expected.abs().max() < tolerance
    assert products.requires_grad


@pytest.mark.parametrize("name", EXACT)
def test_parameter_gradient_of_the_loss_equals_finite_differences(setting, name):
    model, positions = setting
    probes = torch.randn(2, len(positions), 3, dtype=torch.float64, device=positions.device)
    target = torch.randn_like(probes)

    def loss():
        return (get_engine(name)(toy_view(model, positions, SIZES), probes) - target).square().sum()

    weights = list(model.parameters())
    gradients = torch.autograd.grad(loss(), weights, allow_unused=True, materialize_grads=True)
    directions = [torch.randn_like(w) for w in weights]
    analytic = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for w, d in zip(weights, directions, strict=True):
                w.add_(d, alpha=sign * 1e-5)
        values.append(loss().detach())
        with torch.no_grad():
            for w, d in zip(weights, directions, strict=True):
                w.add_(d, alpha=-sign * 1e-5)
    numeric = (values[0] - values[1]) / 2e-5
    assert abs(numeric - analytic) / abs(numeric) < 1e-6


def test_reverse_reuses_the_graph_that_is_there(setting):
    model, positions = setting
    view = toy_view(model, positions, SIZES)
    graph = view.force_graph()
    view.forces_at = None  # a second evaluation would fail
    probes = torch.randn(1, len(positions), 3, dtype=torch.float64, device=positions.device)
    assert get_engine("reverse")(view, probes).shape == probes.shape
    assert view.force_graph() is graph


@pytest.mark.parametrize("name", list(registries().engines))
def test_a_lone_atom_has_no_curvature(name):
    model = ToyPotential().double()
    view = toy_view(model, torch.zeros(1, 3, dtype=torch.float64), [1])
    products = get_engine(name)(view, torch.ones(2, 1, 3, dtype=torch.float64))
    assert products.abs().max() == 0


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_whole_hessians_are_the_diagonal_blocks(setting, name, chunk):
    model, positions = setting
    reference = finite_difference_hessian(toy_view(model, positions, SIZES))
    hessians = full_hessians(toy_view(model, positions, SIZES), SIZES, get_engine(name), chunk=chunk)
    start = 0
    for size, hessian in zip(SIZES, hessians, strict=True):
        block = reference[start : start + 3 * size, start : start + 3 * size]
        assert hessian.shape == block.shape
        assert (hessian - block).abs().max() < 1e-6
        assert (hessian - hessian.T).abs().max() < 1e-12
        start += 3 * size


def test_whole_hessians_refuse_sizes_that_do_not_add_up(setting):
    model, positions = setting
    with pytest.raises(ValueError, match="positions hold 8"):
        full_hessians(toy_view(model, positions, SIZES), [3, 1])


def test_finite_difference_step_is_the_largest_displacement():
    seen = []

    class Recorder:
        positions = torch.zeros(2, 3, dtype=torch.float64)
        graph = None

        def forces_at(self, copies):
            seen.append(copies)
            return torch.zeros_like(copies)

    probes = torch.tensor([[[3.0, 0, 0], [0, 0, -6.0]]], dtype=torch.float64)
    FiniteDifference(step=0.01)(Recorder(), probes)
    assert seen[0].abs().max() == pytest.approx(0.01)


class Scripted(nn.Module):
    """An energy in TorchScript, as e3nn's operations are."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 8)
        self.second = nn.Linear(8, 1)

    def forward(self, positions):
        y = self.first(positions)
        y = torch.sigmoid(y) * y
        return self.second(y * torch.exp(-y * y)).sum()


def in_a_thread_of_its_own(grad):
    """``torch.autograd.grad`` as it runs for CUDA: in a thread that no thread-local setting of the caller reaches."""

    def run(*args, **kwargs):
        if not torch._C._is_multithreading_enabled():
            return grad(*args, **kwargs)
        found = []

        def work():
            try:
                found.append(grad(*args, **kwargs))
            except RuntimeError as error:
                found.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if isinstance(found[0], RuntimeError):
            raise found[0]
        return found[0]

    return run


@pytest.mark.parametrize("device", DEVICES)
def test_scripted_models_are_vectorised_whatever_thread_runs_the_backward_pass(device, monkeypatch):
    """TorchScript's profiling executor comes into play in the third call."""
    torch.manual_seed(0)
    model = torch.jit.script(Scripted().double()).to(device)
    positions = torch.randn(5, 3, dtype=torch.float64).to(device)
    probes = torch.randn(4, 5, 3, dtype=torch.float64).to(device)

    def forces_at(copies):
        with torch.enable_grad():
            leaf = copies if copies.requires_grad else copies.detach().requires_grad_(True)
            return -torch.autograd.grad(model(leaf), leaf, create_graph=True)[0]

    expected = get_engine("reverse")(ForceView(positions, forces_at), probes)
    if device == "cpu":
        monkeypatch.setattr(torch.autograd, "grad", in_a_thread_of_its_own(torch.autograd.grad))
    for _ in range(4):
        products = get_engine("vmap")(ForceView(positions, forces_at), probes)
        torch.testing.assert_close(products, expected)
        gradients = torch.autograd.grad(products.square().sum(), list(model.parameters()), allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in gradients)


def test_a_kernel_that_cannot_be_vectorised_is_said(setting):
    """torch has no batching rule for a view operation of this kind under the older vmap of autograd."""

    class NoRule(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return -4 * x**3

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad.as_strided(grad.shape, grad.stride()) * (-12 * x**2) if grad.data_ptr() else grad

    positions = torch.randn(4, 3, dtype=torch.float64, device=setting[1].device)
    view = ForceView(positions, NoRule.apply)
    with pytest.raises(RuntimeError, match=r"vmap does not run here.*take replicate or reverse"):
        get_engine("vmap")(view, torch.ones(2, 4, 3, dtype=torch.float64, device=positions.device))


def test_unknown_engine_is_named():
    with pytest.raises(ValueError, match="unknown HVP engine 'jvp'"):
        get_engine("jvp")


def test_engines_are_measured_and_broken_ones_left_out(setting):
    model, positions = setting
    probes = torch.randn(2, len(positions), 3, dtype=torch.float64, device=positions.device)

    def broken(view, probes, create_graph=True):
        raise RuntimeError("no batching rule")

    with registered(engines={"broken": broken}):
        seconds = measure_engines(
            lambda: toy_view(model, positions, SIZES), probes, model.parameters(), ("reverse", "broken"), repeats=1
        )
    assert list(seconds) == ["reverse"]
    assert fastest_engine({"a": 2.0, "b": 1.0}) == "b"
    with pytest.raises(RuntimeError, match="finite_difference"):
        fastest_engine({})
    assert all(p.grad is None for p in model.parameters())
