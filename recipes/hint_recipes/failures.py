"""Named reasons for which a search has no result."""

from __future__ import annotations

from hint_plugins.errors import HintError

REASONS = {
    "different_atoms": "the end points differ in their atoms, in the atoms' order, or in cell and periodicity",
    "missing_end_point": "the reactant or the product is missing, or given twice",
    "overlapping_atoms": "two atoms of an end point lie on top of each other",
    "not_finite": "a coordinate of an end point is not a finite number",
    "different_charge": "the end points differ in charge or spin, so that they lie on different surfaces",
    "frozen_atoms": "the frozen atoms of the end points cannot be used",
    "same_molecule": "reactant and product have the same bonds and the same geometry",
    "potential_failed": "the potential gave an error or a number that is not finite",
    "flew_apart": "an optimisation moved atoms further than any reaction does, or took a step that is not finite",
    "end_point_not_converged": "the optimisation of an end point did not converge",
    "end_points_merged": "with this potential both end points relax to the same molecule (or conformer)",
    "path_failed": "no path could be interpolated or relaxed",
    "no_barrier": "the path has no maximum between its ends",
    "ts_not_converged": "the saddle search did not converge",
    "ts_failed": "the saddle search stopped with an error",
    "wrong_imaginary_modes": "the saddle found has not exactly one imaginary mode",
    "irc_failed": "the intrinsic reaction coordinate stopped with an error",
    "irc_end_not_converged": "an end of the reaction coordinate did not relax to a minimum",
    "one_end_wrong": "only one end of the reaction coordinate is an end point of the reaction",
    "both_ends_wrong": "neither end of the reaction coordinate is an end point of the reaction",
    "same_end_twice": "both ends of the reaction coordinate are the same molecule",
    "negative_barrier": "the saddle lies below the reactant",
    "time_limit": "the reaction took longer than the time limit",
    "worker_died": "the process that worked on it died (crash, or out of memory)",
}


class SearchFailure(HintError, RuntimeError):
    """A reaction that cannot go on, with one of :data:`REASONS`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        if reason not in REASONS:
            raise ValueError(f"unknown reason {reason!r}")
        super().__init__(f"{REASONS[reason]}{': ' + detail if detail else ''}")
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple[type[SearchFailure], tuple[str, str]]:
        return SearchFailure, (self.reason, self.detail)
