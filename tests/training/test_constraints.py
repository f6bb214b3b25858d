"""Frozen atoms: probes, loss and errors are those of the free block."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.constraints import FixAtoms, FixBondLength, FixCartesian
from helpers.structures import label_with_emt, molecules

from hint_plugins.config import HintConfig
from hint_plugins.labels.hessian_label import HessianLabel, LabelError
from hint_plugins.objective.loss import structure_losses
from hint_plugins.objective.metrics import frequencies, hessian_errors
from hint_plugins.structures.frozen import free_components, frozen
from hint_plugins.training.hint import HintPlugin
from hint_plugins.units import CM1


@pytest.fixture
def methane() -> Atoms:
    atoms = label_with_emt(molecules(2)[1])
    atoms.set_constraint([FixAtoms([0, 2]), FixCartesian([1], (True, False, True))])
    return atoms


FREE = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]], dtype=bool)


def test_free_components(methane):
    np.testing.assert_array_equal(free_components(methane), FREE)
    assert free_components(Atoms("H2")).all()


def test_frozen_is_the_inverse(methane):
    methane.set_constraint(frozen(FREE))
    np.testing.assert_array_equal(free_components(methane), FREE)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (FixBondLength(0, 1), "FixBondLengths has no Hessian of free atoms"),
        (FixAtoms(range(5)), "all atoms are frozen"),
    ],
)
def test_other_constraints_are_bad_labels(methane, constraint, message):
    methane.set_constraint(constraint)
    with pytest.raises(LabelError, match=message):
        HintPlugin().read_labels(methane, None)


def test_full_labels_are_probed_in_the_free_block(methane):
    hessian = methane.info["REF_hessian"].reshape(15, 15)
    plugin = HintPlugin(HintConfig(hessian_num_probes=4))
    drawn = plugin.draw_labels(plugin.read_labels(methane, None), 5, 0, 0)
    z = drawn["drawn_probes"].transpose(1, 0, 2).reshape(4, -1)
    hz = drawn["drawn_products"].transpose(1, 0, 2).reshape(4, -1)
    free = FREE.reshape(-1)
    assert (z[:, ~free] == 0).all()
    assert (np.abs(z[:, free]) == 1).all()
    np.testing.assert_allclose(hz[:, free], z[:, free] @ hessian[free][:, free], atol=1e-10)
    assert np.isnan(hz[:, ~free]).all()


@pytest.mark.parametrize("kind", ["columns", "projections"])
def test_partial_labels_keep_their_directions(methane, kind):
    full = methane.info.pop("REF_hessian").reshape(15, 15)
    if kind == "columns":
        HessianLabel.columns([0, 4, 10], full[[0, 4, 10]]).to_info(methane.info)
    else:
        z = np.random.default_rng(0).choice([-1.0, 1.0], (6, 15))
        HessianLabel.projections(z, z @ full, 5).to_info(methane.info)
    plugin = HintPlugin(HintConfig(hessian_num_probes=3))
    drawn = plugin.draw_labels(plugin.read_labels(methane, None), 5, 0, 0)
    z = drawn["drawn_probes"].transpose(1, 0, 2).reshape(3, -1)
    hz = drawn["drawn_products"].transpose(1, 0, 2).reshape(3, -1)
    free = FREE.reshape(-1)
    np.testing.assert_allclose(hz[:, free], (z @ full)[:, free], atol=1e-9)
    assert np.isnan(hz[:, ~free]).all()


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "norm"])
def test_loss_is_the_mean_over_free_components(loss):
    """Two structures of 2 and 1 atoms; of the first, one component is free."""
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    reference = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    reference[:, 0] = float("nan")
    reference[:, 1, :2] = float("nan")
    batch, sizes = torch.tensor([0, 0, 1]), torch.tensor([2.0, 1.0], dtype=torch.float64)
    losses = structure_losses(predicted, reference, batch, sizes, loss)
    delta = (predicted - reference)[:, 1, 2].detach()
    expected = {
        "mse": delta.square().mean(),
        "mae": delta.abs().mean(),
        "huber": torch.nn.functional.huber_loss(delta, torch.zeros_like(delta)),
        "norm": delta.abs().mean(),
    }
    assert losses[0].item() == pytest.approx(expected[loss].item())
    losses.sum().backward()
    assert torch.isfinite(predicted.grad).all()
    assert (predicted.grad[:, 0] == 0).all()


def test_errors_and_frequencies_are_those_of_the_free_block(methane):
    reference = methane.info["REF_hessian"].reshape(15, 15)
    predicted = reference.copy()
    predicted[:3] += 100.0  # rows and columns of a frozen atom count for nothing
    predicted[:, :3] += 100.0
    free = FREE.reshape(-1)
    predicted[np.ix_(free, free)] *= 1.1
    block = reference[free][:, free]
    errors = hessian_errors(predicted, reference, methane)
    assert errors["hessian_mae"] == pytest.approx(0.1 * np.abs(block).mean())
    assert errors["eigenvalue_mae"] == pytest.approx(0.1 * np.abs(np.linalg.eigvalsh(block)).mean())
    masses = np.repeat(methane.get_masses(), 3)[free]
    values = np.linalg.eigvalsh(block / np.sqrt(np.outer(masses, masses)))
    waves = np.sign(values) * np.sqrt(np.abs(values)) * CM1
    np.testing.assert_allclose(frequencies(reference, methane), waves)
    assert errors["frequency_mae_cm1"] == pytest.approx((np.sqrt(1.1) - 1) * np.abs(waves).mean())
