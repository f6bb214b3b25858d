"""Are the model's second and third derivatives right? Asked before training, in float64.

The gradient of a Hessian loss with respect to the parameters is a third derivative of the energy. Some fused kernels
(torch's ``layer_norm`` among them) get it silently wrong. Both checks compare with central differences along one
random direction, so they cost a handful of evaluations whatever the size of the model. They are made twice: at the
model's parameters and at parameters moved a little, since what lies behind a gate or last layer that is still zero
shows only then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hint_plugins.curvature.culprits import find_guilty, find_kinks, find_numerics, third_derivative_error
from hint_plugins.curvature.engines import ForceView, reverse
from hint_plugins.curvature.raised import where_raised
from hint_plugins.errors import HintError

__all__ = ["SelfTestError", "SelfTestReport", "check_derivatives", "third_derivative_error"]

#: Largest relative error that passes. Exact models reach 1e-9; a wrong rule shows up above 1e-4.
TOLERANCE = 1e-5

#: How far parameters are moved for the second check: relative to the mean of a tensor, and the least change of a
#: layer's output for inputs of size 1, so that wide and deep models stay in the range of numbers they work in.
MOVE, LEAST_MOVE = 0.1, 0.3


class SelfTestError(HintError, RuntimeError):
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
    where
        Module and line at which it arose, "" if it could not be found.
    """

    hvp_error: float
    gradient_error: float
    guilty: list[str] = field(default_factory=list)
    kinks: list[str] = field(default_factory=list)
    raised: str = ""
    where: str = ""

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
    steps: tuple[float, ...] = (1e-4, 1e-5, 1e-6),
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
        * (MOVE * w.detach().abs().mean()).clamp_min(LEAST_MOVE / _fan_in(w) ** 0.5)
        for w in weights
    ]
    report = SelfTestReport(0.0, 0.0)
    for size, seeds in ((0.0, [seed]), (1.0, [seed, seed + 1])):
        with _shifted(weights, moves, size):
            for one in seeds:
                _check_here(report, model, make_view, one, steps)
            if not report.ok:
                report.guilty = [f"{name}: {why}" for name, why in find_guilty(model, make_view)]
                if report.where and not any("raises in its derivatives" in line for line in report.guilty):
                    report.guilty.insert(0, f"{report.where} raises in its derivatives")
                report.guilty += find_numerics(make_view)
            if not report.ok or size:
                report.kinks = find_kinks(model, make_view)
        if not report.ok:
            break
    return report


def _fan_in(weight: Tensor) -> int:
    """Number of terms that one output of a layer with this weight sums."""
    return max(1, weight.numel() // weight.shape[0]) if weight.dim() > 1 else 1


def _check_here(
    report: SelfTestReport,
    model: nn.Module,
    make_view: Callable[[], ForceView],
    seed: int,
    steps: tuple[float, ...],
) -> None:
    """Raise the errors of ``report`` to those at the present parameters."""
    try:
        hvp, gradient = _errors(model, make_view, seed, steps)
    except Exception as error:  # whatever a model's own code raises is a finding
        hvp = gradient = float("inf")
        report.raised = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    if report.raised and not report.where:
        report.where = where_raised(model, lambda: _errors(model, make_view, seed, steps))
    report.hvp_error = _larger(report.hvp_error, hvp)
    report.gradient_error = _larger(report.gradient_error, gradient)


def _errors(
    model: nn.Module, make_view: Callable[[], ForceView], seed: int, steps: tuple[float, ...]
) -> tuple[float, float]:
    """Relative errors of a product and of the gradient of the Hessian loss."""
    generator = torch.Generator().manual_seed(seed)

    def random_like(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype).to(tensor.device)

    view = make_view()
    probe, direction = random_like(view.positions), random_like(view.positions)
    exact = reverse(view, probe[None], create_graph=False)[0]
    analytic = float((exact * direction).sum())
    errors = []
    for h in (1e-3, 1e-4, 1e-5, 1e-6):
        shift = h * direction
        plus, minus = view.forces_at(torch.stack([view.positions + shift, view.positions - shift])).detach()
        numeric = float(((minus - plus) * probe).sum()) / (2 * h)
        errors.append(abs(analytic - numeric) / (float(exact.norm()) or 1.0))
    return min(errors), _gradient_error(model, make_view, probe, exact, random_like, steps)


def _larger(first: float, second: float) -> float:
    """The larger error; NaN counts as infinite."""
    return max(first, second if second == second else float("inf"))


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
