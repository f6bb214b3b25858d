"""What a potential, an ensemble and neighbour lists cost on a GPU, counted on a pretend one.

A limit on launches is a few per cent above what was counted; waits and copies are what was counted.
"""

import numpy as np
import pytest
import torch
from ase.build import bulk
from helpers.devices import HAS_GPU
from helpers.gpu_budgets import hold_to, molecules
from helpers.pretend_counts import Totals
from helpers.pretend_gpu import pretend_gpu

from hint_plugins.models import graph_from_atoms
from hint_plugins.models.alphanet import AlphaNet
from hint_plugins.potential import Potential

#: Launches, waits and copies, at most, of a call with AlphaNet (two layers).
ALPHANET = {
    "evaluate 1": Totals(640, 7, 7),
    "evaluate 8": Totals(640, 7, 7),
    "hvp": Totals(1770, 7, 7),
    "hessian": Totals(1780, 7, 7),
    "hessians of 8": Totals(1790, 14, 14),
    "hessian, reverse": Totals(10700, 7, 7),
    "hessian, replicate": Totals(1780, 7, 7),
    "hessian, vmap": Totals(2830, 7, 7),
    "hessian, finite_difference": Totals(660, 7, 7),
}
#: Of neighbour lists: 8 molecules, 64 molecules, 8 crystals.
LISTS = {
    "molecules": Totals(0, 5, 5),
    "many molecules": Totals(0, 5, 5),
    "crystals": Totals(0, 6, 6),
}
#: Of an SSCHA ensemble of 16 crystals with stresses.
ENSEMBLE = Totals(670, 9, 9)

pytestmark = pytest.mark.skipif(HAS_GPU, reason="counted on a pretend GPU")


@pytest.fixture
def gpu():
    with pretend_gpu() as counts:
        yield counts


@pytest.fixture(scope="module")
def alphanet():
    torch.manual_seed(0)
    sizes = {"hidden_channels": 8, "num_radial": 4, "main_chi1": 4, "mp_chi1": 4, "chi2": 2, "frame_channels": 4}
    return AlphaNet(num_layers=2, cutoff=4.0, elements=(1, 6, 7, 8, 46), **sizes).double()


def crystals(count):
    rng = np.random.default_rng(0)
    out = [bulk("PdH", "rocksalt", 4.085).repeat((2, 1, 1)) for _ in range(count)]
    for atoms in out:
        atoms.positions += 0.05 * rng.standard_normal(atoms.positions.shape)
    return out


@pytest.mark.parametrize("name", ALPHANET)
def test_potential(gpu, alphanet, name):
    hold_to(ALPHANET[name], gpu, alphanet, name)


@pytest.mark.parametrize("name", LISTS)
def test_neighbour_lists(gpu, name):
    structures = {"molecules": molecules(), "many molecules": 8 * molecules(), "crystals": crystals(8)}[name]
    cost = gpu.cost(lambda: graph_from_atoms(structures, 4.0, "cuda"))
    assert all(have <= most for have, most in zip(cost, LISTS[name], strict=True)), (cost, gpu.waits, gpu.copies)


def test_ensemble(gpu, alphanet):
    from hint_recipes.crystals.sscha.ensemble import EnsembleEngine

    structures = crystals(16)
    expected = EnsembleEngine(Potential.load(alphanet, "cpu")).evaluate(structures, stress=True)
    engine = EnsembleEngine(Potential.load(alphanet, "cuda"))
    engine.evaluate(structures, stress=True)
    found = []
    cost = gpu.cost(lambda: found.append(engine.evaluate(structures, stress=True)))
    np.testing.assert_allclose(found[0].forces, expected.forces, atol=1e-9)
    np.testing.assert_allclose(found[0].stresses, expected.stresses, atol=1e-9)
    assert all(have <= most for have, most in zip(cost, ENSEMBLE, strict=True)), (cost, gpu.waits, gpu.copies)
