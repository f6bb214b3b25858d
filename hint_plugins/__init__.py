"""HINT: Hessian-informed training of interatomic potentials inside existing trainers.

The names below are loaded when they are first used, so that ``import hint_plugins`` costs nothing.
"""

from __future__ import annotations

from hint_plugins.lazy import attach

__version__ = "0.1.0"

#: Public names and the modules where they live.
PUBLIC = {
    "CheckSettings": "hint_plugins.labels.settings",
    "ConvertSettings": "hint_plugins.datasets.settings",
    "DisplaceSettings": "hint_plugins.selection.settings",
    "EvaluateSettings": "hint_plugins.evaluation.settings",
    "HessianLabel": "hint_plugins.labels.hessian_label",
    "HintConfig": "hint_plugins.config",
    "HintError": "hint_plugins.errors",
    "HintPlugin": "hint_plugins.training.hint",
    "LabelSettings": "hint_plugins.labelling.settings",
    "Potential": "hint_plugins.potential",
    "SelectSettings": "hint_plugins.selection.settings",
    "check_derivatives": "hint_plugins.curvature.selftest",
    "check_label": "hint_plugins.labels.checks",
    "check_labels": "hint_plugins.labels.checking",
    "convert_dataset": "hint_plugins.datasets.study",
    "displace_structures": "hint_plugins.selection.displacing",
    "evaluate_potential": "hint_plugins.evaluation.study",
    "label_structures": "hint_plugins.labelling.study",
    "read_structures": "hint_plugins.storage.store",
    "select_structures": "hint_plugins.selection.selecting",
    "write_structures": "hint_plugins.storage.store",
}

__getattr__, __dir__ = attach(__name__, PUBLIC)
