"""The weight of the Hessian loss as training goes on (HINT, arXiv:2603.25373, eq. 3).

Without a ramp the Hessian loss falls and then rises again: few labels are over-fitted while energies and forces
are still wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from hint_plugins.registries import registries, resolve
from hint_plugins.training.protocol import Progress


def linear(passed: float) -> float:
    """In proportion to the part of the ramp that has passed (0 to 1)."""
    return passed


def cosine(passed: float) -> float:
    """Slow at both ends."""
    return 0.5 * (1.0 - math.cos(math.pi * passed))


def step(passed: float) -> float:
    """All at the end of the ramp."""
    return 1.0 if passed >= 1.0 else 0.0


def constant(passed: float) -> float:
    """The last weight from the beginning."""
    return 1.0


@dataclass(frozen=True)
class Curriculum:
    """Weight lambda(t) between ``start`` and ``end``.

    Attributes
    ----------
    weight_start, weight_end
        w_0 and w_H.
    start, end
        t_start and t_end in ``unit``; ``end`` None is half of the run.
    schedule
        Shape of the ramp (:attr:`hint_plugins.registries.Registries.schedules`): maps the part of it that has passed
        to the part of the way from first to last weight.
    unit
        ``epochs`` (fractions count) or ``steps`` of the optimiser.
    """

    weight_start: float = 0.0
    weight_end: float = 0.1
    start: float = 0.0
    end: float | None = None
    schedule: str = "linear"
    unit: Literal["epochs", "steps"] = "epochs"

    def default_end(self, progress: Progress) -> float:
        """Half of the run, in :attr:`unit`."""
        return 0.5 * progress.max_epochs * (progress.steps_per_epoch if self.unit == "steps" else 1)

    def course(self, progress: Progress) -> list[float]:
        """Weights at a hundred moments of the run, from its first step to its last."""
        last = max(1, round(progress.max_epochs * progress.steps_per_epoch) - 1)
        return [self.weight(replace(progress, step=round(last * k / 99))) for k in range(100)]

    def weight(self, progress: Progress) -> float:
        """lambda(t); depends on ``progress`` alone, so a restarted run continues exactly."""
        end = max(self.start, self.default_end(progress)) if self.end is None else self.end
        now = float(progress.step) if self.unit == "steps" else progress.epochs
        if end <= self.start:
            passed = 1.0 if now >= end else 0.0
        else:
            passed = min(1.0, max(0.0, (now - self.start) / (end - self.start)))
        share = resolve(registries().schedules[self.schedule])(passed)
        return self.weight_start + share * (self.weight_end - self.weight_start)
