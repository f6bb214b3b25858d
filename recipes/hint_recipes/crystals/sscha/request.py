"""What makes two SSCHA runs the same run, and what a run refuses before it computes anything."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.runs.items import digest, file_digest
from hint_recipes.crystals.force_constants.unit_cells import in_supercell
from hint_recipes.crystals.sscha.ensemble import EnsembleEngine
from hint_recipes.crystals.sscha.settings import SschaSettings
from hint_recipes.crystals.sscha.state import State, fingerprint

CHECKPOINT = "checkpoint.npz"
#: Averages over the fresh ensemble at the end of a run.
FRESH = "fresh_ensemble.npz"
#: What an overwritten run must not leave behind: it would make the next one a continuation.
DISCARDED = (CHECKPOINT, FRESH, "summary.json", "bad_configurations.extxyz", "sscha.log", "correction.extxyz")


def check_request(
    settings: SschaSettings, crystal: Atoms, stages: Sequence[tuple[int, int, int]], *, with_reference: bool
) -> None:
    """Refuse before anything is computed what could only fail at the end.

    Parameters
    ----------
    settings, crystal, stages
        As in :class:`hint_recipes.crystals.sscha.run.SschaRun`.
    with_reference
        Whether a correction to a reference is asked for.

    Raises
    ------
    InputError
        For odd or too small numbers of configurations, and supercells that do not grow or hold one atom.
    """
    if settings.hessian_configurations < 0 or settings.hessian_configurations % 2:
        raise InputError(
            f"the free-energy Hessian needs an even number of configurations (mirror pairs), not "
            f"{settings.hessian_configurations}; 0 leaves it out"
        )
    if with_reference and settings.reference_configurations < 4:
        raise InputError(
            f"the free-energy correction needs at least 4 configurations (two mirror pairs) for an error, not "
            f"{settings.reference_configurations}"
        )
    for multiples in stages:
        if min(multiples) < 1:
            raise InputError(f"supercell {times(multiples)}: every repetition must be at least 1")
    for small, large in pairwise(tuple(multiples) for multiples in stages):
        if small == large or any(new < old for old, new in zip(small, large, strict=True)):
            raise InputError(
                f"stages must grow, but {times(small)} comes before {times(large)} (--supercell is the last)"
            )
    for multiples in stages:
        if len(crystal) * math.prod(multiples) < 2:
            raise InputError("a supercell of one atom has no vibrations: choose a larger --supercell or --stage")


def supercell_stages(crystal: Atoms, stages: Sequence[Sequence[int]]) -> tuple[Atoms, list[tuple[int, int, int]]]:
    """The crystal and its stages, the last of which may be a supercell matrix of nine numbers.

    python-sscha knows repetitions only: for another supercell the crystal is described by the cell that it repeats
    (:func:`hint_recipes.crystals.force_constants.unit_cells.for_supercell`).

    Raises
    ------
    InputError
        If there are smaller stages before a supercell that is no repetition of the given cell.
    """
    changed, last = in_supercell(crystal, stages[-1])
    if changed is not crystal and len(stages) > 1:
        raise InputError(
            "--stage needs a --supercell of the form N1xN2xN3: between other supercells nothing is interpolated. "
            "Leave out --stage, or take a repetition of the cell (--primitive gives the primitive one)"
        )
    return changed, [*((n1, n2, n3) for n1, n2, n3 in stages[:-1]), last]


def identity(
    crystal: Atoms,
    engine: EnsembleEngine,
    settings: SschaSettings,
    stages: Sequence[tuple[int, int, int]],
    model: str,
) -> dict[str, Any]:
    """What a run must have in common with the checkpoint that it continues.

    Parameters
    ----------
    crystal, settings, stages
        As in :class:`hint_recipes.crystals.sscha.run.SschaRun`.
    engine
        Its force engine.
    model
        Identity of the model (:func:`hint_plugins.potential.worker.identity`).
    """
    bare = crystal.copy()
    bare.set_masses("defaults")  # isotopes have an entry of their own, for the message
    return fingerprint(
        settings,
        crystal=f"{crystal.get_chemical_formula()} {crystal.get_volume():.3f} A^3 {digest(bare)}",
        masses=crystal.get_masses().tolist(),
        model=model,
        dtype=str(engine.potential.dtype),
        stages=list(stages),
        start_from=file_digest(str(settings.start_from)) if settings.start_from else None,
        on_bad=engine.on_bad,
        max_energy=engine.max_energy,
        max_force=engine.max_force,
    )


def earlier_run(out: Path, mark: dict[str, Any]) -> State | None:
    """The state of the run in ``out`` that is to be continued; None where there is none.

    Raises
    ------
    InputError
        If the run there has another identity (:func:`identity`), or is a result without a checkpoint.
    """
    if (out / CHECKPOINT).exists():
        return State.load(out / CHECKPOINT, mark)
    if (out / "summary.json").exists():
        raise InputError(
            f"{out} holds an earlier result (summary.json) without a checkpoint: choose another --out, or add "
            "--overwrite"
        )
    return None


def finished_run(out: Path, mark: Mapping[str, Any], settings: SschaSettings) -> dict[str, Any] | None:
    """The summary of the run in ``out``, if it is this run and ``settings`` ask for nothing more.

    More are further populations of an unconverged run, and another size of the fresh ensemble.
    """
    path = out / "summary.json"
    summary = json.loads(path.read_text()) if path.exists() else {}
    if summary.get("fingerprint") != mark:
        return None
    if not summary["converged"] and summary["max_populations"] < settings.max_populations:
        return None
    fresh = summary.get("fresh_ensemble", {"configurations": 0, "dropped": 0})
    wanted = settings.final_configurations or settings.configurations
    return summary if fresh["configurations"] + fresh["dropped"] == wanted else None


def correction_mark(reference: str, count: int) -> dict[str, Any]:
    """What tells one correction of a run from another: identity of the reference, and configurations asked for."""
    return {"reference": reference, "requested": count}


def times(multiples: Sequence[int]) -> str:
    return "x".join(map(str, multiples))
