"""Are the model's second and third derivatives right? Asked before training, in float64.

The gradient of a Hessian loss with respect to the parameters is a third derivative of the energy. Some fused kernels
(torch's ``layer_norm`` among them) get it silently wrong. Both checks compare with central differences along one
random direction, so they cost a handful of evaluations whatever the size of the model. They are made twice: at the
model's parameters and at parameters moved a little, since what lies behind a gate or last layer that is still zero
shows only then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hint_plugins.curvature.engines import ForceView, reverse
from hint_plugins.curvature.kinks import NOISE, copies_differ, forces_jump, forces_noise, module_kink

log = logging.getLogger(__name__)

#: Largest relative error that passes. Exact models reach 1e-9; a wrong rule shows up above 1e-4.
TOLERANCE = 1e-5

#: How far parameters are moved for the second check: relative to the mean of a tensor, and at least (absolute).
MOVE, LEAST_MOVE = 0.1, 0.3

#: Kinds of modules whose third derivative is known to be wrong or undefined, with what to do.
KNOWN_BAD: dict[type[nn.Module], str] = {
    nn.modules.batchnorm._BatchNorm: "freeze it (eval mode) or take a LayerNorm",
    nn.modules.instancenorm._InstanceNorm: "take a GroupNorm, whose derivatives are right",
}
RANDOM = (nn.modules.dropout._DropoutNd,)


class SelfTestError(RuntimeError):
    """The model's derivatives are wrong, so an exact Hessian loss cannot be trained."""


@dataclass
class SelfTestReport:
    """Result of :func:`check_derivatives`; errors are relative.

    Attributes
    ----------
    hvp_error
        Hessian-vector product against central differences of forces: ``w . (J^T z) = z . (J w)``, which also
        holds for direct forces, whose Jacobian J is not symmetric.
    gradient_error
        Directional derivative of the Hessian loss along the parameters against central differences.
    guilty
        Names of modules found wrong, with the reason.
    kinks
        Modules, or the model, that are not smooth near the tested structures; reported, and refused only when the
        errors are too large.
    raised
        The error that a derivative raised, "" if none did.
    """

    hvp_error: float
    gradient_error: float
    guilty: list[str] = field(default_factory=list)
    kinks: list[str] = field(default_factory=list)
    raised: str = ""

    @property
    def ok(self) -> bool:
        return not self.raised and self.hvp_error <= TOLERANCE and self.gradient_error <= TOLERANCE

    def explanation(self) -> str:
        """What was found wrong, in words."""
        figures = f"HVP {self.hvp_error:.1e}, gradient of the Hessian loss {self.gradient_error:.1e}, relative"
        start = f"a derivative raises: {self.raised}" if self.raised else f"errors are too large ({figures})"
        return "; ".join([start, *(self.guilty or self.kinks or ["no single module could be named"])])


def check_derivatives(
    model: nn.Module,
    make_view: Callable[[], ForceView],
    seed: int = 0,
    steps: tuple[float, ...] = (1e-4, 1e-5),
) -> SelfTestReport:
    """Check HVP and gradient of the Hessian loss against finite differences.

    Parameters
    ----------
    model
        The model whose parameters ``make_view`` uses, in float64. It is perturbed and restored.
    make_view
        Makes a fresh :class:`ForceView` (float64) of a few structures.
    seed
        Of the random directions.
    steps
        Relative steps of the central differences along the parameters; the best agreement counts, since
        truncation and rounding errors trade places.

    Returns
    -------
    SelfTestReport
    """
    if make_view().positions.dtype != torch.float64:
        raise ValueError(f"the self-test needs float64 positions, got {make_view().positions.dtype}")
    weights = [p for p in model.parameters() if p.requires_grad and p.is_floating_point()]
    generator = torch.Generator().manual_seed(seed + 1)
    moves = [
        (torch.rand(w.shape, generator=generator, dtype=w.dtype) + 0.5).to(w.device)
        * torch.randn(w.shape, generator=generator, dtype=w.dtype).sign().to(w.device)
        * (MOVE * w.detach().abs().mean()).clamp_min(LEAST_MOVE)
        for w in weights
    ]
    report = SelfTestReport(0.0, 0.0)
    for size, seeds in ((0.0, [seed]), (1.0, [seed, seed + 1])):
        with _shifted(weights, moves, size):
            for one in seeds:
                _check_here(report, model, make_view, one, steps)
            if not report.ok:
                report.guilty = [f"{name}: {why}" for name, why in find_guilty(model, make_view)]
                report.guilty += _numerics(make_view)
            if not report.ok or size:
                report.kinks = _kinks(model, make_view)
        if not report.ok:
            break
    return report


