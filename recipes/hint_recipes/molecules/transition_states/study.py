"""The transition states of a set of reactions: one directory, resumable, in parallel, one folder per reaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hint_plugins.errors import InputError
from hint_plugins.potential.worker import load_for
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.execution import EXECUTION, Execution
from hint_recipes.failures import REASONS
from hint_recipes.molecules.transition_states.output import write_stationary_points
from hint_recipes.molecules.transition_states.plots import plot_success
from hint_recipes.molecules.transition_states.pysisyphus import require_pysisyphus
from hint_recipes.molecules.transition_states.reaction import Reaction
from hint_recipes.molecules.transition_states.records import search_all
from hint_recipes.molecules.transition_states.settings import SearchSettings
from hint_recipes.molecules.transition_states.tables import barrier_rows, barrier_table, summarise, table_rows

#: Options that may differ from those of a run that is continued: every reaction has its own identity.
FREE = EXECUTION | {"reactions", "only", "limit", "compare", "together", "retry_failed", "device"}


@dataclass(frozen=True)
class TransitionStates:
    """What became of a set of reactions.

    Attributes
    ----------
    directory
        Where everything lies: ``reactions/NAME/`` (structures, profile), ``reactions.csv``, ``barriers.csv``,
        ``stationary_points.extxyz``, ``success.png``, ``summary.json``.
    model
        Name of the potential.
    records
        One per reaction (:func:`~hint_recipes.molecules.transition_states.search.search`).
    """

    directory: Path
    model: str
    records: list[dict[str, Any]]

    @property
    def summary(self) -> dict[str, Any]:
        """Counts, errors and cost (:func:`~hint_recipes.molecules.transition_states.tables.summarise`)."""
        return {"model": self.model, **summarise(self.records)}

    def report(self) -> str:
        """The barriers and counts as text."""
        summary = self.summary
        lines = [
            "Energies in kcal/mol above the relaxed reactant, imaginary mode in cm^-1; end R and end P are the minima "
            "at which the reaction coordinate ends.",
            barrier_table(barrier_rows(self.records)),
            f"{summary['n_reactions']} reactions: {summary['n_path']} paths, {summary['n_ts']} transition states, "
            f"{summary['n_intended']} intended; {summary['seconds']:.1f} s -> {self.directory}",
            *(f"  {number} {reason}: {REASONS[reason]}" for reason, number in summary["reasons"].items()),
        ]
        if summary["n_intended"]:
            points = self.directory / "stationary_points.extxyz"
            lines.append(f"Gibbs energies of the intended ones: hint gibbs {points}")
        return "\n".join(lines)


def find_transition_states(
    reactions: Sequence[Reaction],
    model: Any,
    directory: Path,
    settings: SearchSettings | None = None,
    *,
    execution: Execution | None = None,
    together: int = 1,
    retry_failed: bool = False,
    compare: Mapping[str, Mapping[str, Any]] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> TransitionStates:
    """Search the transition states of a set of reactions; an unfinished run in the directory is continued.

    Parameters
    ----------
    reactions
        The set.
    model, device, dtype
        What :meth:`hint_plugins.potential.Potential.load` understands. A model that is not text (a calculator, a
        network) works in this process only.
    directory
        For the results.
    settings
        Of the searches.
    execution
        Where the reactions run.
    together
        In this process: so many reactions at a time, whose requests are joined into calls of the potential for all of
        them (:mod:`hint_plugins.potential.together`). ``seconds`` of a record is then the reaction's share, and its
        ``cpu_seconds`` None.
    retry_failed
        Search again what failed in an earlier run.
    compare
        Summaries of other models by name, for the bar plot.
    options
        What ``config.yaml`` keeps; the settings by default.
    overwrite
        Discard an earlier run in the directory.

    Returns
    -------
    TransitionStates
        With the records in the order of ``reactions``.

    Raises
    ------
    InputError
        If the directory holds another run, or options do not fit together.
    PotentialError
        If the model cannot be loaded.
    ExecutorError
        If the executor cannot be opened, or its scheduler is gone.
    """
    settings, execution = settings or SearchSettings(), execution or Execution()
    require_pysisyphus(settings)
    if together > 1 and execution.opener() is not None:
        raise InputError("together joins reactions in one process: leave out workers and executor")
    if together > 1 and settings.needs_pysisyphus:
        raise InputError("together works with neb, geodesic and sella, not with pysisyphus (gsm, rsirfo)")
    potential = load_for(model, execution, device=device, dtype=dtype)
    if options is None:
        options = {**settings.model_dump(), "model": potential.name, "dtype": dtype}
    with RunDirectory(directory, "ts", options, free=FREE, contents=["reactions"], overwrite=overwrite) as run:
        records = search_all(
            reactions, model, potential, run, settings, execution, together, retry_failed, device=device, dtype=dtype
        )
        result = TransitionStates(run.path, potential.name, records)
        run.write_csv("reactions.csv", table_rows(records))
        run.write_csv("barriers.csv", barrier_rows(records))
        write_stationary_points(records, run.path)
        others = compare or {}
        label = potential.name if potential.name not in others else f"{potential.name} ({run.path})"
        plot_success({**others, label: result.summary}, run / "success.png")
        run.finish(result.summary)
    return result
