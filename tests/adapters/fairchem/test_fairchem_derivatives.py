"""The gradient of a Hessian loss is a third derivative: stock eSCN-MD has it wrong, ours is right."""

import logging

import pytest
import torch

from hint_fairchem.checks import force_outputs, inner_model
from hint_fairchem.dataset import labelled_flags
from hint_fairchem.graphs import labelled_graphs
from hint_fairchem.loading import example_batch, largest_labelled_batch
from hint_plugins.curvature.engines import FiniteDifference, get_engine, reverse
from hint_plugins.curvature.layer_norm import restore_layer_norms, swap_layer_norms
from hint_plugins.curvature.selftest import SelfTestError
from hint_plugins.registries import registries


@pytest.fixture
def double(make_run):
    """Model and two labelled structures in float64."""
    run = make_run(start=False)
    model = inner_model(run.unit.model).double().train()
    data = example_batch(run.runner.train_dataloader, 2, torch.float64)
    return model, lambda: labelled_graphs(model, data, force_outputs(run.unit, ["mol"]))


def third_derivative_error(model, view) -> float:
    """Relative error of d(Hessian loss)/d(parameters) along its own direction."""
    graphs = view()
    probe = graphs.labels["drawn_probes"].transpose(0, 1)[:1]
    target = graphs.labels["drawn_products"].transpose(0, 1)[:1]

    def loss(create_graph):
        return (reverse(view().view, probe, create_graph) - target).square().mean()

    weights = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss(True), weights, allow_unused=True)
    direction = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, gradients, strict=True)]
    norm = torch.sqrt(sum((d**2).sum() for d in direction))
    direction = [d / norm for d in direction]
    errors = []
    for h in (1e-3, 1e-4, 1e-5):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for w, d in zip(weights, direction, strict=True):
                    w.add_(d, alpha=sign * h)
            values.append(float(loss(False)))
            with torch.no_grad():
                for w, d in zip(weights, direction, strict=True):
                    w.add_(d, alpha=-sign * h)
        errors.append(abs((values[0] - values[1]) / (2 * h) / float(norm) - 1))
    return min(errors)


def test_third_derivative_stock_is_wrong_ours_is_right(double):
    model, view = double
    assert not restore_layer_norms(model)
    assert third_derivative_error(model, view) > 1e-4
    assert swap_layer_norms(model)
    assert third_derivative_error(model, view) < 1e-7


@pytest.mark.parametrize("engine", list(registries().engines))
def test_engines_agree_with_differences_of_forces(double, engine):
    _, view = double
    probes = view().labels["drawn_probes"].transpose(0, 1)
    reference = FiniteDifference(step=1e-5)(view().view, probes, create_graph=False)
    products = get_engine(engine)(view().view, probes, create_graph=False)
    tolerance = 1e-5 if "one_sided" in engine else 1e-8
    assert (products - reference).norm() <= tolerance * reference.norm()


def test_self_test_refuses_the_stock_model(make_run, monkeypatch):
    monkeypatch.setattr("hint_plugins.training.preparation.swap_layer_norms", lambda model: [])
    with pytest.raises(SelfTestError, match="LayerNorm has a wrong third derivative"):
        make_run()


def test_direct_forces_pass_the_self_test(make_run, caplog):
    caplog.set_level(logging.INFO)
    make_run(config="direct.yaml")
    (told,) = (r.args for r in caplog.records if r.msg.startswith("self-test in float64"))
    assert max(told) < 1e-6


@pytest.mark.parametrize("sampler", [(), ("+hint.hessian_batch_fraction=0.5",)])
def test_engines_are_measured_on_the_largest_labelled_batch(make_run, sampler):
    run = make_run(*sampler, start=False)
    loader = run.runner.train_dataloader
    flags = labelled_flags(loader.dataset)
    atoms = [sum(int(loader.dataset[i].natoms) for i in batch if flags[i]) for batch in loader.batch_sampler]
    data = largest_labelled_batch(loader)
    assert data.natoms.sum() == max(atoms)
    assert len(set(atoms)) > 1
