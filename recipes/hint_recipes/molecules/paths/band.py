"""Climbing-image elastic bands between the end points of a reaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ase import Atoms

from hint_recipes.failures import SearchFailure
from hint_recipes.molecules.paths.elastic_band import initial_path, relax_band
from hint_recipes.molecules.paths.settings import BandSettings
from hint_recipes.molecules.transition_states.bonds import bond_matrix
from hint_recipes.molecules.transition_states.ends import EndPoints
from hint_recipes.molecules.transition_states.reaction import Reaction, check_reaction
from hint_recipes.molecules.transition_states.stationary import minimise

if TYPE_CHECKING:
    from hint_plugins.potential import Potential


def relaxed_band(
    reaction: Reaction,
    potential: Potential,
    settings: BandSettings | None = None,
    *,
    start: list[Atoms] | None = None,
    observer: Callable[[list[Atoms]], None] = lambda images: None,
) -> tuple[list[Atoms], bool]:
    """Relax a climbing-image band between the end points of a reaction.

    Parameters
    ----------
    reaction
        End points.
    potential
        Evaluates all images in one call a step.
    settings
        The band.
    start
        Images of an earlier, unfinished relaxation.
    observer
        Called with the images after every step.

    Returns
    -------
    list of ase.Atoms, bool
        The images, evaluated, and whether the band converged.

    Raises
    ------
    SearchFailure
        For end points that do not fit together or do not converge.
    """
    from ase.optimize import LBFGS
    from ase.optimize.fire2 import FIRE2

    settings = settings or BandSettings()
    check_reaction(reaction)
    if start is None:
        ends = [reaction.reactant, reaction.product]
        if settings.end_point_fmax > 0:
            relaxed = [minimise(end, potential, fmax=settings.end_point_fmax, steps=1000) for end in ends]
            for role, (_, reached) in zip(("reactant", "product"), relaxed, strict=True):
                if not reached:
                    raise SearchFailure("end_point_not_converged", f"{role}, after 1000 steps")
            ends = [end for end, _ in relaxed]
            for end in ends:
                end.info["reaction"] = reaction.name
            if EndPoints((bond_matrix(reaction.reactant), bond_matrix(reaction.product)), (ends[0], ends[1])).merged():
                raise SearchFailure("end_points_merged")
        images = initial_path(ends[0], ends[1], settings.images, settings.seed)
    else:
        images = start
    converged, _ = relax_band(
        images,
        potential,
        fmax=settings.fmax,
        steps=settings.steps,
        spring=settings.spring,
        climb_below=10 * settings.fmax,
        optimizer=FIRE2 if settings.optimizer == "fire" else LBFGS,
        observer=lambda: observer(images),
    )
    return images, converged
