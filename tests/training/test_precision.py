"""Differences of forces are taken in full single precision, whatever torch was told, and torch is told nothing new."""

import copy

import pytest
import torch
from helpers.devices import DEVICES
from helpers.tf32 import EmulatedTF32
from test_hint_plugin import labelled, run_of

from hint_plugins.config import HintConfig
from hint_plugins.curvature.engines import EXACT, ForceView, get_engine
from hint_plugins.curvature.full import full_hessians
from hint_plugins.curvature.precision import Precision, coarse_products, full_precision
from hint_plugins.testing.toy import ToyPotential, toy_view
from hint_plugins.training.hint import HintPlugin
from hint_plugins.training.numerics import Numerics
from hint_plugins.training.protocol import GraphBatch, LabelledGraphs, Progress

SIZES = [3, 4]
DIFFERENCES = ("finite_difference", "finite_difference_one_sided")
START = Precision()


@pytest.fixture(autouse=True)
def _as_before():
    yield
    torch.backends.fp32_precision = "none"
    START.restore()
    assert Precision() == START


def high():
    torch.set_float32_matmul_precision("high")


def newer():
    for backend in (torch.backends.cuda, torch.backends.mkldnn):
        backend.matmul.fp32_precision = "tf32"


def coarse():
    return coarse_products(torch.zeros(1))


def everything():
    torch.backends.fp32_precision = "tf32"


@pytest.fixture(params=DEVICES)
def setting(request):
    torch.manual_seed(0)
    model = ToyPotential(width=32).to(request.param)
    positions = torch.randn(sum(SIZES), 3).to(request.param)
    probes = torch.randn(4, len(positions), 3).sign().to(request.param)
    exact = copy.deepcopy(model).double()
    reference = get_engine("reverse")(toy_view(exact, positions.double(), SIZES), probes.double(), create_graph=False)
    return model, positions, probes, reference


def error(found, reference):
    return float((found.detach().double() - reference).norm() / reference.norm())


@pytest.mark.parametrize("setup", [high, newer, everything])
@pytest.mark.parametrize("graph_at_hand", [False, True])
@pytest.mark.parametrize(("name", "tolerance"), [("finite_difference", 1e-3), ("finite_difference_one_sided", 1e-2)])
def test_products_are_as_good_as_without_tf32(setting, name, tolerance, graph_at_hand, setup):
    model, positions, probes, reference = setting
    plain = get_engine(name)(toy_view(model, positions, SIZES), probes)
    assert error(plain, reference) < tolerance
    setup()
    told = Precision()
    with EmulatedTF32() as emulated:
        view = toy_view(model, positions, SIZES)
        if graph_at_hand:
            view.force_graph()
        found = get_engine(name)(view, probes)
    assert error(found, reference) < tolerance
    assert emulated.products["full"] > 0 or positions.is_cuda
    assert Precision() == told


def test_the_emulation_spoils_differences_that_are_not_protected(setting, monkeypatch):
    """Without this the tests beside it would prove nothing."""
    import contextlib

    import hint_plugins.curvature.engines as engines

    model, positions, probes, reference = setting
    if positions.is_cuda:
        pytest.skip("needs the emulation, which is for CPUs")
    monkeypatch.setattr(engines, "full_precision", lambda _: contextlib.nullcontext())
    high()
    with EmulatedTF32():
        for name, least in zip(DIFFERENCES, (1e-2, 3e-2), strict=True):
            assert error(get_engine(name)(toy_view(model, positions, SIZES), probes), reference) > least


@pytest.mark.parametrize("name", ["reverse", *DIFFERENCES])
@pytest.mark.parametrize("graph_at_hand", [False, True])
def test_whole_hessians_are_made_in_full_precision(setting, name, graph_at_hand):
    model, positions, _, _ = setting
    exact = full_hessians(toy_view(copy.deepcopy(model).double(), positions.double(), SIZES), SIZES)
    plain = full_hessians(toy_view(model, positions, SIZES), SIZES, get_engine(name))
    high()
    with EmulatedTF32():
        view = toy_view(model, positions, SIZES)
        if graph_at_hand:
            view.force_graph()
        found = full_hessians(view, SIZES, get_engine(name))
    for h, p, e in zip(found, plain, exact, strict=True):
        assert error(h, e) < 2 * error(p, e) + 1e-6
    assert coarse() == "TF32"


