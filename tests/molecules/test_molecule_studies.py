"""Gibbs energies, paths and stability from Python: finished, continued, interrupted, refused, with other models."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT

from hint_plugins.errors import InputError
from hint_plugins.potential import Potential
from hint_plugins.potential.worker import identity
from hint_plugins.runs.execution import Execution
from hint_recipes import (
    BandSettings,
    GibbsSettings,
    RampSettings,
    compute_gibbs_energies,
    heat_until_broken,
    relax_paths,
)
from hint_recipes.molecules.transition_states.reaction import Reaction

FAST = RampSettings(temperature_step=300, interval=0.01, max_temperature=300, window=10)


class Counting(EMT):
    """EMT that counts its evaluations, and stops as if it were killed after some of them."""

    calls, last = 0, None

    def calculate(self, *arguments, **keywords):
        Counting.calls += 1
        if Counting.last is not None and Counting.calls > Counting.last:
            raise KeyboardInterrupt
        super().calculate(*arguments, **keywords)


@pytest.fixture
def counting():
    Counting.calls, Counting.last = 0, None
    return Counting()


def inversion() -> dict[str, Reaction]:
    ammonia = molecule("NH3")
    mirrored = ammonia.copy()
    mirrored.positions[:, 2] *= -1
    return {"inversion": Reaction("inversion", {"reactant": ammonia, "product": mirrored})}


STUDIES = {
    "gibbs": (
        lambda model, out, **kw: compute_gibbs_energies([molecule("H2O"), molecule("N2")], model, out, **kw),
        [GibbsSettings(fmax=0.01), GibbsSettings(fmax=0.01, temperature=400)],
    ),
    "path": (
        lambda model, out, **kw: relax_paths(inversion(), model, out, **kw),
        [
            BandSettings(images=5, fmax=0.3, end_point_fmax=0.05),
            BandSettings(images=7, fmax=0.3, end_point_fmax=0.05),
        ],
    ),
    "stability": (
        lambda model, out, **kw: heat_until_broken([molecule("N2")], model, out, checkpoint_every=10, **kw),
        [FAST, FAST.model_copy(update={"seed": 1})],
    ),
}


@pytest.mark.parametrize("name", STUDIES)
def test_study_is_continued_and_others_are_refused(name, counting, tmp_path):
    pytest.importorskip("pyscf")
    pytest.importorskip("geodesic_interpolate")
    run, (settings, other) = STUDIES[name]
    whole = run(counting, tmp_path / "whole", settings=settings)
    needed = Counting.calls
    assert whole.report()
    Counting.last = needed + needed // 2
    with pytest.raises(KeyboardInterrupt):
        run(Counting(), tmp_path / "part", settings=settings)
    assert not (tmp_path / "part" / "summary.json").exists()
    Counting.last = None
    part = run(Counting(), tmp_path / "part", settings=settings)
    assert same(part.summary, whole.summary)
    Counting.calls = 0
    again = run(Counting(), tmp_path / "part", settings=settings)
    assert Counting.calls == 0
    assert same(again.summary, whole.summary)
    with pytest.raises(InputError, match="holds a run with"):
        run(Counting(), tmp_path / "part", settings=other)
    assert same(run(Counting(), tmp_path / "part", settings=settings).summary, whole.summary)


def same(first, second) -> bool:
    """Whether two summaries hold the same but for what a run cost."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(
            same(first[key], second[key]) for key in first if key not in ("n_forces", "n_hessians")
        )
    if isinstance(first, (list, tuple, np.ndarray)):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, float):
        return first == pytest.approx(second, abs=1e-6, nan_ok=True)
    return first == second


def test_changed_object_is_another_model(tmp_path):
    """Nothing of a run with one calculator is reused by a run with the same class and other parameters."""
    from ase.calculators.lj import LennardJones

    pytest.importorskip("pyscf")
    dimer = Atoms("Ar2", [[0, 0, 0], [0, 0, 1.1]])
    weak, strong = LennardJones(epsilon=1.0), LennardJones(epsilon=2.0)
    assert identity(weak) == identity(pickle.loads(pickle.dumps(weak)))
    assert identity(weak) != identity(strong)
    changing = LennardJones(epsilon=1.0)
    before = identity(changing)
    changing.parameters["epsilon"] = 2.0
    assert identity(changing) != before
    found = [compute_gibbs_energies([dimer], model, tmp_path).summary["structures"][0] for model in (weak, strong)]
    assert found[1]["energy"] == pytest.approx(2 * found[0]["energy"], rel=1e-6)


def test_network_whose_weights_change_is_another_model():
    """A network that is trained between two runs, alone and inside a calculator."""

    class Holding(EMT):
        def __init__(self, networks):
            super().__init__()
            self.networks = networks

    network = torch.nn.Linear(2, 2)
    calculator = Holding([network])
    for model in (network, calculator):
        before = identity(model)
        assert identity(model) == before
        with torch.no_grad():
            network.weight += 1
        assert identity(model) != before


def test_object_that_cannot_be_pickled_is_itself_only():
    first, second = (lambda: None), (lambda: None)
    assert identity(first) == identity(first)
    assert identity(first) != identity(second)


def test_potential_is_what_it_was_loaded_from():
    assert identity(Potential.load("emt")) == identity("emt")
    assert identity(Potential.load(EMT())) == identity(EMT())


def test_object_and_workers_are_refused(tmp_path):
    with pytest.raises(InputError, match="in this process only"):
        compute_gibbs_energies([molecule("N2")], EMT(), tmp_path / "out", execution=Execution(workers=2))
    assert not (tmp_path / "out").exists()


def test_workers_find_what_one_process_finds(tmp_path):
    pytest.importorskip("pyscf")
    pytest.importorskip("geodesic_interpolate")
    two = Execution(workers=2)
    molecules = [molecule("H2O"), molecule("N2"), molecule("CO")]
    one = compute_gibbs_energies(molecules, "emt", tmp_path / "one")
    many = compute_gibbs_energies(molecules, "emt", tmp_path / "many", execution=two)
    assert same(many.summary, one.summary)
    settings = STUDIES["path"][1][0]
    one = relax_paths(inversion(), "emt", tmp_path / "path", settings)
    many = relax_paths(inversion(), "emt", tmp_path / "paths", settings, execution=two)
    assert same(many.summary, one.summary)


def test_a_potential_may_be_given(tmp_path):
    pytest.importorskip("pyscf")
    found = compute_gibbs_energies([molecule("N2")], Potential.load(EMT()), tmp_path)
    assert found.summary["n_failed"] == 0
