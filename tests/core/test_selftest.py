import copy

import pytest
import torch
from helpers.devices import DEVICES
from helpers.toy import ToyPotential, toy_view
from torch import nn

from hint_plugins.curvature.layer_norm import ExactLayerNorm, restore_layer_norms, swap_layer_norms
from hint_plugins.curvature.selftest import TOLERANCE, check_derivatives, third_derivative_error


def report(model, device="cpu"):
    torch.manual_seed(1)
    model = model.double().to(device)
    positions = torch.randn(5, 3, dtype=torch.float64, device=device)
    return check_derivatives(model, lambda: toy_view(model, positions, [5]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("norm", [None, nn.GroupNorm(2, 8), nn.RMSNorm(8), ExactLayerNorm(8)])
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
