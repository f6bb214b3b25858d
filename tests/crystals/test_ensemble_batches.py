"""A model that evaluates configurations in batches gives what it gives one by one."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from helpers.devices import DEVICES
from helpers.pairs import Pairs

from hint_plugins.models.alphanet import AlphaNet, AlphaNetConfig
from hint_plugins.potential import Potential
from hint_recipes.crystals.sscha.ensemble import EnsembleEngine


@pytest.mark.parametrize("device", DEVICES)
def test_batches_do_not_change_the_numbers(device):
    torch.manual_seed(0)
    model = AlphaNet(AlphaNetConfig(num_layers=1, hidden_channels=8, cutoff=4.0)).double()
    potential = Potential.load(model, device)
    assert potential.backend.batched
    rng = np.random.default_rng(0)
    structures = []
    for _ in range(12):
        atoms = bulk("PdH", "rocksalt", 4.085).repeat(2)
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
        structures.append(atoms)
    whole = EnsembleEngine(potential).evaluate(structures, stress=True)
    assert whole.good.all()
    for index, atoms in enumerate(structures):
        single = potential.evaluate([atoms], stress=True)
        assert whole.energies[index] == pytest.approx(single.energies[0], abs=1e-8)
        np.testing.assert_allclose(whole.forces[index], single.forces[0], rtol=0, atol=1e-8)
        stress = np.asarray(single.stresses[0])
        assert whole.stresses is not None
        np.testing.assert_allclose(np.trace(whole.stresses[index]), stress[:3].sum(), atol=1e-8)
    assert np.abs(whole.forces[0] - whole.forces[1]).max() > 1e-3


def test_one_bad_configuration_costs_few_calls():
    """The others are kept, and found in halves of the ensemble instead of one by one."""
    potential = Potential.load(Pairs(), "cpu")
    calls = []
    evaluate = potential.backend.evaluate

    def counted(structures, stress=False):
        calls.append(len(structures))
        return evaluate(structures, stress)

    potential.backend.evaluate = counted
    structures = []
    for seed in range(256):
        atoms = bulk("PdH", "rocksalt", 4.085)
        atoms.rattle(0.05, seed=seed)
        structures.append(atoms)
    EnsembleEngine(potential).evaluate(structures)
    calls.clear()
    structures[100].positions[1] = structures[100].positions[0]
    found = EnsembleEngine(potential).evaluate(structures)
    assert list(found.reasons) == [100]
    assert "atoms 0 and 1 are 0 Angstrom apart" in found.reasons[100] or "atoms 1 and 0" in found.reasons[100]
    assert found.good.sum() == 255
    assert len(calls) <= 100
    for index in (0, 99, 101, 255):
        assert found.energies[index] == pytest.approx(potential.evaluate(structures[index]).energies[0], abs=1e-10)
