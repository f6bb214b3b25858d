"""Why a derivative test can fail although no rule is wrong: kinks, jumps, single precision inside, random layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hint_plugins.curvature.engines import ForceView

#: A change between two neighbouring points that is left, relative to the largest value, when they nearly coincide.
JUMP = 1e-3
#: Relative noise of forces above which they were not computed in double precision.
NOISE = 1e-10


def module_kink(module: nn.Module, value: Tensor) -> str:
    """Whether ``module`` jumps or has a kink near its input ``value``; "" if neither is found.

    Values and slopes are followed along a line through the input, and the interval with the largest change of one
    number is halved until a smooth function would not change any more.
    """
    generator = torch.Generator().manual_seed(0)
    spread = float(value.std()) if value.numel() > 1 else 0.0
    line = torch.randn(value.shape, generator=generator, dtype=value.dtype).to(value.device) * max(spread, 1.0)

    def both(t: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = (value + t * line).detach().requires_grad_(True)
            y = module(x)
            slopes = torch.zeros_like(x)
            if y.requires_grad:
                (found,) = torch.autograd.grad((weights * y).sum(), x, allow_unused=True)
                slopes = slopes if found is None else found
        return y.detach().flatten(), slopes.flatten()

    with torch.no_grad():
        sample = module(value)
    if not isinstance(sample, Tensor):
        return ""
    weights = 1.0 + torch.rand(sample.shape, generator=generator, dtype=sample.dtype).to(sample.device)
    grid = torch.linspace(-1, 1, 65, dtype=torch.float64).tolist()
    if _jumps(lambda t: both(t)[0], grid):
        return "jumps: it has no derivatives there"
    if _jumps(lambda t: both(t)[1], grid):
        return "has a kink: its slope jumps, so the model's forces do, and its curvature is missing from the Hessian"
    return ""


def forces_jump(view: ForceView, seed: int = 0) -> bool:
    """Whether the forces of a model jump along a line of 0.1 A a component through its positions."""
    generator = torch.Generator().manual_seed(seed)
    positions = view.positions.detach()
    line = torch.randn(positions.shape, generator=generator, dtype=positions.dtype).to(positions.device)

    def forces(t: float) -> Tensor:
        return view.forces_at((positions + t * line)[None]).detach().flatten()

    return _jumps(forces, torch.linspace(-0.1, 0.1, 21, dtype=torch.float64).tolist())


def forces_noise(view: ForceView) -> tuple[float, float]:
    """Relative change of forces between two equal evaluations, and their deviation from a line over 1e-7 A.

    The first is 0 but for random layers; the second is rounding: 1e-15 in double, 1e-8 to 1e-6 in single precision.
    """
    positions = view.positions.detach()
    line = torch.ones_like(positions)
    line[1::2] = -1.0
    found = [view.forces_at((positions + 1e-8 * k * line)[None]).detach() for k in (0, 0, *range(1, 9))]
    size = max(float(found[0].abs().max()), 1e-12)
    start, end = found[1], found[-1]
    repeated = float((found[0] - start).abs().max()) / size
    bent = max(float((f - start - (end - start) * k / 8).abs().max()) for k, f in enumerate(found[1:]))
    return repeated, bent / size


def copies_differ(view: ForceView) -> float:
    """Relative change of the forces of some structures when displaced copies of them join the batch."""
    positions = view.positions.detach()
    alone = view.forces_at(positions[None]).detach()[0]
    line = torch.ones_like(positions)
    line[1::2] = -1.0
    joined = view.forces_at(torch.stack([positions, positions + 0.05 * line])).detach()[0]
    return float((joined - alone).abs().max()) / max(float(alone.abs().max()), 1e-12)


def _jumps(function: Callable[[float], Tensor], grid: list[float]) -> bool:
    """Whether a number of ``function`` changes by more than :data:`JUMP` of the largest within 1e-9 of some point."""
    values = torch.stack([function(t) for t in grid])
    changes = values.diff(dim=0).abs()
    scale = float(values.abs().max())
    if not changes.numel() or not scale:
        return False
    where, which = divmod(int(changes.argmax()), changes.shape[1])
    low, high = grid[where], grid[where + 1]
    first, last = values[where, which], values[where + 1, which]
    while high - low > 1e-9:
        middle = 0.5 * (low + high)
        between = function(middle)[which]
        if (between - first).abs() > (last - between).abs():
            high, last = middle, between
        else:
            low, first = middle, between
    return bool((last - first).abs() > JUMP * scale)
