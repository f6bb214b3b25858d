"""What the wrappers share during one run of MACE's trainer."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from typing import Any

import pluggy

from hint_mace.checkpoint import require_same_settings
from hint_mace.energies import Energies
from hint_mace.patching import Patches

log = logging.getLogger(__name__)


class Adapter:
    """The installed wrappers and the run they serve.

    Attributes
    ----------
    energies
        Judges what the structures read so far have for energies.
    args, settings
        MACE's parsed arguments, and those that decide what is trained, as the user gave them.
    session
        The run within ``mace.tools.train``; None before and after.
    trained
        The run that has ended, for the tables after it.
    patches
        What was replaced of MACE and torch.
    """

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self.manager = manager
        self.args = argparse.Namespace()
        self.settings: dict[str, str] = {}
        self.energies = Energies()
        self.session: Any = None
        self.trained: Any = None
        self.patches = Patches()

    def uninstall(self) -> None:
        """Restore every function of MACE and torch that was replaced."""
        self.patches.undo()

    def accept_changes(self, stored: Mapping[str, str], now: Mapping[str, str]) -> None:
        """Compare the settings of a checkpoint with those of this run; changes must have been allowed."""
        allow = bool(getattr(self.args, "hessian_allow_changes", False))
        for change in require_same_settings(stored, now, allow):
            log.warning("changed since the checkpoint: %s", change)
