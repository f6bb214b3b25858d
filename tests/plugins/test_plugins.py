"""Hooks and plugin manager; each hook must be documented and exercised somewhere in the tests."""

import inspect
import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from helpers.others import OtherOptions

import hint_plugins.plugins as plugins
from hint_plugins.config import ConfigError, HintConfig, make_config
from hint_plugins.hookspecs import HookSpecs, Options, hookimpl
from hint_plugins.plugins import PluginError, describe_plugins, load_plugins
from hint_plugins.registries import registries, use
from hint_plugins.training.hint import HintPlugin

#: Options that are numbers.
NUMBERS = [
    name
    for name, field in HintConfig.model_fields.items()
    if any(kind in (float, int) for kind in (field.annotation, *get_args(field.annotation)))
]
HOOKS = [name for name, _ in inspect.getmembers(HookSpecs, inspect.isfunction)]
TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs" / "plugins.md"


@pytest.fixture
def others(monkeypatch):
    real = plugins.installed_plugins()
    entries = {
        "other": EntryPoint("other", "helpers.others:Other", plugins.GROUP),
        "broken": EntryPoint("broken", "helpers.others:Broken", plugins.GROUP),
        "absent": EntryPoint("absent", "no_such_module", plugins.GROUP),
    }
    monkeypatch.setattr(plugins, "installed_plugins", lambda: {**real, **entries})
    yield
    use(None)


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented(name):
    doc = inspect.getdoc(getattr(HookSpecs, name))
    assert doc
    assert doc.count(".") >= 1
    assert len(doc.split("\n")) == 1, "one sentence a hook"
    assert f"`{name}`" in DOCS.read_text()


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_exercised(name):
    """Some test calls or implements it."""
    pattern = re.compile(rf"(def {name}\(|hook\.{name}\(|\.{name}\()")
    files = [path for path in TESTS.rglob("*.py") if pattern.search(path.read_text())]
    assert files, f"no test calls or implements {name}"


def test_plugins_are_opt_in_and_listed(others):
    manager = load_plugins(["hint"])
    assert [name for name, _ in manager.list_name_plugin()] == ["hint", "alphanet"]
    assert describe_plugins(manager)[0].startswith("hint (hint-plugins ")
    both = load_plugins(["hint", "other"])
    options = Options()
    both.hook.add_options(options=options)
    assert options.groups["hint"] is HintConfig
    assert options.groups["other"] is OtherOptions


def test_registries_take_what_plugins_offer(others):
    manager = load_plugins(["other"])
    assert "ones" not in registries().probe_laws, "not in use yet"
    use(manager)
    known = registries()
    assert "ones" in known.probe_laws
    assert "other_engine" in known.engines
    assert "late" in known.schedules
    assert make_config(HintConfig, {"hessian_probes": "ones"}).hessian_probes == "ones"


def test_registrations_are_asked_for_every_kind():
    """Kinds whose users load them on demand answer through the manager."""

    class Registering:
        @hookimpl
        def register_models(self):
            return {"tiny": object}

        @hookimpl
        def register_label_makers(self):
            return {"lj": object}

        @hookimpl
        def register_readers(self):
            return {"mine": object}

        @hookimpl
        def register_selectors(self):
            return {"first": object}

    manager = load_plugins([])
    manager.register(Registering())
    assert manager.hook.register_models() == [{"tiny": object}]
    assert manager.hook.register_label_makers() == [{"lj": object}]
    assert manager.hook.register_readers() == [{"mine": object}]
    assert manager.hook.register_selectors() == [{"first": object}]


def test_unknown_plugin_lists_what_is_installed(others):
    with pytest.raises(PluginError, match=r"'nope' is not installed: installed are .*hint.*other"):
        load_plugins(["nope"])


@pytest.mark.parametrize("name", ["broken", "absent"])
def test_plugins_that_do_not_load_are_named(others, name):
    with pytest.raises(PluginError, match=f"plugin '{name}'"):
        load_plugins([name])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hessian_ramp_start": 5, "hessian_ramp_end": 2}, "lies before"),
        ({"hessian_engine": "magic"}, "unknown hessian_engine 'magic'.*reverse"),
        ({"hessian_num_probes": 0}, "hessian_num_probes"),
        ({"hessian_probes": "uniform"}, "unknown hessian_probes"),
        ({"hessian_wieght": 1.0}, "did you mean hessian_weight"),
        ({"hessian_batch_fraction": 0.5, "hessian_every": 2}, "exclude each other"),
        ({"hessian_recycle": True}, "needs hessian_batch_fraction"),
        ({"hessian_weight": -1}, "hessian_weight"),
        *(({name: value}, name) for name in NUMBERS for value in (np.inf, -np.inf, np.nan, -1.0, "abc")),
    ],
)
def test_options_that_do_not_fit_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        make_config(HintConfig, values)


def test_configure_takes_its_own_options_and_the_seed():
    plugin = HintPlugin()
    plugin.configure({"hessian_weight": 0.5, "seed": 7, "batch_size": 3})
    assert plugin.config.hessian_weight == 0.5
    assert plugin.seed == 7
    assert plugin.config.curriculum.weight_end == 0.5


def test_state_survives_a_restart():
    first = HintPlugin()
    first.scale, first.engine_name = 2.5, "vmap"
    second = HintPlugin()
    second.restore_state(first.checkpoint_state())
    assert second.scale == 2.5
    assert second.engine_name == "vmap"
    chosen = HintPlugin(HintConfig(hessian_engine="reverse"))
    chosen.restore_state(first.checkpoint_state())
    assert chosen.engine_name == "reverse", "the user's choice beats the stored one"
