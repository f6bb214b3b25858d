"""HINT: Hessian-informed training of interatomic potentials inside existing trainers.

The names below are loaded when they are first used, so that ``import hint_plugins`` costs nothing.
"""

from __future__ import annotations

from hint_plugins.lazy import attach

__version__ = "0.1.0"

#: Public names and the modules where they live.
PUBLIC = {
    "HessianLabel": "hint_plugins.labels.hessian_label",
    "HintConfig": "hint_plugins.config",
    "HintError": "hint_plugins.errors",
    "HintPlugin": "hint_plugins.training.hint",
    "Potential": "hint_plugins.potential",
    "check_derivatives": "hint_plugins.curvature.selftest",
    "check_label": "hint_plugins.labels.checks",
    "read_structures": "hint_plugins.storage.store",
    "write_structures": "hint_plugins.storage.store",
}

__getattr__, __dir__ = attach(__name__, PUBLIC)
