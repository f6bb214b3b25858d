"""Finding, loading and listing plugins. A plugin is used only when it is named."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

import pluggy

from hint_plugins.errors import HintError
from hint_plugins.hookspecs import PROJECT, HookSpecs

GROUP = "hint_plugins"
log = logging.getLogger(__name__)


class PluginError(HintError, ValueError):
    """A plugin that is not installed or cannot be loaded."""


def installed_plugins() -> dict[str, EntryPoint]:
    """Entry points of the group ``hint_plugins`` by name."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def new_manager() -> pluggy.PluginManager:
    """A plugin manager that knows the hooks, without plugins."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    return manager


def load_plugins(names: Sequence[str]) -> pluggy.PluginManager:
    """Make a plugin manager with the named plugins.

    Parameters
    ----------
    names
        Entry-point names of the group ``hint_plugins``. The entry point is a module, an object with
        hook implementations, or a class, which is instantiated; its attribute ``brings`` names plugins to be
        loaded with it.

    Returns
    -------
    pluggy.PluginManager
        With the hooks of :class:`hint_plugins.hookspecs.HookSpecs`; what the plugins register is in use once
        :func:`hint_plugins.registries.use` is given the manager.

    Raises
    ------
    PluginError
        If a name is unknown (the message lists what is installed) or its import fails.
    """
    manager = new_manager()
    known = installed_plugins()
    waiting = list(dict.fromkeys(names))
    while waiting:
        name = waiting.pop(0)
        if manager.has_plugin(name):
            continue
        if name not in known:
            raise PluginError(
                f"plugin {name!r} is not installed: installed are {', '.join(sorted(known)) or 'none'}. "
                f"A package offers one through the entry-point group {GROUP!r}."
            )
        try:
            plugin = known[name].load()
            if hasattr(plugin, "create_plugin"):
                plugin = plugin.create_plugin()
            elif inspect.isclass(plugin):
                plugin = plugin()
            manager.register(plugin, name=name)
            waiting += getattr(plugin, "brings", ())
        except Exception as error:
            raise PluginError(f"plugin {name!r} ({known[name].value}) cannot be loaded: {error}") from error
    manager.check_pending()
    return manager


def describe_plugins(manager: pluggy.PluginManager) -> list[str]:
    """One line a loaded plugin: name, distribution and version."""
    known = installed_plugins()
    lines = []
    for name, _ in manager.list_name_plugin():
        entry = known.get(name)
        dist = entry.dist if entry is not None else None
        lines.append(f"{name} ({dist.name} {dist.version})" if dist is not None else f"{name} (no distribution)")
    return lines
