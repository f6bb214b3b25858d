"""From the end points of one reaction to its transition state, and the proof that it connects them.

The steps are those of the ReactBench workflow: relaxed end points, path, saddle with exact Hessians, exactly one
imaginary mode, reaction coordinate both ways, and bond graphs of its ends against those of the end points.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hint_plugins.objective.metrics import frequencies
from hint_plugins.runs.files import plain
from hint_plugins.units import KCAL
from hint_recipes.failures import SearchFailure
from hint_recipes.molecules.paths.elastic_band import evaluate_images, initial_path, relax_band, without_repeats
from hint_recipes.molecules.transition_states.bonds import bond_matrix, changed_bonds
from hint_recipes.molecules.transition_states.ends import ROLES, EndPoints, rmsd
from hint_recipes.molecules.transition_states.irc import follow
from hint_recipes.molecules.transition_states.reaction import Reaction, check_reaction
from hint_recipes.molecules.transition_states.settings import SearchSettings
from hint_recipes.molecules.transition_states.stationary import find_saddle, hessian_of_free, minimise
from hint_recipes.steps import check_deadline

if TYPE_CHECKING:
    from hint_plugins.potential import Potential

# fmt: off
#: Keys of a record.
FIELDS = (
    "name", "formula", "n_atoms", "path_converged", "ts_converged", "intended", "conformational", "reactant_energy",
    "barrier", "barrier_kcal_mol", "reaction_energy", "reaction_energy_kcal_mol", "imaginary_cm1", "n_imaginary",
    "frequencies_cm1", "irc_converged", "irc_reactant_energy", "irc_product_energy", "irc_reactant_rmsd",
    "irc_product_rmsd", "irc_reactant_conformer", "irc_product_conformer", "reactant_kept", "product_kept", "bonds",
    "ts_rmsd", "barrier_error", "reaction_energy_error", "n_hessians", "n_forces", "seconds", "cpu_seconds", "reason",
    "detail", "attempts",
)
# fmt: on
@dataclass
class SearchResult:
    """``record`` is plain data (see :func:`search`); the structures carry energies (eV) and forces (eV/A).

    ``ends`` are the relaxed reactant and product; ``irc`` goes from the reactant's side to the product's.
    """

    record: dict[str, Any]
    path: list[Atoms]
    ts: Atoms | None = None
    irc: list[Atoms] | None = None
    ends: tuple[Atoms, ...] = ()


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
            guess = _guess(method, reactant, product, potential, settings, result, attempt, deadline)
            _saddle(guess, potential, settings, result, deadline)
            assert result.ts is not None
            _set_energy(record, "barrier", result.ts.get_potential_energy() - e_reactant)
            _compare_with_reference(reaction, result)
            if record["barrier"] < 0:
                raise SearchFailure("negative_barrier", f"{record['barrier'] / KCAL:.2f} kcal/mol")
            _coordinate(result, ends, potential, settings, deadline)
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


def _guess(
    method: str,
    reactant: Atoms,
    product: Atoms,
    potential: Potential,
    settings: SearchSettings,
    result: SearchResult,
    attempt: dict[str, Any],
    deadline: float,
) -> Atoms:
    """The highest structure between the end points; keeps the path in ``result``."""
    if method == "gsm":
        from hint_recipes.molecules.transition_states.pysisyphus import growing_string

        images, converged = growing_string(reactant, product, potential, settings.images, deadline=deadline)
    else:
        try:
            images = initial_path(reactant, product, settings.images, settings.seed)
        except Exception as error:  # a least-squares fit inside
            raise SearchFailure("path_failed", f"interpolation: {type(error).__name__}: {error}") from error
        evaluate_images(potential, images)
        converged = True
        if method == "neb":
            converged, attempt["band_steps"] = relax_band(
                images,
                potential,
                fmax=settings.band_fmax,
                steps=settings.band_steps,
                observer=lambda: check_deadline(deadline),
            )
    result.path = images
    energies = np.array([image.get_potential_energy() for image in images])
    highest = int(energies[1:-1].argmax()) + 1
    has_barrier = energies[highest] > max(energies[0], energies[-1])
    result.record["path_converged"] = bool(converged and has_barrier)
    if not has_barrier:
        raise SearchFailure("no_barrier", f"{method} path")
    return images[highest]


def _saddle(
    guess: Atoms, potential: Potential, settings: SearchSettings, result: SearchResult, deadline: float
) -> None:
    record = result.record
    record |= {"ts_converged": False, "barrier": None, "barrier_kcal_mol": None}
    record |= {key: None for key in FIELDS if key.startswith("irc_")}
    result.ts = result.irc = None
    options: dict[str, Any] = {"fmax": settings.saddle_fmax, "steps": settings.saddle_steps, "deadline": deadline}
    try:
        if settings.saddle == "rsirfo":
            from hint_recipes.molecules.transition_states.pysisyphus import rational_function_saddle

            saddle, converged, steps = rational_function_saddle(guess, potential, **options)
        else:
            saddle, converged, steps = find_saddle(guess, potential, **options)
    except SearchFailure:
        raise
    except Exception as error:  # linear algebra of the optimiser
        raise SearchFailure("ts_failed", f"{type(error).__name__}: {error}"[:500]) from error
    saddle.info["role"] = "ts"
    result.ts = saddle
    if not converged:
        raise SearchFailure("ts_not_converged", f"after {steps} steps")
    waves = frequencies(hessian_of_free(potential, saddle), saddle)
    imaginary = int((waves < -settings.imaginary_threshold).sum())
    record |= {
        "ts_converged": imaginary == 1,
        "n_imaginary": imaginary,
        "imaginary_cm1": float(-waves[0]) if waves[0] < 0 else None,
        "frequencies_cm1": [float(w) for w in waves],
    }
    saddle.info["frequencies_cm1"] = waves
    if imaginary != 1:
        listed = ", ".join(f"{-w:.0f}i" for w in waves if w < -settings.imaginary_threshold)
        raise SearchFailure("wrong_imaginary_modes", f"{imaginary} modes{': ' + listed if listed else ''}")


def _coordinate(
    result: SearchResult, ends: EndPoints, potential: Potential, settings: SearchSettings, deadline: float
) -> None:
    """Follow the reaction coordinate, keep it in ``result``, and raise unless it connects reactant and product."""
    saddle = result.ts
    assert saddle is not None
    try:
        branches = follow(saddle, potential, steps=settings.irc_steps, step_length=settings.irc_step, deadline=deadline)
    except SearchFailure:
        raise
    except Exception as error:  # linear algebra of the integrator
        raise SearchFailure("irc_failed", f"{type(error).__name__}: {error}"[:500]) from error
    first, second = branches
    reached = ends.order(first.end, second.end)
    if reached[0] is second.end:
        first, second = second, first
    result.irc = without_repeats([first.end, *first.frames[::-1], saddle, *second.frames, second.end])
    result.record |= {"irc_converged": [first.converged, second.converged], **ends.describe(reached)}
    if not (first.end_converged and second.end_converged):
        raise SearchFailure("irc_end_not_converged")
    ends.judge(reached)
    for end, role in zip((result.irc[0], result.irc[-1]), ROLES, strict=True):
        end.info["role"] = role


def _compare_with_reference(reaction: Reaction, result: SearchResult) -> None:
    record = result.record
    if "ts" in reaction.frames and result.ts is not None:
        record["ts_rmsd"] = rmsd(result.ts, reaction.frames["ts"])
        if "ts" in reaction.energies and "reactant" in reaction.energies:
            reference = reaction.energies["ts"] - reaction.energies["reactant"]
            record["barrier_error"] = record["barrier"] - reference
