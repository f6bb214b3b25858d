"""Products and gradients of the Hessian loss on MACE models, against float64 finite differences."""

import pytest
import torch

pytest.importorskip("mace")
pytestmark = pytest.mark.mace

from helpers.devices import DEVICES  # noqa: E402
from helpers.mace import collated, manager_with, tiny_mace  # noqa: E402
from helpers.structures import crystals, label_with_emt, labelled_set, molecules  # noqa: E402

from hint_mace.batch import NOT_INPUTS, graph_batch, labelled_graphs, replicate_inputs  # noqa: E402
from hint_plugins.curvature.engines import EXACT, get_engine  # noqa: E402
from hint_plugins.curvature.layer_norm import swap_layer_norms  # noqa: E402
from hint_plugins.curvature.selftest import check_derivatives  # noqa: E402
from hint_plugins.training.protocol import Progress  # noqa: E402

PERIODIC = {"molecule": lambda: molecules(2), "periodic": lambda: crystals(1)}


def forward(model, batch, stress=False):
    return model(batch.to_dict(), training=True, compute_force=True, compute_stress=stress)


@pytest.fixture(scope="module")
def manager():
    return manager_with(hessian_num_probes=2)[0]


@pytest.mark.pretend_gpu_with(scale_shift=True, stress=False)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("system", PERIODIC)
@pytest.mark.parametrize("stress", [False, True])
@pytest.mark.parametrize("scale_shift", [False, True])
@pytest.mark.parametrize("name", EXACT)
def test_products_and_loss_gradients(manager, name, scale_shift, stress, system, device):
    model = tiny_mace(scale_shift).to(device)
    structures = [label_with_emt(atoms) for atoms in PERIODIC[system]()]
    batch = collated(structures, manager).to(device)
    labels = batch.drawn.tensors("labels")
    probes = labels["drawn_probes"].transpose(0, 1).contiguous().to(device)
    target = labels["drawn_products"].transpose(0, 1).to(device)

    def products():
        view = graph_batch(model, batch, forward(model, batch, stress)).labelled.view
        assert view.graph is not None, "all structures are labelled, so MACE's own force graph serves"
        if name == "replicate":
            view.graph = None
        return get_engine(name)(view, probes)

    forces_at = labelled_graphs(model, batch).view.forces_at
    h, positions = 2e-5, batch.positions.detach()
    exact = products()
    plus, minus = forces_at(positions + h * probes).detach(), forces_at(positions - h * probes).detach()
    numeric = (minus - plus) / (2 * h)
    assert (exact - numeric).norm() / numeric.norm() <= 1e-6

    def loss():
        return (products() - target).square().mean()

    weights = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss(), weights, allow_unused=True, materialize_grads=True)
    torch.manual_seed(1)
    directions = [torch.randn_like(w) for w in weights]
    analytic = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    errors = []
    for step in (1e-4, 1e-5):
        values = []
        for sign in (step, -step):
            with torch.no_grad():
                for w, d in zip(weights, directions, strict=True):
                    w.add_(d, alpha=sign)
            values.append(float(loss()))
            with torch.no_grad():
                for w, d in zip(weights, directions, strict=True):
                    w.sub_(d, alpha=sign)
        numeric_slope = (values[0] - values[1]) / (2 * step)
        errors.append(abs(numeric_slope - analytic) / abs(numeric_slope))
    assert min(errors) <= 1e-6


def test_engines_agree_on_a_mixed_batch(manager):
    """Unlabelled structures beside labelled ones change nothing."""
    model = tiny_mace()
    mixed = labelled_set(4, every=2)
    batch = collated(mixed, manager)
    view = graph_batch(model, batch, forward(model, batch))
    assert view.num_graphs == 4
    assert view.labelled.num_graphs == 2
    probes = view.labelled.labels["drawn_probes"].transpose(0, 1).contiguous()
    results = {}
    for name in (*EXACT, "finite_difference"):
        view.labelled.view.graph = None
        results[name] = get_engine(name)(view.labelled.view, probes)
    alone = collated([a for a in mixed if "REF_hessian" in a.info], manager)
    reference = graph_batch(model, alone, forward(model, alone)).labelled
    expected = get_engine("reverse")(reference.view, probes)
    for name, value in results.items():
        tolerance = 1e-6 if name == "finite_difference" else 1e-12
        assert (value - expected).abs().max() / expected.abs().max() < tolerance, name


def test_replicated_inputs_give_the_same_forces(manager):
    model = tiny_mace()
    batch = collated(labelled_set(3, every=1), manager)
    inputs = batch.inputs(NOT_INPUTS)
    n = len(batch.positions)
    copies = replicate_inputs(inputs, 3, n, 3)
    single = model(dict(inputs), training=False)["forces"]
    triple = model(copies, training=False)["forces"].view(3, n, 3)
    for copy in triple:
        torch.testing.assert_close(copy, single, rtol=0, atol=1e-12)


def test_the_non_linear_block_is_wrong_as_shipped_and_right_when_swapped(manager):
    """Its radial network holds nn.LayerNorm: MACE's one silent third-derivative error."""
    model = tiny_mace(interaction="RealAgnosticResidualNonLinearInteractionBlock")
    batch = collated([label_with_emt(a) for a in molecules(2)], manager)

    def view():
        return labelled_graphs(model, batch).view

    stock = check_derivatives(model, view)
    assert not stock.ok
    assert stock.hvp_error < 1e-6
    assert any("LayerNorm" in line for line in stock.guilty)
    assert swap_layer_norms(model)
    mended = check_derivatives(model, view)
    assert mended.ok
    assert mended.gradient_error < 1e-6


def test_a_batch_without_labels_gives_no_term(manager):
    model = tiny_mace()
    batch = collated(labelled_set(2, every=0), manager)
    view = graph_batch(model, batch, forward(model, batch))
    assert view.labelled is None
    plugin = manager.get_plugin("hint")
    terms = plugin.loss_terms(model, view, {"loss": torch.ones(())}, Progress(step=100, max_epochs=1))
    assert float(terms["hessian"]) == 0.0


def test_balance_sets_the_first_loss_to_the_multiple():
    manager, plugin = manager_with(hessian_balance=0.5, hessian_weight=1.0, hessian_schedule="constant")
    model = tiny_mace()
    batch = collated(labelled_set(2, every=1), manager)
    view = graph_batch(model, batch, forward(model, batch))
    terms = plugin.loss_terms(model, view, {"loss": torch.tensor(8.0)}, Progress())
    assert float(terms["hessian"]) == pytest.approx(4.0)


def test_conservative_models_have_no_asymmetry_penalty(manager):
    penalised, plugin = manager_with(hessian_num_probes=2, hessian_symmetry_weight=10.0)
    model = tiny_mace()
    batch = collated(labelled_set(2, every=1), penalised)
    graphs = graph_batch(model, batch, forward(model, batch)).labelled
    plain = manager.get_plugin("hint").structure_losses(graphs)
    torch.testing.assert_close(plugin.structure_losses(graphs), plain, rtol=1e-6, atol=1e-6)
