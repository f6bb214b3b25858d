import copy
import re

import pytest
import torch
from ase import Atoms
from helpers.devices import DEVICES
from torch import nn

from hint_plugins.curvature.engines import ForceView
from hint_plugins.curvature.kinks import forces_jump
from hint_plugins.curvature.layer_norm import ExactLayerNorm, restore_layer_norms, swap_layer_norms
from hint_plugins.curvature.selftest import TOLERANCE, check_derivatives, third_derivative_error
from hint_plugins.models.alphanet import AlphaNet
from hint_plugins.potential.backends.energy_models import EnergyModelBackend
from hint_plugins.testing.toy import ToyPotential, toy_view


def report(model, device="cpu"):
    torch.manual_seed(1)
    model = model.double().to(device)
    positions = torch.randn(5, 3, dtype=torch.float64, device=device)
    return check_derivatives(model, lambda: toy_view(model, positions, [5]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "norm",
    [
        None,
        pytest.param(
            nn.GroupNorm(2, 8),
            marks=pytest.mark.needs_real_gpu("torch aborts in its double backward on a device written in Python"),
        ),
        nn.RMSNorm(8),
        ExactLayerNorm(8),
    ],
)
def test_right_models_pass(norm, device):
    torch.manual_seed(0)
    result = report(ToyPotential(norm), device)
    assert result.ok
    assert result.guilty == []
    assert result.gradient_error < 1e-6


@pytest.mark.parametrize(("norm", "name"), [(nn.LayerNorm(8), "LayerNorm"), (nn.BatchNorm1d(8), "BatchNorm1d")])
def test_wrong_models_fail_and_the_module_is_named(norm, name):
    torch.manual_seed(0)
    result = report(ToyPotential(norm))
    assert not result.ok
    assert result.hvp_error < 1e-6, "second derivatives are right; only the third one is not"
    assert result.gradient_error > 100 * TOLERANCE
    assert len(result.guilty) == 1
    assert result.guilty[0].startswith("norm: " + name)


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 4, "hidden_channels": 128, "elements": (1, 8)},
        {"variant": "square", "num_layers": 4, "hidden_channels": 128, "num_radial": 64, "main_chi1": 32, "chi2": 8},
    ],
    ids=["smooth", "square"],
)
def test_networks_of_published_size_pass(options):
    """Moved parameters must leave a wide, deep network in the range of numbers it works in."""
    torch.manual_seed(0)
    model = AlphaNet(cutoff=5.0, **options).double()
    water = Atoms("OH2", [[0.02, 0.0, 0.01], [0.98, 0.05, 0.0], [-0.27, 0.93, 0.08]])
    backend = EnergyModelBackend(model, "AlphaNet")
    model.requires_grad_(True)
    report = check_derivatives(model, lambda: backend.view([water])[0])
    assert report.ok, report.explanation()
    assert not report.kinks


def test_swapping_layer_norm_mends_the_model_and_is_undone():
    torch.manual_seed(0)
    model = ToyPotential(nn.LayerNorm(8)).double()
    nn.init.normal_(model.norm.weight)
    nn.init.normal_(model.norm.bias)
    before = copy.deepcopy(model.state_dict())
    weight = model.norm.weight
    assert swap_layer_norms(model) == ["norm"]
    assert report(model).ok
    assert model.norm.weight is weight, "optimisers keep their references"
    assert restore_layer_norms(model) == ["norm"]
    assert type(model.norm) is nn.LayerNorm
    assert list(model.state_dict()) == list(before)
    for key, value in before.items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=0, atol=0)


class Wrapped(nn.Module):
    """A function as a module, after nothing or behind a gate."""

    def __init__(self, function, gate=None):
        super().__init__()
        self.function = function
        self.gate = None if gate is None else nn.Parameter(torch.tensor(gate))

    def forward(self, x):
        return self.function(x) if self.gate is None else x + self.gate * self.function(x)


class WrongOrder(torch.autograd.Function):
    """x^4 whose derivative of order 1, 2 or 3 is wrong by 10 %."""

    @staticmethod
    def forward(ctx, x, factors):
        ctx.save_for_backward(x)
        ctx.factors = factors
        return x**4 / 24

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * Cubic.apply(x, ctx.factors), None


