"""Studies with any potential: transition states, Gibbs energies, paths, stability, phonons, SSCHA, Tc.

The names below are loaded when they are first used.
"""

from __future__ import annotations

from hint_plugins.lazy import attach

#: Public names and the modules where they live.
PUBLIC = {
    "Reaction": "hint_recipes.molecules.transition_states.reaction",
    "SearchSettings": "hint_recipes.molecules.transition_states.settings",
    "TransitionStates": "hint_recipes.molecules.transition_states.study",
    "find_transition_states": "hint_recipes.molecules.transition_states.study",
}

__getattr__, __dir__ = attach(__name__, PUBLIC)