def _check_here(
    report: SelfTestReport,
    model: nn.Module,
    make_view: Callable[[], ForceView],
    seed: int,
    steps: tuple[float, ...],
) -> None:
    """Raise the errors of ``report`` to those at the present parameters."""
    generator = torch.Generator().manual_seed(seed)

    def random_like(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype).to(tensor.device)

    try:
        view = make_view()
        probe, direction = random_like(view.positions), random_like(view.positions)
        exact = reverse(view, probe[None], create_graph=False)[0]
        analytic = float((exact * direction).sum())
        errors = []
        for h in (1e-3, 1e-4, 1e-5):
            shift = h * direction
            plus, minus = view.forces_at(torch.stack([view.positions + shift, view.positions - shift])).detach()
            numeric = float(((minus - plus) * probe).sum()) / (2 * h)
            errors.append(abs(analytic - numeric) / (float(exact.norm()) or 1.0))
        report.hvp_error = _larger(report.hvp_error, min(errors))
        found = _gradient_error(model, make_view, probe, exact, random_like, steps)
        report.gradient_error = _larger(report.gradient_error, found)
    except Exception as error:  # whatever a model's own code raises is a finding
        report.hvp_error = report.gradient_error = float("inf")
        report.raised = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"


def _larger(first: float, second: float) -> float:
    """The larger error; NaN counts as infinite."""
    return max(first, second if second == second else float("inf"))


def _numerics(make_view: Callable[[], ForceView]) -> list[str]:
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


def _kinks(model: nn.Module, make_view: Callable[[], ForceView]) -> list[str]:
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


def _gradient_error(
    model: nn.Module,
    make_view: Callable[[], ForceView],
    probe: Tensor,
    product: Tensor,
    random_like: Callable[[Tensor], Tensor],
    steps: tuple[float, ...],
) -> float:
    """Relative error of d(loss)/d(parameters) along one random direction of all parameters."""
    weights = [p for p in model.parameters() if p.requires_grad and p.is_floating_point()]
    target = product + product.abs().mean().clamp_min(1e-3) * random_like(product)

    def loss(create_graph: bool) -> Tensor:
        return (reverse(make_view(), probe[None], create_graph=create_graph)[0] - target).square().mean()

    gradients = torch.autograd.grad(loss(True), weights, allow_unused=True)
    directions = [random_like(w) * w.detach().abs().mean().clamp_min(1e-3) for w in weights]
    analytic = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True) if g is not None)
    scale = sum(float((g * d).square().sum()) for g, d in zip(gradients, directions, strict=True) if g is not None)
    errors = []
    for step in steps:
        values = []
        for sign in (step, -step):
            with _shifted(weights, directions, sign):
                values.append(float(loss(False)))
        numeric = (values[0] - values[1]) / (2 * step)
        errors.append(abs(numeric - analytic) / max(abs(numeric), abs(analytic), scale**0.5, 1e-12))
    return min(errors)


class _shifted:
    """Parameters moved along ``directions`` by ``step``, and exactly back."""

    def __init__(self, weights: list[nn.Parameter], directions: list[Tensor], step: float) -> None:
        self.weights, self.directions, self.step = weights, directions, step

    def __enter__(self) -> None:
        self.saved = [w.detach().clone() for w in self.weights]
        with torch.no_grad():
            for weight, direction in zip(self.weights, self.directions, strict=True):
                weight.add_(direction, alpha=self.step)

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            for weight, saved in zip(self.weights, self.saved, strict=True):
                weight.copy_(saved)


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
        if isinstance(module, RANDOM) and module.training and getattr(module, "p", 0.0):
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
