"""A model that evaluates configurations in batches gives what it gives one by one."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from helpers.devices import DEVICES

from hint_plugins.models.alphanet import AlphaNet, AlphaNetConfig
from hint_plugins.potential import Potential
from hint_recipes.ensemble import EnsembleEngine


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
