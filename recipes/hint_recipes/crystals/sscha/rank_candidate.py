"""One candidate of a ranking: its runs, in this process or in a worker."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.potential import Potential
from hint_plugins.runs.devices import worker_device
from hint_recipes.crystals.force_constants.supercells import multiples_of_length
from hint_recipes.crystals.sscha.known_potential import KnownPotential
from hint_recipes.crystals.sscha.request import supercell_stages
from hint_recipes.crystals.sscha.run import SschaRun
from hint_recipes.crystals.sscha.settings import RankSettings

#: Folder of a candidate's run in the smaller supercell.
CHECK = "check"


@dataclass(frozen=True)
class Candidate:
    """One candidate for a worker: its cell, its folder, and what :func:`rank_structures` was given for all."""

    crystal: Atoms
    directory: Path
    settings: RankSettings
    identity: str
    reference: Any
    reference_label: str | None
    device: str | None
    dtype: str | None


def run_candidate(
    candidate: Candidate, potential: Potential, *, reference: KnownPotential | None = None
) -> list[dict[str, Any]] | str:
    """Summaries of the runs of a candidate, that in its last supercell last; or why there are none.

    ``reference`` is loaded where it is not given.
    """
    if reference is None and candidate.reference is not None:
        reference = _reference(candidate.reference, candidate.reference_label, candidate.device, candidate.dtype)
    model = KnownPotential(potential, candidate.identity)
    try:
        jobs = jobs_of(candidate.crystal, model, candidate.directory, candidate.settings, reference)
        return [_result(job) for job in jobs]
    except (InputError, ValueError, RuntimeError, ArithmeticError) as error:
        return str(error).strip().split("\n")[0]


@functools.lru_cache(maxsize=1)
def _reference(spec: str, label: str | None, device: str | None, dtype: str | None) -> KnownPotential:
    return KnownPotential.load(spec, label, worker_device(device), dtype)


def jobs_of(
    crystal: Atoms,
    model: KnownPotential,
    directory: Path,
    settings: RankSettings,
    reference: KnownPotential | None,
) -> list[SschaRun]:
    """The runs of one candidate: in the supercell of the check, where there is one, and in its own."""
    own = _job(crystal, model, directory, settings, reference)
    return [_job(crystal, model, directory / CHECK, settings.check()), own] if settings.checked else [own]


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


def require_smaller(name: str, check: SschaRun, job: SschaRun) -> None:
    """The supercell of the check must hold fewer atoms, or the change says nothing about what is still missing."""
    small, large = (len(own.crystal) * math.prod(own.stages[-1]) for own in (check, job))
    if small >= large:
        raise InputError(
            f"{name}: the supercell of --check-supercell or --check-length holds {small} atoms and the one that counts "
            f"{large}: choose a smaller one for the check, or a larger --supercell or --supercell-length"
        )
