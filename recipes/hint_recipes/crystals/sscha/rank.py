"""Free energies of candidate structures at one temperature and pressure, sorted."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.potential.worker import identity, load_for, map_with_potential
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.execution import EXECUTION, Execution
from hint_plugins.runs.parallel import WorkerDied
from hint_plugins.runs.progress import note
from hint_recipes.crystals.inputs import require_crystal
from hint_recipes.crystals.sscha.ensemble import require_sscha
from hint_recipes.crystals.sscha.known_potential import KnownPotential
from hint_recipes.crystals.sscha.rank_candidate import CHECK, Candidate, jobs_of, require_smaller, run_candidate
from hint_recipes.crystals.sscha.rank_table import candidate_row, compare, plot_ranking, report
from hint_recipes.crystals.sscha.request import DISCARDED
from hint_recipes.crystals.sscha.settings import RankSettings


@dataclass(frozen=True)
class Ranking:
    """Candidate structures by their Gibbs free energy.

    Attributes
    ----------
    directory
        Where everything lies: ``ranking.csv``, ``ranking.png``, ``summary.json``, and each candidate in a folder of its
        name (:class:`hint_recipes.crystals.sscha.study.Sscha`).
    summary
        What ``summary.json`` holds: ``ranking`` (rows, the most stable first), ``failed``, ``n_converged``.
    """

    directory: Path
    summary: dict[str, Any]

    @property
    def num_open(self) -> int:
        """Candidates that failed or did not converge."""
        return len(self.summary["failed"]) + len(self.summary["ranking"]) - self.summary["n_converged"]

    def report(self) -> str:
        """The order of the candidates, what failed, and what the errors hold, as text."""
        summary = self.summary
        lines = report(summary["ranking"])
        lines += [f"{row['name']}: failed: {row['reason']}" for row in summary["failed"]]
        lines.append(
            f"{len(summary['ranking'])} candidates at {summary['temperature_K']:g} K and "
            f"{summary['pressure_GPa']:g} GPa, {summary['n_converged']} converged; "
            f"table and picture are in {self.directory}"
        )
        return "\n".join(lines)


def rank_structures(
    structures: Mapping[str, Atoms],
    model: Any,
    directory: str | Path,
    settings: RankSettings | None = None,
    *,
    reference: Any = None,
    execution: Execution | None = None,
    device: str | None = None,
    dtype: str | None = None,
    label: str | None = None,
    reference_label: str | None = None,
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Ranking:
    """SSCHA Gibbs free energy ``F + p V`` of every candidate; unfinished candidates are continued, finished ones kept.

    A candidate that did not converge is continued when more populations are allowed. With a reference the free energy
    gets the first-order correction (:mod:`hint_recipes.crystals.sscha.perturbation`); the exponential one is only
    shown beside it. With ``check_supercell`` or ``check_length`` each candidate is also run in a smaller supercell, and
    the errors of the differences contain by how much these change
    (:func:`hint_recipes.crystals.sscha.rank_table.compare`).

    Parameters
    ----------
    structures
        Unit cells of one composition by name.
    model, device, dtype, reference, label, reference_label
        As in :func:`hint_recipes.crystals.sscha.study.run_sscha`.
    directory
        For the results.
    settings
        Of every candidate.
    execution
        Where the candidates run; workers need a model (and a reference) that is text.
    options
        What ``config.yaml`` keeps; the settings by default.
    overwrite
        Discard an earlier ranking of these names in the directory.

    Returns
    -------
    Ranking
        The most stable candidate first.

    Raises
    ------
    InputError
        For structures of different composition, and if the directory holds a run of another crystal or another model.
    PotentialError
        If a model cannot be loaded.
    """
    require_sscha()
    settings, directory = settings or RankSettings(), Path(directory)
    for name, crystal in structures.items():
        require_crystal(crystal, name)
    formulas = {c.symbols.formula.reduce()[0].format("hill") for c in structures.values()}
    if len(formulas) != 1:
        raise InputError(f"only structures of one composition can be ranked, not {', '.join(sorted(formulas))}")
    execution = execution or Execution()
    potential = load_for(model, execution, device=device, dtype=dtype)
    known = KnownPotential(potential, identity(model if label is None else label))
    if reference is not None and execution.opener() is not None and not isinstance(reference, str):
        raise InputError("a reference that is an object works in this process only: leave out workers and executor")
    other = None if reference is None else KnownPotential.load(reference, reference_label, device, dtype)
    jobs = {name: jobs_of(crystal, known, directory / name, settings, other) for name, crystal in structures.items()}
    for name, own in jobs.items():
        if len(own) > 1:
            require_smaller(name, *own)
    lasts = [own[-1] for own in jobs.values()]
    _warn_of_sizes(list(jobs), [job.crystal for job in lasts], [job.stages for job in lasts])
    if not overwrite:
        for job in chain(*jobs.values()):
            job.earlier()  # another run is refused before anything in the directory changes
    if options is None:
        options = {**settings.model_dump(), "model": potential.name, "dtype": dtype}
    folders = [folder for name in jobs for folder in (name, f"{name}/{CHECK}")]
    discarded = [f"{folder}/{file}" for folder in folders for file in DISCARDED]
    candidates = [
        Candidate(crystal, directory / name, settings, known.identity, reference, reference_label, device, dtype)
        for name, crystal in structures.items()
    ]
    with RunDirectory(
        directory, "rank", options, free={*options, *EXECUTION}, contents=discarded, overwrite=overwrite
    ) as run:
        rows, failed = [], []
        function = functools.partial(run_candidate, reference=None if execution.opener() is not None else other)
        outcomes = dict(
            map_with_potential(function, candidates, model, potential, execution, device=device, dtype=dtype)
        )
        for index, name in enumerate(structures):
            outcome = outcomes[index]
            if isinstance(outcome, (WorkerDied, str)):
                failed.append({"name": name, "reason": str(outcome)})
                note(f"{name}: {outcome}")
                continue
            if isinstance(outcome, BaseException):
                raise outcome
            *small, summary = outcome
            atoms = len(jobs[name][-1].crystal)
            corrected = other is not None
            check = small[0] if small else None
            rows.append(candidate_row(name, summary, atoms, settings.pressure, corrected=corrected, check=check))
        compare(rows)
        found = {
            "temperature_K": settings.temperature,
            "pressure_GPa": settings.pressure,
            "ranking": rows,
            "failed": failed,
            "n_converged": sum(row["converged"] for row in rows),
        }
        if rows:
            run.write_csv("ranking.csv", rows)
            plot_ranking(rows, run / "ranking.png")
        run.finish(found)
    return Ranking(directory, found)


def _warn_of_sizes(names: Sequence[str], crystals: Sequence[Atoms], stages: Sequence[Sequence[Any]]) -> None:
    """Free energies converge with the supercell; those of different sizes are compared only after a warning."""
    sizes = [len(crystal) * math.prod(own[-1]) for crystal, own in zip(crystals, stages, strict=True)]
    if max(sizes) > 1.3 * min(sizes):
        listed = ", ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=True))
        note(
            f"the supercells hold different numbers of atoms ({listed}); the harmonic part of the difference is "
            "corrected on a dense mesh, the rest is not: --supercell-length gives all candidates the same range, and "
            "--check-supercell or --check-length shows how much is missing"
        )
