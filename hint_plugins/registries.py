"""What has a name that options choose: this package's own entries and those of the loaded plugins.

All come from hooks of a plugin manager (``register_engines``, ``register_readers``, ...); a plugin's entry of the same
name goes before this package's. Which manager is in use is set by :func:`use`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import pluggy

from hint_plugins.errors import InputError
from hint_plugins.hookspecs import hookimpl
from hint_plugins.plugins import new_manager

#: Name of this package's own entries among the plugins of a manager.
OWN = "hint-plugins"


class BuiltIn:
    """What this package registers. Addresses, so that nothing is imported before it is asked for."""

    @hookimpl
    def register_probe_laws(self) -> dict[str, str]:
        """Laws of the probes."""
        return {
            name: f"hint_plugins.curvature.probes:{name}"
            for name in ("rademacher", "gaussian", "columns", "orthogonal")
        }

    @hookimpl
    def register_engines(self) -> dict[str, str]:
        """Engines of Hessian-vector products."""
        names = "reverse", "replicate", "vmap", "finite_difference", "finite_difference_one_sided"
        return {name: f"hint_plugins.curvature.engines:{name}" for name in names}

    @hookimpl
    def register_schedules(self) -> dict[str, str]:
        """Shapes of the ramp of the Hessian weight."""
        return {name: f"hint_plugins.objective.curriculum:{name}" for name in ("linear", "cosine", "step", "constant")}

    @hookimpl
    def register_label_makers(self) -> dict[str, str]:
        """Engines of ``hint label``."""
        return {
            "xtb": "hint_plugins.labelling.xtb:XTBEngine",
            "pyscf": "hint_plugins.labelling.pyscf:PySCFEngine",
            "espresso": "hint_plugins.labelling.espresso:EspressoEngine",
            "ase": "hint_plugins.labelling.ase_calculator:ASEEngine",
        }

    @hookimpl
    def register_readers(self) -> dict[str, str]:
        """Readers of ``hint convert``, with the signature ``(path, bad, **options)``."""
        return {
            "extxyz": "hint_plugins.datasets.reading:read_store",
            "aselmdb": "hint_plugins.datasets.reading:read_store",
            "ase": "hint_plugins.datasets.reading:read_store",
            "horm": "hint_plugins.datasets.horm:read_horm",
            "transition1x": "hint_plugins.datasets.transition1x:read_transition1x",
            "rgd1": "hint_plugins.datasets.rgd1:read_rgd1",
            "hessian-qm9": "hint_plugins.datasets.hessian_qm9:read_hessian_qm9",
            "deepmd": "hint_plugins.datasets.deepmd:read_deepmd",
            "qe-fc": "hint_plugins.datasets.espresso_fc:read_espresso_fc",
            "phonopy": "hint_plugins.datasets.phonopy_mdr:read_phonopy",
            "openreact": "hint_plugins.datasets.openreact:read_openreact",
            "codes": "hint_plugins.datasets.codes:read_codes",
        }

    @hookimpl
    def register_selectors(self) -> dict[str, str]:
        """Ways of ``hint select`` to choose structures."""
        return {
            "density": "hint_plugins.selection.choose:by_density",
            "energy": "hint_plugins.selection.choose:by_relative_energy",
            "random": "hint_plugins.selection.choose:at_random",
        }


@dataclass(frozen=True)
class Registries:
    """Entries by name.

    Attributes
    ----------
    probe_laws, engines, schedules, selectors
        Functions, or their ``module:name`` (:func:`resolve`).
    label_makers, readers
        ``module:name`` of classes and functions, so that workers can import them.
    """

    probe_laws: Mapping[str, Callable | str]
    engines: Mapping[str, Callable | str]
    schedules: Mapping[str, Callable | str]
    label_makers: Mapping[str, str]
    readers: Mapping[str, str]
    selectors: Mapping[str, Callable | str]

    @classmethod
    def of(cls, manager: pluggy.PluginManager) -> Registries:
        """What the plugins of ``manager`` register, after this package's own.

        Raises
        ------
        InputError
            If an engine or reader could not be imported by a worker.
        """
        if not manager.has_plugin(OWN):
            manager.register(BuiltIn(), name=OWN)  # the last registered answers first
        hook = manager.hook
        return cls(
            _merged(hook.register_probe_laws()),
            _merged(hook.register_engines()),
            _merged(hook.register_schedules()),
            _addresses(hook.register_label_makers()),
            _addresses(hook.register_readers()),
            _merged(hook.register_selectors()),
        )


_in_use: ContextVar[Registries | None] = ContextVar("registries", default=None)


def use(manager: pluggy.PluginManager | None) -> None:
    """Make the registries of ``manager`` those in use; None: this package's own entries only.

    Raises
    ------
    InputError
        As :meth:`Registries.of`.
    """
    _in_use.set(None if manager is None else Registries.of(manager))


def registries() -> Registries:
    """The registries in use."""
    return _in_use.get() or _own()


def resolve(target: Callable | str) -> Any:
    """The function or class behind ``module:name``; anything that is no text as it is.

    Raises
    ------
    ImportError, AttributeError, ValueError
        If there is none.
    """
    if not isinstance(target, str):
        return target
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


@cache
def _own() -> Registries:
    return Registries.of(new_manager())


def _merged(answers: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for answer in answers:
        merged.update(answer or {})
    return merged


def _addresses(answers: Iterable[Mapping[str, Any] | None]) -> dict[str, str]:
    return {name: _address(target) for name, target in _merged(answers).items()}


def _address(target: Any) -> str:
    if isinstance(target, str):
        return target
    name = getattr(target, "__qualname__", "")
    if not name.isidentifier():
        raise InputError(f"{target!r} must be a function or class at the top level of a module")
    return f"{target.__module__}:{name}"
