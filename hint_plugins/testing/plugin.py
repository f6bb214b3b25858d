"""What every plugin must do. Subclass :class:`PluginSuite`.

from hint_plugins.testing.plugin import PluginSuite

class TestMine(PluginSuite):
    def make(self):
        return MyPlugin()
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pluggy
import pytest

from hint_plugins.hookspecs import Options
from hint_plugins.plugins import new_manager
from hint_plugins.registries import Registries, resolve


class PluginSuite:
    """Tests of one plugin; see the module's docstring."""

    def make(self) -> Any:
        """A fresh plugin."""
        raise NotImplementedError

    @pytest.fixture
    def manager(self) -> pluggy.PluginManager:
        manager = new_manager()
        manager.register(self.make(), name="mine")  # refuses hooks and arguments that do not exist
        manager.check_pending()
        return manager

    def test_hooks_are_known(self, manager):
        assert manager.get_hookcallers(manager.get_plugin("mine")), "the plugin answers no hook"

    def test_options_have_defaults_and_descriptions(self, manager):
        options = Options()
        manager.hook.add_options(options=options)
        for model in options.groups.values():
            model()  # every option has a default
            for name, field in model.model_fields.items():
                assert field.description, f"{name} has no description"

    def test_its_state_goes_through_a_checkpoint(self, manager):
        states = [state for state in manager.hook.checkpoint_state() if state]
        for state in states:
            again = json.loads(json.dumps(state))
            assert again == state, "only numbers, text, lists and dictionaries survive"
            manager.hook.restore_state(state=again)

    def test_what_it_registers_can_be_called(self, manager):
        found = Registries.of(manager)
        kinds = (found.engines, found.schedules, found.label_makers, found.readers, found.selectors)
        for entries in kinds:
            for name, target in entries.items():
                assert callable(resolve(target)), name

    def test_probe_laws_have_unit_covariance(self, manager):
        """``E[z z^T] = 1``, or products do not estimate the norm of the Hessian; laws of the structure are left out."""
        for answer in manager.hook.register_probe_laws():
            for name, target in (answer or {}).items():
                law = resolve(target)
                if "structure" in law.__code__.co_varnames[: law.__code__.co_argcount]:
                    continue
                z = law(40000, 6, np.random.default_rng(0))
                assert z.shape == (40000, 6), name
                assert np.abs(z.T @ z / len(z) - np.eye(6)).max() < 0.05, name

    def test_schedules_end_at_the_last_weight(self, manager):
        for answer in manager.hook.register_schedules():
            for name, target in (answer or {}).items():
                assert resolve(target)(1.0) == pytest.approx(1.0), name
