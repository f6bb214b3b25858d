"""The Hessian loss inside fairchem's own step: value, gradient, unit, and nothing where nothing is due."""

import pytest
import torch
from fairchem.core.units.mlip_unit.mlip_unit import compute_loss
from helpers.tf32 import EmulatedTF32

from hint_fairchem.checks import inner_model
from hint_fairchem.dataset import TARGET
from hint_fairchem.graphs import Forces, labelled_graphs
from hint_fairchem.loading import to_dtype
from hint_plugins.curvature.full import full_hessians

ALWAYS = ("hint.hessian_weight=0.5", "+hint.hessian_schedule=constant", "+hint.hessian_engine=reverse")


def first_batch(run, dtype=torch.float32):
    run.callback.on_train_step_start(run.state, run.unit)
    return to_dtype(next(iter(run.runner.train_dataloader)), dtype)


def host_losses(run, data):
    outputs = run.unit.model(data)
    return compute_loss(run.unit.tasks, outputs, data), outputs


def test_value_is_equation_four(make_run):
    run = make_run(*ALWAYS)
    data = first_batch(run)
    labelled = torch.isfinite(data[TARGET])
    assert 0 < labelled.sum() < len(labelled)
    losses, _ = host_losses(run, data)
    expected = []
    for graph in torch.nonzero(labelled).flatten().tolist():
        single = data.get_example(graph)
        forces = Forces(inner_model(run.unit.model), single, run.callback.outputs)
        step = 1e-3
        values = []
        drawn = data["hint_labels"][graph]
        for z, hz in zip(drawn["drawn_probes"].unbind(1), drawn["drawn_products"].unbind(1), strict=True):
            plus, minus = forces(torch.stack([single.pos + step * z, single.pos - step * z])).detach()
            values.append(((minus - plus) / (2 * step) - hz).square().mean())
        expected.append(torch.stack(values).mean())
    assert losses[TARGET].item() == pytest.approx(0.5 * torch.stack(expected).mean().item(), rel=2e-3)


def test_gradient_against_differences(make_run):
    run = make_run(*ALWAYS)
    model = inner_model(run.unit.model).double()
    data = first_batch(run, torch.float64)

    def loss():
        return host_losses(run, data.clone())[0][TARGET]

    weights = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    norm = torch.sqrt(sum(g.square().sum() for g in gradients if g is not None))
    errors = []
    for h in (1e-4, 1e-5):
        values = []
        for sign in (1, -2):
            with torch.no_grad():
                for w, g in zip(weights, gradients, strict=True):
                    if g is not None:
                        w.add_(g / norm, alpha=sign * h)
            values.append(float(loss().detach()))
        with torch.no_grad():
            for w, g in zip(weights, gradients, strict=True):
                if g is not None:
                    w.add_(g / norm, alpha=h)
        errors.append(abs((values[0] - values[1]) / (2 * h) / float(norm) - 1))
    assert min(errors) < 1e-7


def test_unit_of_the_loss_is_the_normalizers(make_run):
    """Scaling model outputs and normaliser together leaves the relative weight of all losses alone."""
    plain, scaled = make_run(*ALWAYS), make_run(*ALWAYS, "normalizer.rmsd=2.0")
    data = first_batch(plain)
    with torch.no_grad():
        for run, factor in ((plain, 2.0), (scaled, 1.0)):
            head = inner_model(run.unit.model).output_heads["efs"].energy_block[-1]
            head.weight.mul_(factor)
            head.bias.mul_(factor)
    first, second = host_losses(plain, data.clone())[0], host_losses(scaled, data.clone())[0]
    assert second["forces"].item() == pytest.approx(first["forces"].item() / 2, rel=1e-4)
    assert second[TARGET].item() == pytest.approx(first[TARGET].item() / 4, rel=1e-3)


def test_no_weight_no_work(make_run, monkeypatch):
    run = make_run("+hint.hessian_ramp_unit=steps", "+hint.hessian_ramp_start=3", "+hint.hessian_ramp_end=5")
    monkeypatch.setattr(Forces, "__call__", lambda *_: pytest.fail("an engine ran"))
    data = first_batch(run)
    losses, _ = host_losses(run, data)
    assert losses[TARGET].item() == 0.0


