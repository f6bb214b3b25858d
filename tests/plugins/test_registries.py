"""What options name belongs to the plugin manager in use."""

import subprocess
import sys

import numpy as np
import pytest
from ase.build import molecule

from hint_plugins.datasets.reading import read_dataset
from hint_plugins.errors import InputError
from hint_plugins.hookspecs import hookimpl
from hint_plugins.labelling.engine import EngineError, EngineSpec
from hint_plugins.plugins import load_plugins
from hint_plugins.registries import BuiltIn, Registries, registries, resolve, use
from hint_plugins.selection.choose import choose
from hint_plugins.selection.survey import SelectionError
from hint_plugins.storage.store import StoreError


class Engine:
    """Stands for a label engine."""


def water_twice(path, bad):
    yield molecule("H2O")
    yield molecule("H2O")


def first(found, points, count, rng, options):
    return np.arange(count), np.zeros(len(found))


class Mine:
    @hookimpl
    def register_label_makers(self):
        return {"mine": Engine, "xtb": f"{__name__}:Engine"}

    @hookimpl
    def register_readers(self):
        return {"water": water_twice}

    @hookimpl
    def register_selectors(self):
        return {"first": first}


@pytest.fixture
def manager():
    found = load_plugins([])
    found.register(Mine())
    yield found
    use(None)


def test_entries_of_a_manager_are_known_while_it_is_in_use(manager, tmp_path):
    file = tmp_path / "any"
    file.touch()

    def select():
        return choose(lambda: read_dataset(file, "water"), method="first", fraction=0.5, with_map=False, rng=rng)

    rng = np.random.default_rng(0)
    with pytest.raises(EngineError, match="unknown engine 'mine': choose ase, espresso, pyscf, xtb or module:class"):
        EngineSpec("mine").build()
    with pytest.raises(StoreError, match="unknown format 'water': choose auto, extxyz"):
        read_dataset(file, "water")
    with pytest.raises(SelectionError, match="unknown method 'first': choose density, energy, random"):
        choose(lambda: iter(()), method="first", rng=rng)
    use(manager)
    assert isinstance(EngineSpec("mine").build(), Engine)
    assert [len(atoms) for atoms in read_dataset(file, "water")] == [3, 3]
    assert select().taken.tolist() == [True, False]
    use(None)
    with pytest.raises(SelectionError, match="unknown method"):
        select()


def test_two_managers_do_not_share_entries(manager):
    with_mine, without = Registries.of(manager), Registries.of(load_plugins([]))
    assert "mine" in with_mine.label_makers
    assert "mine" not in without.label_makers
    assert Registries.of(manager) == with_mine, "asking twice changes nothing"


def test_a_plugin_s_entry_goes_before_the_package_s_own(manager):
    assert Registries.of(manager).label_makers["xtb"] == f"{__name__}:Engine"
    assert registries().label_makers["xtb"].startswith("hint_plugins.")


@pytest.mark.parametrize("kind", sorted(name for name in vars(BuiltIn) if name.startswith("register_")))
def test_every_own_entry_exists(kind):
    for address in getattr(BuiltIn(), kind)().values():
        assert callable(resolve(address)), address


def test_an_engine_that_workers_cannot_import_is_refused():
    class Hidden:
        @hookimpl
        def register_label_makers(self):
            return {"hidden": lambda: None}

    manager = load_plugins([])
    manager.register(Hidden())
    with pytest.raises(InputError, match="must be a function or class at the top level of a module"):
        use(manager)


def test_own_entries_need_no_torch():
    """Readers and label engines start fast, in every worker."""
    code = "import sys; from hint_plugins.registries import registries; registries(); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
