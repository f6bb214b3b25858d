"""Wraps a handful of MACE's functions, each where it is defined, after checking that they are what we expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hint_mace.leaving import exit_with
from hint_mace.patching import IncompatibleHostError, check_host
from hint_plugins.plugins import PluginError, load_plugins
from hint_plugins.registries import use

if TYPE_CHECKING:
    from hint_mace.adapter import Adapter


def install_or_exit(names: Sequence[str]) -> None:
    """:func:`install`, with errors as one line and exit status 2."""
    try:
        install(names)
    except (PluginError, IncompatibleHostError) as error:
        exit_with(error)


def install(names: Sequence[str]) -> Adapter:
    """Load the named plugins and wrap MACE.

    Parameters
    ----------
    names
        Plugin names, at least one.

    Returns
    -------
    Adapter

    Raises
    ------
    PluginError
        If a plugin is unknown or broken.
    IncompatibleHostError
        If a function of MACE does not look as expected.
    """
    check_host()
    from hint_mace.adapter import Adapter
    from hint_mace.checkpoint import wrap_checkpoints
    from hint_mace.loop import wrap_training
    from hint_mace.models import wrap_models
    from hint_mace.reading import wrap_labels
    from hint_mace.starting import wrap_distributed, wrap_parsers
    from hint_mace.tables import wrap_tables

    manager = load_plugins(names)
    use(manager)
    adapter = Adapter(manager)
    wraps = (wrap_parsers, wrap_distributed, wrap_labels, wrap_checkpoints, wrap_training, wrap_tables, wrap_models)
    try:
        for wrap in wraps:
            wrap(adapter)
    except BaseException:  # all or nothing
        adapter.uninstall()
        raise
    return adapter
