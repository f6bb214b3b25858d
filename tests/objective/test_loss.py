import numpy as np
import pytest
import torch

from hint_plugins.labels.hessian_label import HessianLabel
from hint_plugins.objective.curriculum import Curriculum
from hint_plugins.objective.loss import LOSS_KINDS, global_mean, structure_losses
from hint_plugins.registries import registries
from hint_plugins.training.protocol import Progress

SIZES = [2, 1, 3]
BATCH = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))
ATOMS = torch.tensor(SIZES, dtype=torch.float64)


def by_hand(delta, kind, huber_delta):
    out = []
    for graph in range(3):
        d = delta[:, graph == BATCH].reshape(len(delta), -1)
        if kind == "mse":
            per_probe = (d**2).mean(1)
        elif kind == "mae":
            per_probe = d.abs().mean(1)
        elif kind == "norm":
            per_probe = (d**2).mean(1).sqrt()
        else:
            a = d.abs()
            per_probe = torch.where(a < huber_delta, 0.5 * a**2, huber_delta * (a - 0.5 * huber_delta)).mean(1)
        out.append(per_probe.mean())
    return torch.stack(out)


@pytest.mark.parametrize("kind", LOSS_KINDS)
def test_losses_by_hand(kind):
    torch.manual_seed(0)
    p, r = torch.randn(2, 4, 6, 3, dtype=torch.float64)
    value = structure_losses(p, r, BATCH, ATOMS, kind, 0.7)
    torch.testing.assert_close(value, by_hand(p - r, kind, 0.7))


def test_norm_has_a_finite_gradient_at_zero():
    p = torch.zeros(1, 6, 3, dtype=torch.float64, requires_grad=True)
    structure_losses(p, torch.zeros(1, 6, 3, dtype=torch.float64), BATCH, ATOMS, "norm").sum().backward()
    assert torch.isfinite(p.grad).all()


@pytest.mark.parametrize("law", ["rademacher", "gaussian", "columns", "orthogonal"])
def test_mean_over_probes_is_the_full_matrix_loss(law):
    """Monte-Carlo mean of eq. 4 equals ||dH||_F^2 / 3N."""
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((9, 9))
    predicted = reference + 0.3 * rng.standard_normal((9, 9))
    exact = ((predicted - reference) ** 2).sum() / 9
    label = HessianLabel.full(reference)
    values = []
    for _ in range(1500):
        z, hz = label.pairs(2, law, rng)
        p = torch.tensor((z @ predicted.T).reshape(2, 3, 3))
        values.append(
            float(
                structure_losses(
                    p, torch.tensor(hz.reshape(2, 3, 3)), torch.zeros(3, dtype=torch.long), torch.tensor([3.0])
                )
            )
        )
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - exact) < 5 * error
    assert error < 0.05 * exact


def test_global_mean_of_one_process():
    values = torch.tensor([1.0, 3.0])
    assert global_mean(values) == 2.0
    assert global_mean(values, torch.tensor([1.0, 0.0])) == 0.5
    assert global_mean(torch.zeros(0)) == 0.0


def test_curriculum_of_the_paper():
    ramp = Curriculum(0.0, 0.1, start=2, end=6)
    weights = [ramp.weight(Progress(step=s, steps_per_epoch=10, max_epochs=10)) for s in (0, 20, 30, 40, 60, 90)]
    np.testing.assert_allclose(weights, [0, 0, 0.025, 0.05, 0.1, 0.1])


def test_curriculum_units_and_default_end():
    progress = Progress(step=25, steps_per_epoch=10, max_epochs=10)
    assert Curriculum(0, 1).weight(progress) == pytest.approx(0.5)  # end: half of the run, 5 epochs
    assert Curriculum(0, 1, unit="steps").weight(progress) == pytest.approx(0.5)
    assert Curriculum(0, 1, end=100, unit="steps").weight(progress) == pytest.approx(0.25)


@pytest.mark.parametrize("schedule", list(registries().schedules))
def test_schedules_end_at_the_weight_and_never_leave_the_range(schedule):
    ramp = Curriculum(0.2, 1.0, start=1, end=3, schedule=schedule)
    weights = [ramp.weight(Progress(step=s, steps_per_epoch=10, max_epochs=5)) for s in range(51)]
    assert weights[-1] == 1.0
    assert weights == sorted(weights)
    assert min(weights) >= 0.2


def test_ramp_of_no_length_is_a_step():
    ramp = Curriculum(0.0, 1.0, start=2, end=2)
    assert ramp.weight(Progress(step=19, steps_per_epoch=10)) == 0.0
    assert ramp.weight(Progress(step=20, steps_per_epoch=10)) == 1.0
