"""Which part of a model makes its derivative test fail, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from hint_plugins.curvature.engines import ForceView
from hint_plugins.curvature.kinks import NOISE, copies_differ, forces_jump, forces_noise, module_kink

log = logging.getLogger(__name__)

#: Kinds of modules whose third derivative is known to be wrong or undefined, with what to do.
KNOWN_BAD: dict[type[nn.Module], str] = {
    nn.modules.batchnorm._BatchNorm: "freeze it (eval mode) or take a LayerNorm",
    nn.modules.instancenorm._InstanceNorm: "take a GroupNorm, whose derivatives are right",
}
RANDOM = (nn.modules.dropout._DropoutNd,)


def leaf_inputs(model: nn.Module, make_view: Callable[[], ForceView]) -> dict[str, Tensor]:
    """First input of every leaf module that maps one floating-point tensor, by the module's name."""
    inputs: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if not any(True for _ in module.children()) and not isinstance(module, torch.jit.ScriptModule):

            def record(_: nn.Module, args: tuple, name: str = name) -> None:
                if len(args) == 1 and isinstance(args[0], Tensor) and args[0].is_floating_point():
                    inputs.setdefault(name, args[0].detach().clone())

            handles.append(module.register_forward_pre_hook(record))
    try:
        make_view().force_graph()
    except Exception as error:  # what came before is known all the same
        log.debug("forces raised: %s", error)
    finally:
        for handle in handles:
            handle.remove()
    return inputs


def find_guilty(model: nn.Module, make_view: Callable[[], ForceView]) -> Iterator[tuple[str, str]]:
    """Leaf modules whose own third derivative disagrees with finite differences, by name and reason.

    Every leaf module that maps one floating-point tensor to one is fed its recorded input and tested alone.
    """
    modules = dict(model.named_modules())
    for name, value in leaf_inputs(model, make_view).items():
        module = modules[name]
        advice = next((why for kind, why in KNOWN_BAD.items() if isinstance(module, kind) and module.training), None)
        if advice is not None:
            yield name, f"{type(module).__name__} has a wrong third derivative: {advice}"
            continue
        if isinstance(module, RANDOM) and module.training and module.p > 0:
            yield name, f"{type(module).__name__} draws a new mask in every evaluation: set its probability to 0"
            continue
        try:
            errors = {order: _derivative_error(module, value, order) for order in (1, 2, 3)}
        except Exception as raised:
            text = (str(raised).strip() or type(raised).__name__).splitlines()[0]
            yield name, f"{type(module).__name__} raises in its derivatives: {text}"
            continue
        wrong = next((order for order, error in errors.items() if error > 1e-4), 0)
        if wrong and not module_kink(module, value):
            kind = ("first", "second", "third")[wrong - 1]
            yield name, f"{type(module).__name__} has a wrong {kind} derivative (relative error {errors[wrong]:.1e})"


def find_numerics(make_view: Callable[[], ForceView]) -> list[str]:
    """Reasons for large errors that no rule of derivation has."""
    try:
        repeated, noise = forces_noise(make_view())
        coupled = copies_differ(make_view())
    except Exception as error:
        log.debug("forces raised: %s", error)
        return []
    if repeated > NOISE:
        return [f"two evaluations at the same positions differ by {repeated:.0e} (relative): a random layer (dropout)?"]
    if coupled > NOISE:
        return [
            f"the forces of a structure change by {coupled:.0e} (relative) with what else is in its batch: a layer "
            "mixes structures (normalisation over the batch, attention)"
        ]
    if noise > NOISE:
        return [
            f"the forces carry noise of {noise:.0e} (relative), as of single precision inside the model, so that this "
            "check cannot judge them: let the model compute in the precision of its input; or, if you know its "
            "derivatives to be right, switch the check off with hessian_selftest False"
        ]
    return []


def find_kinks(model: nn.Module, make_view: Callable[[], ForceView]) -> list[str]:
    """Modules that are not smooth near their inputs, or else whether the forces of the model jump."""
    found = []
    modules = dict(model.named_modules())
    try:
        for name, value in leaf_inputs(model, make_view).items():
            module = modules[name]
            if isinstance(module, (nn.Identity, *RANDOM)) or any(p.dim() > 1 for p in module.parameters()):
                continue  # linear maps have no kinks
            why = module_kink(module, value)
            if why:
                found.append(f"{name}: {type(module).__name__} {why}; take a smooth function (SiLU, softplus)")
        if not found and forces_jump(make_view()):
            found.append("the forces of the model jump: a kink or step (|x|, ReLU, clamp, rounding, a hard cutoff)")
    except Exception as error:
        log.debug("looking for kinks raised: %s", error)
    return found


def third_derivative_error(function: Callable[[Tensor], Tensor], value: Tensor, seed: int = 0) -> float:
    """Relative error of the third derivative of ``function`` at ``value`` (float64), along random directions.

    Returns 0 when the function has no third derivative to speak of (linear maps), infinity when it raises.
    """
    try:
        return _derivative_error(function, value, 3, seed)
    except (RuntimeError, NotImplementedError) as error:
        log.debug("third derivative raised: %s", error)
        return float("inf")


def _derivative_error(function: Callable[[Tensor], Tensor], value: Tensor, order: int, seed: int = 0) -> float:
    """Relative error of the derivative of the given order, against central differences of the one below it."""
    generator = torch.Generator().manual_seed(seed)

    def random(shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=value.dtype).to(value.device)

    directions = [random(value.shape) for _ in range(order)]
    with torch.no_grad():
        sample = function(value)
    if not isinstance(sample, Tensor):
        return 0.0
    weight = random(sample.shape)

    def below(x: Tensor) -> Tensor:
        """Derivative of order - 1 along the first directions, with a graph."""
        y = function(x)
        quantity = (weight * (y + 0.5 * y * y)).sum()  # the square, so that a linear map is derived twice as well
        for direction in directions[:-1]:
            quantity = _along(quantity, x, direction)
        return quantity

    leaf = value.clone().requires_grad_(True)
    analytic = float(_along(below(leaf), leaf, directions[-1]).detach())
    h = 1e-5
    plus, minus = (below((value + sign * h * directions[-1]).requires_grad_(True)) for sign in (1, -1))
    numeric = float(plus.detach() - minus.detach()) / (2 * h)
    size = max(abs(analytic), abs(numeric))
    return abs(analytic - numeric) / size if size > 1e-6 else 0.0


def _along(quantity: Tensor, x: Tensor, direction: Tensor) -> Tensor:
    """Derivative of a scalar along ``direction``, with a graph; 0 where it does not depend on ``x``."""
    if not quantity.requires_grad:
        return x.new_zeros(())
    (gradient,) = torch.autograd.grad(quantity, x, create_graph=True, allow_unused=True)
    return x.new_zeros(()) if gradient is None else (gradient * direction).sum()
