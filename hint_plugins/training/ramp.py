"""A ramp of the Hessian weight must act within the run."""

from __future__ import annotations

import logging

from hint_plugins.config import ConfigError
from hint_plugins.objective.curriculum import Curriculum
from hint_plugins.training.protocol import Progress

log = logging.getLogger(__name__)


def require_acting_ramp(ramp: Curriculum, progress: Progress) -> None:
    """Refuse a ramp that no step would see, and warn of one that does not reach its end.

    Parameters
    ----------
    ramp
        Of the Hessian weight.
    progress
        At the start of the run.

    Raises
    ------
    ConfigError
        If the ramp begins behind its default end, or behind the end of the run.
    """
    if ramp.end is None and ramp.start > 0 and ramp.start >= ramp.default_end(progress):
        raise ConfigError(
            f"the ramp of the Hessian weight begins at {ramp.start:g} {ramp.unit}, but without hessian_ramp_end "
            f"it ends at half of the run, {ramp.default_end(progress):g}: give an end, or begin earlier"
        )
    if progress.max_epochs <= 0 or not ramp.weight_end:
        return
    course = ramp.course(progress)
    if not any(course):
        raise ConfigError(
            f"the ramp of the Hessian weight lies after the end of the run ({progress.max_epochs:g} epochs of "
            f"{progress.steps_per_epoch} steps), so no step would see a Hessian: begin the ramp "
            "(hessian_ramp_start, hessian_ramp_end) earlier, or train longer"
        )
    if course[-1] < 0.99 * ramp.weight_end and ramp.weight_start < course[-1]:
        log.warning(
            "the Hessian weight reaches %.3g of %.3g within the run: its ramp ends later", course[-1], ramp.weight_end
        )
