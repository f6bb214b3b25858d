"""Label one structure, or a batch of them on a worker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.labelling import differences
from hint_plugins.labelling.engine import EngineError, EngineSpec, Evaluation, LabelEngine, Scalar, Surface
from hint_plugins.labelling.record import LabelTask, structure_key
from hint_plugins.labelling.symmetry import symmetric_hessian
from hint_plugins.runs.threads import single_threaded
from hint_plugins.structures.charges import charge_and_multiplicity, stated
from hint_plugins.structures.frozen import free_components

Record = dict[str, Any]

#: Atoms closer than this (A) are not a structure but an error in the input.
TOO_CLOSE = 0.3


def make_label(engine: LabelEngine, atoms: Atoms, task: LabelTask) -> Record:
    """Compute the label of one structure.

    Parameters
    ----------
    engine, atoms, task
        Who labels what, and how.

    Returns
    -------
    dict
        Plain numbers and lists: ``key``, ``status`` ("done"), ``kind``, ``energy`` (eV), ``forces`` (N, 3) in
        eV/A, ``stress`` (6,) in eV/A^3 or None, the Hessian under ``hessian*``, and ``provenance``.

    Raises
    ------
    EngineError
        If the structure is no structure, or the calculation does not converge to finite numbers.
    """
    started = time.perf_counter()
    _refuse_nonsense(atoms)
    kind = task.kind_for(atoms)
    key = structure_key(atoms, kind)
    given = atoms.copy()  # an engine may move what it is given
    given.set_constraint()  # forces are those of all atoms
    surface = engine.surface(given)
    gradients = 0

    def evaluate(positions: np.ndarray) -> Evaluation:
        nonlocal gradients
        gradients += 1
        result = surface.evaluate(positions)
        if not (np.isfinite(result.energy) and np.isfinite(result.forces).all()):
            raise EngineError("energy or forces are not finite")
        return result

    centre = evaluate(atoms.positions)
    provenance: dict[str, Scalar] = {"kind": kind, **_state(atoms), **engine.provenance()}
    hessian: Record = {}
    if kind != "forces":
        hessian, quality = _second_derivative(engine, surface, lambda r: evaluate(r).forces, atoms, kind, key, task)
        provenance.update(quality)
    provenance.update(getattr(surface, "details", {}))
    provenance["gradients"] = gradients
    provenance["seconds"] = round(time.perf_counter() - started, 6)
    return {
        "key": key,
        "status": "done",
        "kind": kind,
        "energy": float(centre.energy),
        "forces": centre.forces.tolist(),
        "stress": None if centre.stress is None else np.asarray(centre.stress).tolist(),
        **hessian,
        "provenance": provenance,
    }


def _second_derivative(
    engine: LabelEngine,
    surface: Surface,
    forces: differences.Forces,
    atoms: Atoms,
    kind: str,
    key: str,
    task: LabelTask,
) -> tuple[Record, dict[str, Scalar]]:
    """The Hessian part of a record and its quality numbers."""
    dim = atoms.positions.size
    if kind == "projections":
        directions = differences.signs(task.num_probes, dim, task.seed, key)
    elif kind == "columns":
        directions = np.eye(dim)[differences.choose_columns(task.num_probes, dim, task.seed, key)]
    elif kind == "block":
        directions = np.eye(dim)[free_components(atoms).reshape(-1)]
    else:
        directions = np.eye(dim)
    analytic = surface.hessian() if task.analytic and kind != "projections" else None
    quality: dict[str, Scalar] = {"derivative": "analytic" if analytic is not None else "central differences"}
    if analytic is not None:
        rows = directions @ np.asarray(analytic).reshape(dim, dim)
    else:
        step = task.step or (engine.probe_step if kind == "projections" else engine.step)
        quality["step_A"] = step
        rows = (
            symmetric_hessian(forces, atoms, step)
            if task.symmetry and kind == "full"
            else differences.products(forces, atoms.positions, directions, step)
        )
    if not np.isfinite(rows).all():
        raise EngineError("second derivatives are not finite")
    if task.symmetry and kind == "full" and analytic is None:
        # Symmetry makes the matrix symmetric whatever the forces are: measure them where no symmetry is used.
        direction = differences.signs(1, dim, task.seed, key)
        product = differences.products(forces, atoms.positions, direction, engine.probe_step)
        quality["noise"] = differences.disagreement(direction, direction @ rows, product)
    elif len(directions) > 1:
        quality["asymmetry"] = differences.largest_asymmetry(directions, rows)
    if kind != "block" and not getattr(engine, "removes_net_force", False):
        quality["sum_rule"] = differences.sum_rule_residual(directions, rows)
    if kind == "full":
        return {"hessian": (0.5 * (rows + rows.T)).reshape(-1).tolist()}, quality
    if kind == "block":
        block = rows @ directions.T
        return {
            "hessian_block": (0.5 * (block + block.T)).reshape(-1).tolist(),
            "hessian_block_indices": directions.argmax(axis=1).tolist(),
        }, quality
    if kind == "columns":
        indices = directions.argmax(axis=1).tolist()
        return {"hessian_columns": rows.reshape(-1).tolist(), "hessian_column_indices": indices}, quality
    return {
        "hessian_probes": directions.reshape(-1).tolist(),
        "hessian_products": rows.reshape(-1).tolist(),
    }, quality


def _state(atoms: Atoms) -> dict[str, Scalar]:
    """``charge`` and ``multiplicity`` of a label; a crystal's multiplicity only where the structure states one."""
    charge, multiplicity = charge_and_multiplicity(atoms)
    if atoms.pbc.any() and "spin" not in stated(atoms):
        return {"charge": charge}
    return {"charge": charge, "multiplicity": multiplicity}


def _refuse_nonsense(atoms: Atoms) -> None:
    if len(atoms) == 0:
        raise EngineError("the structure has no atoms")
    if not np.isfinite(atoms.positions).all() or not np.isfinite(np.asarray(atoms.cell)).all():
        raise EngineError("positions or cell are not finite")
    if (atoms.numbers < 1).any():
        raise EngineError("an atom has no element (atomic number 0)")
    if len(atoms) > 1:
        distances = atoms.get_all_distances(mic=bool(atoms.pbc.any()))
        np.fill_diagonal(distances, np.inf)
        if distances.min() < TOO_CLOSE:
            i, j = np.unravel_index(distances.argmin(), distances.shape)
            raise EngineError(f"atoms {i} and {j} are {distances.min():.3f} A apart")


@lru_cache(maxsize=2)
def _engine(name: str, options: tuple[tuple[str, Any], ...]) -> LabelEngine:
    return EngineSpec(name, dict(options)).build()


def label_batch(spec: EngineSpec, task: LabelTask, batch: Sequence[tuple[str, Atoms]]) -> list[Record]:
    """Label a batch on a worker, one thread; a structure that fails becomes a record with its error."""
    with single_threaded():
        engine = _engine(spec.name, tuple(sorted(spec.options.items())))
    records = []
    for key, atoms in batch:
        try:
            records.append(make_label(engine, atoms, task))
        except Exception as error:  # any failure of the engine belongs to this structure alone
            records.append(failure(key, atoms, error))
    return records


def failure(key: str, atoms: Atoms, error: BaseException) -> Record:
    """The record of a structure that could not be labelled."""
    reason = str(error).strip() or repr(error)
    if not isinstance(error, EngineError):
        reason = f"{type(error).__name__}: {reason}"
    return {"key": key, "status": "failed", "formula": str(atoms.symbols), "error": reason}
