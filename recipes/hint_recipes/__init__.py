"""Studies with any potential: transition states, Gibbs energies, paths, stability, phonons, SSCHA, Tc.

The names below are loaded when they are first used.
"""

from __future__ import annotations

from hint_plugins.lazy import attach

#: Public names and the modules where they live.
PUBLIC = {
    "BandSettings": "hint_recipes.molecules.paths.settings",
    "Comparison": "hint_recipes.demo.study",
    "CriticalTemperatures": "hint_recipes.crystals.superconductivity.study",
    "DemoSettings": "hint_recipes.demo.settings",
    "FinetuneSettings": "hint_recipes.crystals.finetune.settings",
    "FinetunedModels": "hint_recipes.crystals.finetune.study",
    "GibbsEnergies": "hint_recipes.molecules.thermochemistry.study",
    "GibbsSettings": "hint_recipes.molecules.thermochemistry.settings",
    "PhononSettings": "hint_recipes.crystals.phonons.settings",
    "Phonons": "hint_recipes.crystals.phonons.study",
    "RampSettings": "hint_recipes.molecules.stability.settings",
    "RankSettings": "hint_recipes.crystals.sscha.settings",
    "Ranking": "hint_recipes.crystals.sscha.rank",
    "Reaction": "hint_recipes.molecules.transition_states.reaction",
    "ReactionPaths": "hint_recipes.molecules.paths.study",
    "SearchSettings": "hint_recipes.molecules.transition_states.settings",
    "Sscha": "hint_recipes.crystals.sscha.study",
    "SschaScan": "hint_recipes.crystals.sscha.scan",
    "SschaSettings": "hint_recipes.crystals.sscha.settings",
    "Stability": "hint_recipes.molecules.stability.study",
    "TcSettings": "hint_recipes.crystals.superconductivity.settings",
    "TransitionStates": "hint_recipes.molecules.transition_states.study",
    "compare_trainings": "hint_recipes.demo.study",
    "compute_gibbs_energies": "hint_recipes.molecules.thermochemistry.study",
    "compute_phonons": "hint_recipes.crystals.phonons.study",
    "compute_tc": "hint_recipes.crystals.superconductivity.study",
    "find_transition_states": "hint_recipes.molecules.transition_states.study",
    "finetune_hydride": "hint_recipes.crystals.finetune.study",
    "heat_until_broken": "hint_recipes.molecules.stability.study",
    "rank_structures": "hint_recipes.crystals.sscha.rank",
    "relax_paths": "hint_recipes.molecules.paths.study",
    "run_sscha": "hint_recipes.crystals.sscha.study",
    "scan_sscha": "hint_recipes.crystals.sscha.scan",
}

__getattr__, __dir__ = attach(__name__, PUBLIC)
