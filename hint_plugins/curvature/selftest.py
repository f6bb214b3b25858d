"""Are the model's second and third derivatives right? Asked before training, in float64.

The gradient of a Hessian loss with respect to the parameters is a third derivative of the energy. Some fused kernels
(torch's ``layer_norm`` among them) get it silently wrong. Both checks compare with central differences along one
random direction, so they cost a handful of evaluations whatever the size of the model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hint_plugins.curvature.engines import ForceView, reverse

log = logging.getLogger(__name__)

#: Largest relative error that passes. Exact models reach 1e-9; a wrong rule shows up above 1e-4.
TOLERANCE = 1e-5

#: Kinds of modules whose third derivative is known to be wrong or undefined, with what to do.
KNOWN_BAD: dict[type[nn.Module], str] = {
    nn.modules.batchnorm._BatchNorm: "freeze it (eval mode) or take a LayerNorm",
    nn.modules.instancenorm._InstanceNorm: "take a GroupNorm, whose derivatives are right",
}


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
    """

    hvp_error: float
    gradient_error: float
    guilty: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.hvp_error <= TOLERANCE and self.gradient_error <= TOLERANCE


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
    view = make_view()
    if view.positions.dtype != torch.float64:
        raise ValueError(f"the self-test needs float64 positions, got {view.positions.dtype}")
    generator = torch.Generator().manual_seed(seed)

    def random_like(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype).to(tensor.device)

    probe, direction = random_like(view.positions), random_like(view.positions)
    exact = reverse(view, probe[None], create_graph=False)[0]
    analytic = float((exact * direction).sum())
    errors = []
    for h in (1e-3, 1e-4, 1e-5):
        shift = h * direction
        plus, minus = view.forces_at(torch.stack([view.positions + shift, view.positions - shift])).detach()
        numeric = float(((minus - plus) * probe).sum()) / (2 * h)
        errors.append(abs(analytic - numeric) / (float(exact.norm()) or 1.0))
    report = SelfTestReport(min(errors), 0.0)
    report.gradient_error = _gradient_error(model, make_view, probe, exact, random_like, steps)
    if not report.ok:
        report.guilty = [f"{name}: {why}" for name, why in find_guilty(model, make_view)]
    return report


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


def find_guilty(model: nn.Module, make_view: Callable[[], ForceView]) -> Iterator[tuple[str, str]]:
    """Leaf modules whose own third derivative disagrees with finite differences, by name and reason.

    Every leaf module that maps one floating-point tensor to one is fed its recorded input and tested alone.
    """
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
    finally:
        for handle in handles:
            handle.remove()
    modules = dict(model.named_modules())
    for name, value in inputs.items():
        module = modules[name]
        advice = next((why for kind, why in KNOWN_BAD.items() if isinstance(module, kind) and module.training), None)
        if advice is not None:
            yield name, f"{type(module).__name__} has a wrong third derivative: {advice}"
            continue
        error = third_derivative_error(module, value)
        if error > 1e-4:
            yield name, f"{type(module).__name__} has a wrong third derivative (relative error {error:.1e})"


def third_derivative_error(function: Callable[[Tensor], Tensor], value: Tensor, seed: int = 0) -> float:
    """Relative error of the third derivative of ``function`` at ``value`` (float64), along random directions.

    Returns 0 when the function has no third derivative to speak of (linear maps), infinity when it raises.
    """
    generator = torch.Generator().manual_seed(seed)

    def random(shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=value.dtype).to(value.device)

    u, v, w = random(value.shape), random(value.shape), random(value.shape)

    def second(x: Tensor, create_graph: bool) -> Tensor:
        y = function(x)
        if not isinstance(y, Tensor) or not y.requires_grad:
            return x.new_zeros(())
        (first,) = torch.autograd.grad(y, x, random_weight.expand_as(y), create_graph=True)
        if not first.requires_grad:
            return x.new_zeros(())
        (out,) = torch.autograd.grad((first * u).sum(), x, create_graph=create_graph, allow_unused=True)
        return x.new_zeros(()) if out is None else (out * v).sum()

    try:
        leaf = value.clone().requires_grad_(True)
        with torch.no_grad():
            sample = function(value)
        if not isinstance(sample, Tensor):
            return 0.0
        random_weight = random(sample.shape)
        quantity = second(leaf, True)
        analytic = 0.0
        if quantity.requires_grad:
            (third,) = torch.autograd.grad(quantity, leaf, allow_unused=True)
            analytic = 0.0 if third is None else float((third * w).sum())
        h = 1e-5
        plus = second((value + h * w).requires_grad_(True), False)
        minus = second((value - h * w).requires_grad_(True), False)
    except (RuntimeError, NotImplementedError) as error:
        log.debug("third derivative raised: %s", error)
        return float("inf")
    numeric = float(plus - minus) / (2 * h)
    size = max(abs(analytic), abs(numeric))
    return abs(analytic - numeric) / size if size > 1e-6 else 0.0
