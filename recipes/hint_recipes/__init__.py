"""Studies with any potential: transition states, Gibbs energies, paths, stability, phonons, SSCHA, Tc.

The names below are loaded when they are first used.
"""

from __future__ import annotations

from hint_plugins.lazy import attach

#: Public names and the modules where they live.
PUBLIC = {
    "BandSettings": "hint_recipes.molecules.paths.settings",
    "GibbsEnergies": "hint_recipes.molecules.thermochemistry.study",
    "GibbsSettings": "hint_recipes.molecules.thermochemistry.settings",
    "RampSettings": "hint_recipes.molecules.stability.settings",
    "Reaction": "hint_recipes.molecules.transition_states.reaction",
    "ReactionPaths": "hint_recipes.molecules.paths.study",
    "SearchSettings": "hint_recipes.molecules.transition_states.settings",
    "Stability": "hint_recipes.molecules.stability.study",
    "TransitionStates": "hint_recipes.molecules.transition_states.study",
    "compute_gibbs_energies": "hint_recipes.molecules.thermochemistry.study",
    "find_transition_states": "hint_recipes.molecules.transition_states.study",
    "heat_until_broken": "hint_recipes.molecules.stability.study",
    "relax_paths": "hint_recipes.molecules.paths.study",
}

__getattr__, __dir__ = attach(__name__, PUBLIC)
