"""The labelled file: structures and their records joined in the order of the input, and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ase import Atoms

from hint_plugins.labelling.record import LabelTask, attach, structure_key
from hint_plugins.labelling.shards import ShardStore
from hint_plugins.labels.structure_check import check_structure
from hint_plugins.storage.store import UnwritableError


@dataclass
class LabelSummary:
    """What a run did. ``n_input = n_done + n_skipped + n_failed``.

    Attributes
    ----------
    n_done
        Labelled by this run.
    n_skipped
        Labelled by an earlier run, or the same structure as one that is counted already.
    n_failed
        Without a label in the output: the calculation failed now or before, or its labels do not pass the check.
    n_energies, n_forces, n_stresses, n_hessians
        Labels in the output; Hessians of any kind.
    n_with_frozen_atoms
        Labelled structures with constraints. Their forces are those of all atoms.
    n_blocks
        Hessians that are the block of the free atoms.
    """

    n_input: int = 0
    n_done: int = 0
    n_skipped: int = 0
    n_failed: int = 0
    n_energies: int = 0
    n_forces: int = 0
    n_stresses: int = 0
    n_hessians: int = 0
    n_with_frozen_atoms: int = 0
    n_blocks: int = 0


def assemble(
    structures: Iterable[tuple[int, Atoms]],
    store: ShardStore,
    task: LabelTask,
    earlier: set[str],
    write: Callable[[Atoms], None],
    doubtful: Callable[[Atoms], None] = lambda atoms: None,
) -> tuple[LabelSummary, list[dict[str, Any]]]:
    """Join the input with its records, in the input's order.

    Parameters
    ----------
    structures
        The same stream again, each structure with its place in the file.
    store, task
        As in :func:`compute_labels`.
    earlier
        Keys that were there before this run.
    write
        Takes each labelled structure.
    doubtful
        Takes those whose labels do not pass :func:`hint_plugins.labels.structure_check.check_structure`.

    Returns
    -------
    LabelSummary, list of dict
        Counts, and for each failed structure its ``index``, ``key``, ``formula`` and ``error``. A structure whose new
        labels do not pass the check, or that ``write`` refuses, is among the failed; ``doubtful`` gets it.
    """
    summary = LabelSummary()
    counted = set(earlier)
    failures = []
    for index, atoms in structures:
        summary.n_input += 1
        key = structure_key(atoms, task.kind_for(atoms))
        record = store.get(key)
        reason = record["error"] if record["status"] != "done" else ""
        if not reason:
            attach(record, atoms)
            if found := check_structure(atoms)["reason"]:
                reason = f"labelled, but the labels do not pass the check: {found}"
                doubtful(atoms)
            else:
                try:
                    write(atoms)
                except UnwritableError as error:
                    reason = f"labelled, but {error}"
        if reason:
            summary.n_failed += 1
            failures.append({"index": index, "key": key, "formula": atoms.get_chemical_formula(), "error": reason})
            continue
        if key in counted:
            summary.n_skipped += 1
        else:
            summary.n_done += 1
            counted.add(key)
        summary.n_with_frozen_atoms += bool(atoms.constraints)
        summary.n_blocks += "REF_hessian_block" in atoms.info
        summary.n_energies += "REF_energy" in atoms.info
        summary.n_forces += "REF_forces" in atoms.arrays
        summary.n_stresses += "REF_stress" in atoms.info
        summary.n_hessians += any(name.startswith("REF_hessian") for name in atoms.info)
    return summary, failures