def losses(plugin, model, run, graphs, before=lambda: None):
    """Gradient of the Hessian loss of one step of a host that calls ``before`` at the beginning of the step."""
    before()
    graphs.view.graph = None
    graphs.view.force_graph()
    batch = GraphBatch(graphs.view.positions, None, graphs.batch, 2, graphs)
    predictions = {"loss": torch.ones(())}
    (loss,) = plugin.loss_terms(model=model, batch=batch, predictions=predictions, progress=Progress()).values()
    weights = list(model.parameters())
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)]
    )


@pytest.mark.parametrize("name", DIFFERENCES)
@pytest.mark.parametrize("every_step", [False, True])
def test_the_gradient_of_the_loss_is_as_good_as_without_tf32(name, every_step, tmp_path, caplog):
    """The host's backward pass through the products is a difference, too; some hosts allow TF32 anew in every step."""
    torch.manual_seed(0)
    model = ToyPotential(width=32)
    options = {"hessian_weight": 1.0, "hessian_weight_start": 1.0}
    double = copy.deepcopy(model).double()
    exact = HintPlugin(HintConfig(hessian_engine="reverse", **options))
    exact.training_started(run_of(double, tmp_path))
    reference = losses(exact, double, None, labelled(double))
    graphs = labelled(model, torch.float32)
    for key, value in labelled(double).labels.items():
        graphs.labels[key] = value.float()
    graphs.view = toy_view(model, labelled(double).view.positions.float(), [2, 3])
    high()
    told = Precision()
    plugin = HintPlugin(HintConfig(hessian_engine=name, **options))
    plugin.training_started(run_of(model, tmp_path))
    assert coarse() == ""
    with EmulatedTF32():
        for _ in range(2):
            found = losses(plugin, model, None, graphs, high if every_step else lambda: None)
            assert error(found, reference) < 2e-2
    plugin.training_finished(run_of(model, tmp_path))
    assert Precision() == told
    assert caplog.text.count("matrix products in TF32 leave finite differences") == 1


def test_the_symmetry_penalty_of_an_exact_engine_counts_as_a_difference(tmp_path):
    high()
    model = ToyPotential()
    HintPlugin(HintConfig(hessian_engine="reverse")).training_started(run_of(model, tmp_path))
    assert coarse() == "TF32"
    plugin = HintPlugin(HintConfig(hessian_engine="reverse", hessian_symmetry_weight=0.1))
    plugin.training_started(run_of(model, tmp_path))
    assert coarse() == ""


@pytest.mark.parametrize("name", EXACT)
def test_exact_engines_warn_of_tf32_and_leave_it(name, tmp_path, caplog):
    for told, count in ((lambda: None, 0), (high, 1)):
        told()
        plugin = HintPlugin(HintConfig(hessian_engine=name))
        plugin.training_started(run_of(ToyPotential(), tmp_path))
        assert caplog.text.count("matrix products in TF32 leave Hessian products about three digits") == count
    assert coarse() == "TF32"
    double = HintPlugin(HintConfig(hessian_engine=name))
    double.training_started(run_of(ToyPotential().double(), tmp_path))
    assert caplog.text.count("matrix products in TF32") == 1, "double precision knows no TF32"


@pytest.mark.parametrize("setup", [lambda: None, high, newer, everything])
def test_settings_are_put_back(setup):
    setup()
    told, before = Precision(), coarse()
    with full_precision(torch.zeros(1)):
        assert coarse() == ""
        assert torch.backends.cudnn.allow_tf32 is False
        assert torch.get_float32_matmul_precision() == "highest"
    assert Precision() == told
    assert coarse() == before
    with full_precision(torch.zeros(1, dtype=torch.float64)):
        assert Precision() == told


def test_forces_made_in_coarse_precision_are_not_used(monkeypatch):
    """A host that switches TF32 on again within a step has made its forces, and the copies beside them, with it."""
    positions = torch.zeros(2, 3)
    graphs = LabelledGraphs(
        ForceView(positions, torch.sin, (positions, positions)),
        [2],
        torch.zeros(2, dtype=torch.long),
        torch.ones(1),
        torch.ones(1),
        torch.ones(2, dtype=torch.long),
        host=(positions, positions),
        wanted=(positions, positions),
    )
    numerics = Numerics()
    numerics.differences = True
    monkeypatch.setattr("hint_plugins.training.numerics.coarse_products", lambda tensor: "TF32")
    before = Precision()
    try:
        numerics.before_products(graphs)
    finally:
        before.restore()
    assert graphs.view.graph is graphs.host is graphs.wanted is None