def test_nothing_for_a_batch_without_labels(make_run, monkeypatch):
    run = make_run(*ALWAYS)
    monkeypatch.setattr(Forces, "__call__", lambda *_: pytest.fail("an engine ran"))
    data = first_batch(run)
    data[TARGET][:] = torch.nan
    losses, _ = host_losses(run, data)
    assert losses[TARGET].item() == 0.0
    sum(losses.values()).backward()


def test_balance_sets_the_first_ratio(make_run):
    run = make_run(*ALWAYS, "+hint.hessian_balance=0.3")
    data = first_batch(run)
    losses, _ = host_losses(run, data)
    others = (losses["energy"] + losses["forces"]).item()
    assert losses[TARGET].item() == pytest.approx(0.5 * 0.3 * others, rel=1e-4)


@pytest.mark.parametrize("engine", ["replicate", "vmap", "finite_difference"])
def test_engines_train_alike(make_run, engine):
    exact, other = make_run(*ALWAYS), make_run(*ALWAYS[:2], f"+hint.hessian_engine={engine}")
    data = first_batch(exact)
    values = []
    for run in (exact, other):
        run.callback.on_train_step_start(run.state, run.unit)
        loss = host_losses(run, data.clone())[0][TARGET]
        loss.backward()
        weights = inner_model(run.unit.model).output_heads.parameters()
        values.append(torch.cat([w.grad.flatten() for w in weights if w.grad is not None]))
    assert (values[0] - values[1]).norm() < 5e-3 * values[0].norm()


def test_direct_forces_get_a_symmetry_penalty(make_run):
    plain = make_run(*ALWAYS, "hint.hessian_symmetry_weight=0", config="direct.yaml")
    strict = make_run(*ALWAYS, "hint.hessian_symmetry_weight=2", config="direct.yaml")
    data = first_batch(plain)
    with torch.no_grad():  # make the asymmetry large enough to be seen beside the loss
        for run in (plain, strict):
            inner_model(run.unit.model).output_heads["forces"].linear.weight.mul_(100)
    first = host_losses(plain, data.clone())[0][TARGET]
    second = host_losses(strict, data.clone())[0][TARGET]
    graphs = labelled_graphs(inner_model(strict.unit.model), data, strict.callback.outputs)
    penalties, start = [], 0
    for size, jacobian in zip(graphs.sizes, full_hessians(graphs.view, graphs.sizes), strict=True):
        z = graphs.labels["drawn_probes"][start : start + size].permute(1, 0, 2).reshape(5, -1)
        penalties.append((z @ (jacobian - jacobian.T)).square().mean())
        start += size
    expected = 0.5 * 2 * torch.stack(penalties).mean().item()
    assert (second - first).item() == pytest.approx(expected, rel=0.02)
    second.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in strict.unit.model.parameters())


@pytest.mark.parametrize("engine", ["finite_difference", "finite_difference_one_sided"])
def test_differences_are_taken_in_full_precision_where_the_host_allows_tf32(make_run, engine):
    """``tf32: true`` is set anew in every step: forward pass, loss and backward pass of the Hessian do without."""
    exact = make_run(*ALWAYS, "hint.hessian_weight=1e4")
    coarse = make_run(*ALWAYS[:2], "hint.hessian_weight=1e4", f"+hint.hessian_engine={engine}",
                      "+runner.train_eval_unit.tf32=true")  # fmt: skip
    data = first_batch(exact)
    values = []
    for run in (exact, coarse):
        run.callback.on_train_step_start(run.state, run.unit)
        weights = list(inner_model(run.unit.model).output_heads.parameters())

        def note(*_, weights=weights):
            values.append(torch.cat([w.grad.flatten() for w in weights if w.grad is not None]))

        run.unit.optimizer.register_step_pre_hook(note)
        with EmulatedTF32() as emulated:
            run.unit.train_step(run.state, data.clone())
    assert emulated.products["coarse"] > 0
    assert (values[0] - values[1]).norm() < 1e-2 * values[0].norm()
    assert torch.backends.mkldnn.matmul.fp32_precision != "tf32"