class Cubic(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factors):
        ctx.save_for_backward(x)
        ctx.factors = factors
        return factors[0] * x**3 / 6

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * Square.apply(x, ctx.factors), None


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factors):
        ctx.save_for_backward(x)
        ctx.factors = factors
        return ctx.factors[1] * x**2 / 2

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * ctx.factors[2] * x, None


class Raises(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return Once.apply(g)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, g):
        return g.clone()

    @staticmethod
    def backward(ctx, g):
        raise NotImplementedError("this kernel has no double backward")


@pytest.mark.parametrize("gate", [0.0, 1e-6, 1e-2])
def test_a_wrong_module_behind_a_closed_gate_is_found(gate):
    torch.manual_seed(0)
    norm = nn.LayerNorm(8)
    for seed in range(3):
        torch.manual_seed(seed)
        model = ToyPotential(Wrapped(nn.functional.silu, gate))
        assert report(model).ok
        model = ToyPotential(Wrapped(norm, gate))
        before = copy.deepcopy(model.double().state_dict())
        result = report(model)
        assert not result.ok
        assert any("LayerNorm has a wrong third derivative" in line for line in result.guilty)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_wrong_module_before_a_last_layer_of_zeros_is_found():
    torch.manual_seed(0)
    for norm, right in ((nn.LayerNorm(8), False), (None, True)):
        model = ToyPotential(norm)
        nn.init.zeros_(model.second.weight)
        assert report(model).ok is right


@pytest.mark.parametrize(
    ("factors", "order"), [((1.1, 1, 1), "first"), ((1, 1.1, 1), "second"), ((1, 1, 1.1), "third")]
)
def test_the_order_of_the_wrong_derivative_is_named(factors, order):
    torch.manual_seed(0)
    assert report(ToyPotential(Wrapped(lambda x: WrongOrder.apply(x, (1, 1, 1))))).ok
    result = report(ToyPotential(Wrapped(lambda x: WrongOrder.apply(x, factors))))
    assert not result.ok
    assert result.guilty[0].startswith(f"norm: Wrapped has a wrong {order} derivative")


def test_an_error_raised_in_a_derivative_is_a_finding():
    torch.manual_seed(0)
    result = report(ToyPotential(Wrapped(Raises.apply)))
    assert not result.ok
    assert result.raised == "NotImplementedError: this kernel has no double backward"
    assert result.guilty == ["norm: Wrapped raises in its derivatives: this kernel has no double backward"]
    assert "this kernel has no double backward" in result.explanation()


class Gated(nn.Module):
    """Two inputs, so that it cannot be tested alone; its product has no double backward, or no forward pass."""

    def __init__(self, product):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.product = product

    def forward(self, x, y):
        return y + self.product(torch.tanh(self.linear(x)) * y)


class Refuses(torch.autograd.Function):
    """Its derivative is an elementary operation, whose own derivative is refused."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 2 * Raises.apply(x)


def too_narrow(x):
    return x + torch.zeros(3, dtype=x.dtype, device=x.device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("product", "message"),
    [
        (Raises.apply, "NotImplementedError: this kernel has no double backward"),
        (Refuses.apply, "NotImplementedError: this kernel has no double backward"),
        (too_narrow, "RuntimeError: The size of tensor a"),
    ],
)
def test_an_error_names_the_module_where_it_arose(product, message, device):
    """Modules of several inputs cannot be tested alone; the forward call behind the failing derivative names them."""
    torch.manual_seed(0)
    result = report(ToyPotential(Gate(Gated(product))), device)
    assert not result.ok
    assert result.raised.startswith(message)
    assert result.guilty[0].startswith("norm.inner: Gated (test_selftest.py, line ")
    assert "raises in its derivatives" in result.explanation()
    assert not torch.is_anomaly_enabled()


class Gate(nn.Module):
    """Gives a module its second input."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x, torch.sin(x))


