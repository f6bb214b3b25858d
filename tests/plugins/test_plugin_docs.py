"""docs/plugins.md: its table is what the hosts do, and its examples run."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from helpers.registered import registered
from helpers.training import HINT, environment, train, write_data

from hint_plugins.config import ConfigError, HintConfig
from hint_plugins.curvature.probes import draw_probes
from hint_plugins.hookspecs import HookSpecs
from hint_plugins.models import energy_and_forces, graph_from_atoms
from hint_plugins.models.energy_model import EnergyModel
from hint_plugins.models.registry import ModelSettings
from hint_plugins.training.hint import HintPlugin

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text()
HOOKS = dict(inspect.getmembers(HookSpecs, inspect.isfunction))
ROW = re.compile(r"^\| `(\w+)` \| (?:`(.*?)`)? ?\| .*? \| (\w+) \| (\w+) \| (\w+) \|$", re.MULTILINE)
ROWS = {row[0]: row[1:] for row in ROW.findall(PAGE)}
CALLERS = ("adapters/hint_mace", "adapters/hint_fairchem", "hint_plugins/cli")
#: What those do who bring a manager's registries into use.
USING = (ROOT / "hint_plugins" / "registries.py").read_text()


def example(word: str) -> str:
    return next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.S) if word in block)


def run(word: str) -> dict:
    names: dict = {}
    exec(example(word), names)
    return names


def test_the_table_has_every_hook():
    assert set(ROWS) == set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_signatures_of_the_table_are_those_of_the_hooks(name):
    arguments = [part for part in ROWS[name][0].split(", ") if part]
    assert arguments == [p for p in inspect.signature(HOOKS[name]).parameters if p != "self"]


@pytest.mark.parametrize("name", HOOKS)
def test_the_table_names_those_who_call(name):
    calls = re.compile(rf"hook\.{name}(\(|, [A-Z])")  # called, or paired with its registry
    for place, said in zip(CALLERS, ROWS[name][1:], strict=True):
        texts = [file.read_text() for file in (ROOT / place).rglob("*.py")]
        if any("from hint_plugins.registries import use" in text for text in texts):
            texts.append(USING)
        assert said == ("yes" if any(map(calls.search, texts)) else "no"), place


def test_the_net_force_example_is_the_one_that_is_tested():
    helper = (ROOT / "tests" / "helpers" / "netforce.py").read_text()
    assert helper.partition('"""\n\n')[2] == example("class NetForce:")


@pytest.fixture
def laws():
    """The laws of the example, in use."""
    found = run("class Laws:")["Laws"]().register_probe_laws()
    with registered(probe_laws=found):
        yield found


def test_laws_that_see_the_structure(laws):
    atoms = molecule("HCN")  # along z
    atoms.set_masses([2.014 if z == 1 else m for z, m in zip(atoms.numbers, atoms.get_masses(), strict=True)])
    z = draw_probes("masses", 20000, 9, np.random.default_rng(0), atoms)
    weights = np.repeat(1 / atoms.get_masses(), 3)
    np.testing.assert_allclose((z**2).mean(axis=0), weights / weights.mean(), rtol=0.05)
    z = draw_probes("bonds", 20000, 9, np.random.default_rng(0), atoms).reshape(-1, 3, 3)
    neighbours = {"C": 2, "N": 1, "H": 1}
    wanted = [[1, 1, 1 + neighbours[symbol]] for symbol in atoms.symbols]
    np.testing.assert_allclose((z**2).mean(axis=0), wanted, rtol=0.05)


