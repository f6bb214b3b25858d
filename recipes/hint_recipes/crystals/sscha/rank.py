"""Free energies of candidate structures at one temperature and pressure, sorted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.runs.directory import RunDirectory
from hint_plugins.runs.progress import note
from hint_recipes.crystals.force_constants.supercells import multiples_of_length
from hint_recipes.crystals.inputs import require_crystal
from hint_recipes.crystals.sscha.ensemble import require_sscha
from hint_recipes.crystals.sscha.known_potential import KnownPotential
from hint_recipes.crystals.sscha.rank_table import candidate_row, compare, plot_ranking, report
from hint_recipes.crystals.sscha.request import DISCARDED, supercell_stages
from hint_recipes.crystals.sscha.run import SschaRun
from hint_recipes.crystals.sscha.settings import RankSettings

#: Folder of a candidate's run in the smaller supercell.
CHECK = "check"


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
    known = KnownPotential.load(model, label, device, dtype)
    other = None if reference is None else KnownPotential.load(reference, reference_label, device, dtype)
    jobs = {name: _job(crystal, known, directory / name, settings, other) for name, crystal in structures.items()}
    checks = None
    if settings.checked:
        smaller = settings.check()
        checks = {name: _job(crystal, known, directory / name / CHECK, smaller) for name, crystal in structures.items()}
        for name, job in jobs.items():
            _require_smaller(name, checks[name], job)
    _warn_of_sizes(list(jobs), [job.crystal for job in jobs.values()], [job.stages for job in jobs.values()])
    if not overwrite:
        for job in [*jobs.values(), *(checks or {}).values()]:
            job.earlier()  # another run is refused before anything in the directory changes
    if options is None:
        options = {**settings.model_dump(), "model": known.potential.name, "dtype": dtype}
    folders = [folder for name in jobs for folder in (name, f"{name}/{CHECK}")]
    discarded = [f"{folder}/{file}" for folder in folders for file in DISCARDED]
    with RunDirectory(directory, "rank", options, free=options, contents=discarded, overwrite=overwrite) as run:
        rows, failed = [], []
        for name, job in jobs.items():
            try:
                small = None if checks is None else _result(checks[name])
                summary = _result(job)
            except (InputError, ValueError, RuntimeError, ArithmeticError) as error:
                failed.append({"name": name, "reason": str(error).strip().split("\n")[0]})
                note(f"{name}: {failed[-1]['reason']}")
                continue
            atoms = len(job.crystal)
            rows.append(
                candidate_row(name, summary, atoms, settings.pressure, corrected=other is not None, check=small)
            )
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


def _job(
    crystal: Atoms,
    model: KnownPotential,
    directory: Path,
    settings: RankSettings,
    reference: KnownPotential | None = None,
) -> SschaRun:
    """The run of one candidate in its own supercell."""
    length = settings.supercell_length
    last = settings.supercell if length is None else multiples_of_length(crystal, length)
    described, stages = supercell_stages(crystal, [*settings.stage, last])
    return SschaRun(described, stages, model, directory, settings.sscha(), reference)


def _result(job: SschaRun) -> dict[str, Any]:
    """The summary of a run, which is continued or begun where it is not finished."""
    job.directory.mkdir(exist_ok=True, parents=True)
    return job.finished() or job.run()


def _require_smaller(name: str, check: SschaRun, job: SschaRun) -> None:
    """The supercell of the check must hold fewer atoms, or the change says nothing about what is still missing."""
    small, large = (len(own.crystal) * math.prod(own.stages[-1]) for own in (check, job))
    if small >= large:
        raise InputError(
            f"{name}: the supercell of --check-supercell or --check-length holds {small} atoms and the one that counts "
            f"{large}: choose a smaller one for the check, or a larger --supercell or --supercell-length"
        )


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
