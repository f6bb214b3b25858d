"""The ``hint`` plugin on a toy host: what it checks, chooses, refuses and puts back."""

import pytest
import torch
from helpers.toy import ToyPotential, toy_view
from torch import nn

from hint_plugins.batching.view import LabelledGraphs, Progress
from hint_plugins.config import ConfigError, HintConfig
from hint_plugins.curvature.engines import EXACT, ForceView
from hint_plugins.curvature.layer_norm import ExactLayerNorm
from hint_plugins.curvature.selftest import SelfTestError
from hint_plugins.hint import HintPlugin
from hint_plugins.hookspecs import TrainingRun


def labelled(model, dtype=torch.float64):
    torch.manual_seed(0)
    positions = torch.randn(5, 3, dtype=dtype)
    probes = torch.randn(5, 2, 3, dtype=dtype)
    return LabelledGraphs(
        view=toy_view(model, positions, [2, 3]),
        sizes=[2, 3],
        batch=torch.tensor([0, 0, 1, 1, 1]),
        num_atoms=torch.tensor([2.0, 3.0], dtype=dtype),
        weights=torch.ones(2, dtype=dtype),
        numbers=torch.ones(5, dtype=torch.long),
        labels={"hessian_probes": probes, "hessian_products": torch.randn_like(probes)},
    )


def run_of(model, tmp_path, num_labelled=4, exact=True, history=()):
    def double(count):
        import copy

        twin = copy.deepcopy(model).double()
        return twin, labelled(twin)

    return TrainingRun(
        model=model,
        num_labelled=num_labelled,
        num_structures=9,
        labelled_example=lambda count: labelled(model, torch.float32),
        double_example=double,
        exact_derivatives=exact,
        directory=str(tmp_path),
        name="toy",
        progress=Progress(),
        history=list(history),
    )


def test_training_starts_with_a_mended_tested_model_and_a_measured_engine(tmp_path, caplog):
    model = ToyPotential(nn.LayerNorm(8))
    plugin = HintPlugin()
    with caplog.at_level("INFO"):
        plugin.training_started(run_of(model, tmp_path))
    assert type(model.norm) is ExactLayerNorm
    assert plugin.engine_name in EXACT
    assert "self-test in float64" in caplog.text
    history = [{"epoch": e, "hessian_mae": 2.0 - e, "hessian_weight": 0.1 * e} for e in range(2)]
    plugin.training_finished(run_of(model, tmp_path, history=history))
    assert type(model.norm) is nn.LayerNorm, "a saved model needs no code of this package"
    assert (tmp_path / "toy_hessian.png").stat().st_size > 1000


def test_training_without_labels_is_refused_unless_the_weight_is_zero(tmp_path):
    with pytest.raises(ConfigError, match=r"none of the 9 training structures.*REF_hessian"):
        HintPlugin().training_started(run_of(ToyPotential(), tmp_path, num_labelled=0))
    HintPlugin(HintConfig(hessian_weight=0)).training_started(run_of(ToyPotential(), tmp_path, num_labelled=0))


def test_kernels_without_third_derivatives(tmp_path):
    exact = HintPlugin(HintConfig(hessian_engine="vmap"))
    with pytest.raises(ConfigError, match="finite_difference"):
        exact.training_started(run_of(ToyPotential(), tmp_path, exact=False))
    auto = HintPlugin()
    auto.training_started(run_of(ToyPotential(), tmp_path, exact=False))
    assert auto.engine_name == "finite_difference"


def test_a_wrong_model_is_refused_by_name_and_finite_differences_are_offered(tmp_path):
    wrong = ToyPotential(nn.BatchNorm1d(8))
    with pytest.raises(SelfTestError, match=r"norm: BatchNorm1d.*finite_difference"):
        HintPlugin().training_started(run_of(wrong, tmp_path))
    HintPlugin(HintConfig(hessian_engine="finite_difference")).training_started(run_of(wrong, tmp_path))


def test_the_sampler_follows_the_options():
    plugin = HintPlugin(HintConfig(hessian_batch_fraction=0.5))
    sampler = plugin.batch_sampler(labelled=[True] * 2 + [False] * 14, batch_size=4, world_size=1, rank=0, seed=0)
    counts = [sum(i < 2 for i in batch) for batch in sampler]
    assert sorted(counts) == [0, 0, 0, 2]


def test_direct_forces_are_penalised_for_asymmetry():
    """A force field with a curl: rows and columns of its Jacobian differ, and the penalty sees it."""
    torch.manual_seed(0)
    curl = torch.randn(15, 15, dtype=torch.float64, requires_grad=True)
    graphs = labelled(ToyPotential().double())

    def forces_at(copies):
        leaf = copies if copies.requires_grad else copies.detach().requires_grad_(True)
        return (leaf.flatten(1) @ curl.T).view_as(leaf)

    graphs.view = ForceView(graphs.view.positions, forces_at)
    plain = HintPlugin(HintConfig(hessian_engine="reverse")).structure_losses(graphs)
    penalised = HintPlugin(HintConfig(hessian_engine="reverse", hessian_symmetry_weight=1.0)).structure_losses(graphs)
    z = graphs.labels["hessian_probes"].transpose(0, 1).reshape(2, 15)
    difference = (z @ (curl - curl.T).detach()).square().view(2, 5, 3)
    expected = torch.stack([difference[:, :2].mean((1, 2)).mean(), difference[:, 2:].mean((1, 2)).mean()])
    torch.testing.assert_close(penalised - plain, expected, rtol=1e-5, atol=1e-6)
