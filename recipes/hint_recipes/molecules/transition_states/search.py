"""From the end points of one reaction to its transition state, and the proof that it connects them.

The steps are those of the ReactBench workflow: relaxed end points, path, saddle with exact Hessians, exactly one
imaginary mode, reaction coordinate both ways, and bond graphs of its ends against those of the end points.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hint_plugins.runs.files import plain
from hint_plugins.units import KCAL
from hint_recipes.failures import SearchFailure
from hint_recipes.molecules.transition_states.bonds import bond_matrix, changed_bonds
from hint_recipes.molecules.transition_states.ends import EndPoints, rmsd
from hint_recipes.molecules.transition_states.reaction import Reaction, check_reaction
from hint_recipes.molecules.transition_states.result import FIELDS, SearchResult
from hint_recipes.molecules.transition_states.search_steps import follow_coordinate, guess_from_path, search_saddle
from hint_recipes.molecules.transition_states.settings import SearchSettings
from hint_recipes.molecules.transition_states.stationary import minimise
from hint_recipes.steps import check_deadline

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


def search(reaction: Reaction, potential: Potential, settings: SearchSettings | None = None) -> SearchResult:
    """Find the transition state of one reaction.

    Parameters
    ----------
    reaction
        End points and, where known, the reference transition state and energies.
    potential
        Energies, forces and Hessians.
    settings
        See :class:`SearchSettings`.

    Returns
    -------
    SearchResult
        ``record`` has ``name, formula, n_atoms, path_converged, ts_converged, intended, conformational`` (no bond
        changes), ``reactant_energy`` (eV, of the relaxed reactant), ``barrier, reaction_energy`` (eV above it; also
        ``_kcal_mol``), ``imaginary_cm1`` (positive: 1427 means 1427i), ``n_imaginary``, ``frequencies_cm1``,
        ``irc_converged`` and the entries of :meth:`~hint_recipes.molecules.transition_states.ends.EndPoints.describe`,
        ``n_hessians, n_forces, seconds, reason, detail, attempts``; with references also ``ts_rmsd`` (A),
        ``barrier_error``, ``reaction_energy_error`` (eV). What was not reached is None. ``reason`` is None exactly
        when the saddle is the intended one.
    """
    settings = settings or SearchSettings()
    record: dict[str, Any] = dict.fromkeys(FIELDS)
    record |= {"name": reaction.name, "path_converged": False, "ts_converged": False, "intended": False, "attempts": []}
    result = SearchResult(record, [])
    started, cpu = time.monotonic(), time.process_time()
    forces, hessians = potential.calls.forces, potential.calls.hessians
    try:
        check_reaction(reaction)
        record |= {"formula": reaction.reactant.get_chemical_formula(), "n_atoms": len(reaction.reactant)}
        _search(reaction, potential, settings, result, started + settings.max_seconds)
    except SearchFailure as failure:
        record |= {"reason": failure.reason, "detail": failure.detail}
    except Exception as error:  # a potential's or library's own failure; the other reactions go on
        record |= {"reason": "potential_failed", "detail": f"{type(error).__name__}: {error}"[:500]}
    record |= {
        "n_forces": potential.calls.forces - forces,
        "n_hessians": potential.calls.hessians - hessians,
        "seconds": round(time.monotonic() - started, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
    }
    result.record = plain(record)
    return result


def _search(
    reaction: Reaction, potential: Potential, settings: SearchSettings, result: SearchResult, deadline: float
) -> None:
    record = result.record
    if settings.needs_pysisyphus and reaction.reactant.constraints:
        raise SearchFailure("frozen_atoms", "gsm and rsirfo move every atom: choose neb and sella")
    graphs = bond_matrix(reaction.reactant), bond_matrix(reaction.product)
    record["conformational"] = bool(np.array_equal(*graphs))
    record["bonds"] = changed_bonds(*graphs, reaction.reactant)
    reactant, product = (_relaxed(reaction, role, potential, settings, deadline) for role in ("reactant", "product"))
    result.ends = reactant, product
    ends = EndPoints(graphs, (reactant, product))
    record["reactant_kept"], record["product_kept"] = ends.kept_bonds()
    e_reactant, e_product = reactant.get_potential_energy(), product.get_potential_energy()
    record["reactant_energy"] = float(e_reactant)
    _set_energy(record, "reaction_energy", e_product - e_reactant)
    if "reactant" in reaction.energies and "product" in reaction.energies:
        reference = reaction.energies["product"] - reaction.energies["reactant"]
        record["reaction_energy_error"] = record["reaction_energy"] - reference
    if ends.merged():
        raise SearchFailure("end_points_merged")

    failure: SearchFailure | None = None
    for method in ("neb", "geodesic") if settings.path == "auto" else (settings.path,):
        attempt: dict[str, Any] = {"path": method}
        record["attempts"].append(attempt)
        try:
            guess = guess_from_path(method, reactant, product, potential, settings, result, attempt, deadline)
            search_saddle(guess, potential, settings, result, deadline)
            assert result.ts is not None
            _set_energy(record, "barrier", result.ts.get_potential_energy() - e_reactant)
            _compare_with_reference(reaction, result)
            if record["barrier"] < 0:
                raise SearchFailure("negative_barrier", f"{record['barrier'] / KCAL:.2f} kcal/mol")
            follow_coordinate(result, ends, potential, settings, deadline)
            record |= {"intended": True, "reason": None, "detail": None}
            attempt["reason"] = None
            return
        except SearchFailure as error:
            failure = error
        except Exception as error:  # libraries and potentials fail in their own ways
            failure = SearchFailure("potential_failed", f"{type(error).__name__}: {error}"[:500])
        attempt["reason"] = failure.reason
        check_deadline(deadline)
    assert failure is not None
    raise failure


def _set_energy(record: dict[str, Any], key: str, value: float) -> None:
    record[key], record[f"{key}_kcal_mol"] = float(value), float(value / KCAL)


def _relaxed(reaction: Reaction, role: str, potential: Potential, settings: SearchSettings, deadline: float) -> Atoms:
    try:
        relaxed, converged = minimise(
            reaction.frames[role],
            potential,
            fmax=settings.end_point_fmax,
            steps=settings.end_point_steps,
            deadline=deadline,
        )
    except SearchFailure as failure:
        raise SearchFailure(failure.reason, f"{role}: {failure.detail}") from failure
    if not converged:
        raise SearchFailure("end_point_not_converged", f"{role}, after {settings.end_point_steps} steps")
    relaxed.info |= {"reaction": reaction.name, "role": role}
    return relaxed


def _compare_with_reference(reaction: Reaction, result: SearchResult) -> None:
    record = result.record
    if "ts" in reaction.frames and result.ts is not None:
        record["ts_rmsd"] = rmsd(result.ts, reaction.frames["ts"])
        if "ts" in reaction.energies and "reactant" in reaction.energies:
            reference = reaction.energies["ts"] - reaction.energies["reactant"]
            record["barrier_error"] = record["barrier"] - reference
