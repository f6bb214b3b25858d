"""Entries of the registries for the time of a test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from hint_plugins.hookspecs import hookimpl
from hint_plugins.plugins import load_plugins
from hint_plugins.registries import use


@contextlib.contextmanager
def registered(
    *,
    probe_laws: dict[str, Callable] | None = None,
    engines: dict[str, Callable] | None = None,
    plugins: tuple[str, ...] = (),
) -> Iterator[None]:
    """Within, a plugin registers these entries, and those of the installed ``plugins`` are in use too."""

    class Registering:
        @hookimpl
        def register_probe_laws(self) -> dict[str, Callable]:
            return probe_laws or {}

        @hookimpl
        def register_engines(self) -> dict[str, Callable]:
            return engines or {}

    manager = load_plugins(plugins)
    manager.register(Registering())
    use(manager)
    try:
        yield
    finally:
        use(None)