@pytest.mark.parametrize("law", ["bonds", "masses"])
def test_the_structure_reaches_the_law_in_training(law):
    """Through read_labels and draw_labels, as a host calls them; isotopes and periodic images included."""
    names, seen = run("class Laws:"), []

    def watched(count, dim, rng, structure):
        seen.append(structure)
        return names[law](count, dim, rng, structure)

    crystal = bulk("NaCl", "rocksalt", a=5.6)
    crystal.set_masses([22.0, 36.0])
    crystal.positions[0, 0] += 0.1
    hessian = np.kron(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.eye(3))
    crystal.info["REF_hessian"] = hessian.reshape(-1)
    with registered(probe_laws={law: watched}):
        plugin = HintPlugin(HintConfig(hessian_probes=law, hessian_num_probes=4))
        stored = plugin.read_labels(crystal, None)
        drawn = plugin.draw_labels(stored, 2, 0, 0)
    z = drawn["drawn_probes"].transpose(1, 0, 2).reshape(4, 6)
    np.testing.assert_allclose(drawn["drawn_products"].transpose(1, 0, 2).reshape(4, 6), z @ hessian)
    for name in ("numbers", "positions", "pbc"):
        np.testing.assert_array_equal(getattr(seen[0], name), getattr(crystal, name))
    np.testing.assert_array_equal(seen[0].cell.array, crystal.cell.array)
    np.testing.assert_array_equal(seen[0].get_masses(), [22.0, 36.0])


@pytest.mark.parametrize("kind", ["columns", "prepared with another law"])
def test_a_law_without_its_structure_is_refused(laws, kind):
    plugin = HintPlugin(HintConfig(hessian_probes="masses"))
    stored = {"hessian": np.eye(9).reshape(-1)}
    if kind == "columns":
        stored = {"hessian_columns": np.eye(9)[:2].reshape(-1), "hessian_column_indices": np.array([0, 1])}
    with pytest.raises(ConfigError, match=r"hessian_probes masses.*needs the structure"):
        plugin.draw_labels(stored, 3, 0, 0)


@pytest.mark.parametrize("wrong", [np.zeros(9), np.full((2, 9), np.nan)])
def test_a_law_that_gives_something_else_is_refused(wrong):
    laws = {"wrong": lambda count, dim, rng: wrong}
    with registered(probe_laws=laws), pytest.raises(ValueError, match="probe law 'wrong' gave"):
        draw_probes("wrong", 2, 9, np.random.default_rng(0))


def test_the_energy_model_has_smooth_derivatives():
    """Three continuous derivatives at the cutoff, and forces that are those of its energy."""
    torch.manual_seed(0)
    factory = run("class PairNetwork")["Models"]().register_models()["PairNetwork"]
    model = factory(ModelSettings(3.0, (1, 6, 8), 4.0)).double()
    assert isinstance(model, EnergyModel)
    atoms = molecule("CH3CHO")
    graph = graph_from_atoms([atoms, atoms], 3.0, dtype=torch.float64)
    energies, forces = energy_and_forces(model, graph)
    assert energies.shape == (2,)
    assert energies[0] == pytest.approx(energies[1].item())
    moved = graph.positions.clone()
    moved[2, 1] += 1e-5
    slope = (model(graph.with_positions(moved)) - model(graph)).sum() / 1e-5
    assert forces[2, 1].item() == pytest.approx(-slope.item(), abs=1e-4)
    assert len(example("class PairNetwork").splitlines()) <= 45


@pytest.mark.mace
def test_the_energy_model_trains(tmp_path):
    """The page's commands: the package is found by its entry point, its Hessians are tested and trained on."""
    site = tmp_path / "site"
    info = site / "pairnetwork-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "pairnetwork.py").write_text(example("class PairNetwork"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pairnetwork\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hint_plugins]\npairnetwork = pairnetwork:Models\n")
    write_data(tmp_path)
    options = HINT | {"plugins": "hint,pairnetwork", "model": "PairNetwork", "hessian_selftest": True}
    result = train(tmp_path, **options, env={"PYTHONPATH": str(site)})
    assert "self-test" in result.stdout + result.stderr
    words = [sys.executable, "-c", "import torch; print(type(torch.load('run.model', weights_only=False).inner))"]
    env = environment(PYTHONPATH=str(site))
    shown = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    assert "pairnetwork.PairNetwork" in shown