def test_modules_that_cannot_be_told_apart_are_all_named():
    torch.manual_seed(0)
    model = ToyPotential(nn.Sequential(*(Gate(Gated(product)) for product in (torch.sin, Raises.apply))))
    (line,) = report(model).guilty
    assert line.startswith("norm.0.inner or norm.1.inner: Gated (test_selftest.py, line ")
    assert "return y + self.product(torch.tanh(self.linear(x)) * y)" in line


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (nn.functional.relu, "kink"),
        (torch.abs, "kink"),
        (lambda x: x.clamp(-0.3, 0.3), "kink"),
        (lambda x: x + torch.round(10 * x), "jumps"),
    ],
)
def test_kinks_are_reported_as_such(function, word):
    torch.manual_seed(0)
    result = report(ToyPotential(Wrapped(function)))
    assert len(result.kinks) == 1
    assert word in result.kinks[0]
    assert result.kinks[0].startswith("norm: ")
    assert result.guilty == []


@pytest.mark.parametrize(
    "function", [torch.tanh, torch.sin, lambda x: torch.softmax(x, -1), lambda x: torch.tanh(9 * x)]
)
def test_smooth_functions_have_no_kinks(function):
    torch.manual_seed(0)
    result = report(ToyPotential(Wrapped(function)))
    assert result.ok
    assert result.kinks == []


def test_a_step_in_the_forces_of_a_model_without_modules_is_reported():
    torch.manual_seed(0)
    model = ToyPotential().double()
    view = toy_view(model, torch.randn(4, 3, dtype=torch.float64), [4])
    stepped = ForceView(view.positions, lambda x: view.forces_at(x) + (x[..., :1] > view.positions[0, 0]).to(x))
    assert forces_jump(stepped)
    assert not forces_jump(view)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: nn.functional.silu(x.float()).double(), "single precision inside.*hessian_selftest False"),
        (lambda x: nn.functional.dropout(x, 0.5), "two evaluations at the same positions differ"),
        (lambda x: x * torch.rand(()), "two evaluations at the same positions differ"),
    ],
)
def test_what_the_check_cannot_judge_is_said(function, message):
    torch.manual_seed(0)
    result = report(ToyPotential(Wrapped(function)))
    assert not result.ok
    assert re.search(message, result.explanation())


def test_structures_that_influence_each_other_are_reported():
    torch.manual_seed(0)
    positions = torch.randn(4, 3, dtype=torch.float64)

    def forces_at(copies):
        leaf = copies if copies.requires_grad else copies.detach().requires_grad_(True)
        energy = (leaf - leaf.mean(dim=(0, 1), keepdim=True)).pow(4).sum()
        return -torch.autograd.grad(energy, leaf, create_graph=True)[0]

    model = nn.Linear(1, 1).double()
    result = check_derivatives(model, lambda: ForceView(positions, forces_at))
    assert not result.ok
    assert "with what else is in its batch" in result.explanation()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(8,), (3, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_layer_norm_is_the_same_function(affine, shape, dtype):
    torch.manual_seed(0)
    fused = nn.LayerNorm(shape, elementwise_affine=affine, dtype=dtype)
    exact = copy.deepcopy(fused)
    exact.__class__ = ExactLayerNorm
    x = torch.randn(5, 3, 8, dtype=dtype)
    torch.testing.assert_close(exact(x), fused(x))


@pytest.mark.parametrize(
    ("module", "shape", "right"),
    [
        (nn.LayerNorm(6), (4, 6), False),
        (nn.BatchNorm1d(6), (4, 6), False),
        (nn.InstanceNorm1d(3), (2, 3, 6), False),
        (nn.Linear(6, 6), (4, 6), True),
        (nn.SiLU(), (4, 6), True),
        (nn.GroupNorm(2, 6), (4, 6), True),
    ],
)
def test_third_derivative_of_single_modules(module, shape, right):
    torch.manual_seed(0)
    error = third_derivative_error(module.double(), torch.randn(*shape, dtype=torch.float64))
    assert (error < 1e-6) is right


def test_single_precision_is_refused():
    model = ToyPotential()
    with pytest.raises(ValueError, match="float64"):
        check_derivatives(model, lambda: toy_view(model, torch.randn(3, 3), [3]))


def test_parameters_are_left_as_they_were():
    torch.manual_seed(0)
    model = ToyPotential().double()
    before = [p.detach().clone() for p in model.parameters()]
    report(model)
    for p, b in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, b)
