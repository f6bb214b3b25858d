"""The steps of a search for one transition state: guess from a path, saddle, reaction coordinate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hint_plugins.objective.metrics import frequencies
from hint_recipes.failures import SearchFailure
from hint_recipes.molecules.paths.elastic_band import evaluate_images, initial_path, relax_band, without_repeats
from hint_recipes.molecules.transition_states.ends import ROLES, EndPoints
from hint_recipes.molecules.transition_states.irc import follow
from hint_recipes.molecules.transition_states.result import FIELDS, SearchResult
from hint_recipes.molecules.transition_states.settings import SearchSettings
from hint_recipes.molecules.transition_states.stationary import find_saddle, hessian_of_free
from hint_recipes.steps import check_deadline

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


def guess_from_path(
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


def search_saddle(
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


def follow_coordinate(
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
