"""Every way to the products of a training batch gives the same loss and gradients, and none makes a needless pass."""

import contextlib
import pickle
from functools import cache

import numpy as np
import pytest
import torch

pytest.importorskip("mace")
pytestmark = pytest.mark.mace

from helpers.devices import DEVICES  # noqa: E402
from helpers.mace import atomic_data, collated, manager_with, tiny_mace  # noqa: E402
from helpers.structures import crystals, label_with_emt, labelled_set, molecules  # noqa: E402
from mace.modules.loss import WeightedEnergyForcesLoss, WeightedEnergyForcesStressLoss  # noqa: E402
from mace.tools.torch_geometric.batch import Batch  # noqa: E402

from hint_mace.batch import NOT_INPUTS, graph_batch  # noqa: E402
from hint_mace.data import Collate  # noqa: E402
from hint_mace.joint import JointForward  # noqa: E402
from hint_mace.packed import Drawn  # noqa: E402
from hint_plugins.curvature.engines import get_engine  # noqa: E402
from hint_plugins.objective import products  # noqa: E402
from hint_plugins.training.protocol import Progress  # noqa: E402

PROGRESS = Progress(max_epochs=1)
DIFFERENCES = ("finite_difference", "finite_difference_one_sided")
SHARED = ("reverse", "vmap")


@cache
def model_on(device="cpu"):
    """A model that the tests leave as it is."""
    return tiny_mace().to(device)


def plugins(engine, **options):
    manager, plugin = manager_with(
        hessian_engine=engine, hessian_num_probes=2, hessian_weight=0.5, hessian_schedule="constant", **options
    )
    plugin.engine = get_engine(engine)
    return manager, plugin


def mixed(stress):
    """Three structures, the first and last labelled; crystals with stress, else molecules."""
    made = crystals(3) if stress else molecules(3)
    return [label_with_emt(atoms, hessian=k != 1, stress=stress) for k, atoms in enumerate(made)]


@contextlib.contextmanager
def separately(monkeypatch):
    """Within, no graph is shared: the labelled structures make a forward pass of their own."""
    with monkeypatch.context() as patch:
        patch.setattr(products, "host_graph_serves", lambda *_: False)
        patch.setattr(products, "wanted_positions", lambda *_: None)
        patch.setattr("hint_plugins.training.hint.wanted_positions", lambda *_: None)
        yield


class Step:
    """One training step as the adapter makes it, up to the gradients."""

    def __init__(self, model, batch, manager, stress=False):
        self.calls = []
        handle = model.register_forward_hook(lambda module, args, out: self.calls.append(len(args[0]["positions"])))
        host = (WeightedEnergyForcesStressLoss if stress else WeightedEnergyForcesLoss)(1.0, 10.0)
        with JointForward(model, manager, lambda: PROGRESS):
            self.output = model(batch.to_dict(), training=True, compute_force=True, compute_stress=stress)
        base = host(pred=self.output, ref=batch)
        view = graph_batch(model, batch, self.output)
        terms = manager.hook.loss_terms(
            model=model, batch=view, predictions={**self.output, "loss": base.detach()}, progress=PROGRESS
        )
        self.hessian = terms[0]["hessian"]
        self.loss = base + self.hessian
        weights = [p for p in model.parameters() if p.requires_grad]
        self.gradients = torch.autograd.grad(self.loss, weights, allow_unused=True, materialize_grads=True)
        handle.remove()

    def require_equal(self, other, tolerance):
        for name in ("energy", "forces", "stress"):
            mine, theirs = self.output[name], other.output[name]
            assert (mine is None) == (theirs is None)
            if mine is not None:
                torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)
        assert float(self.hessian.detach()) > 1e-3
        torch.testing.assert_close(self.loss, other.loss, rtol=tolerance, atol=0)
        size = torch.cat([g.reshape(-1) for g in other.gradients]).abs().max()
        for mine, theirs in zip(self.gradients, other.gradients, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=float(tolerance * size))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stress", [False, True])
@pytest.mark.parametrize("labelled", ["all", "some"])
@pytest.mark.parametrize("engine", [*SHARED, *DIFFERENCES])
def test_all_routes_give_the_same_loss_and_gradients(engine, labelled, stress, device, monkeypatch):
    """Differences of forces magnify rounding by the inverse of their step: they are made with 1e-2 A here."""
    manager, plugin = plugins(engine, hessian_fd_step=1e-2)
    plugin.engine = get_engine(engine, 1e-2)
    model = model_on(device)
    structures = mixed(stress) if labelled == "some" else [label_with_emt(a, stress=stress) for a in mixed(stress)]

    def step():
        return Step(model, collated(structures, manager).to(device), manager, stress)

    shared = step()
    with separately(monkeypatch):
        alone = step()
    assert len(shared.calls) == 1
    assert len(alone.calls) == (1 if labelled == "all" and engine in SHARED else 2)
    shared.require_equal(alone, 1e-10)


@pytest.mark.parametrize("engine", ["reverse", "finite_difference"])
def test_gradients_of_the_shared_routes(engine):
    """Against central differences of the whole loss in the parameters, E and F included."""
    manager, _ = plugins(engine)
    model = tiny_mace()
    structures = mixed(False)

    def step():
        return Step(model, collated(structures, manager), manager)

    found = step()
    assert len(found.calls) == 1
    weights = [p for p in model.parameters() if p.requires_grad]
    torch.manual_seed(2)
    directions = [torch.randn_like(w) for w in weights]
    analytic = sum(float((g * d).sum()) for g, d in zip(found.gradients, directions, strict=True))
    h, values = 1e-5, []
    for sign in (h, -2 * h):
        with torch.no_grad():
            for w, d in zip(weights, directions, strict=True):
                w.add_(d, alpha=sign)
        values.append(float(step().loss.detach()))
    numeric = (values[0] - values[1]) / (2 * h)
    assert abs(numeric - analytic) / abs(numeric) < 1e-6


@pytest.mark.parametrize("engine", DIFFERENCES)
def test_copies_ride_with_the_batch(engine):
    """Two probes: four copies of the labelled atoms, or two; none while the Hessian loss has no weight."""
    manager, plugin = plugins(engine)
    model = model_on()
    batch = collated(mixed(False), manager)
    atoms, labelled = len(batch.positions), sum(batch.drawn.sizes)
    copies = 4 if engine == "finite_difference" else 2
    step = Step(model, batch, manager)
    assert step.calls == [atoms + copies * labelled]
    assert len(step.output["forces"]) == len(step.output["node_energy"]) == atoms
    assert len(step.output["energy"]) == 3
    plugin.config = plugin.config.model_copy(update={"hessian_weight": 0.0})
    with JointForward(model, manager, lambda: PROGRESS):
        counted = []
        handle = model.register_forward_hook(lambda module, args, out: counted.append(len(args[0]["positions"])))
        model(batch.to_dict(), training=True)
        handle.remove()
    assert counted == [atoms]
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_forces_that_were_not_asked_for_are_not_taken():
    """The symmetry penalty differentiates too: it makes its own forces."""
    manager, plugin = plugins("reverse", hessian_symmetry_weight=3.0)
    model = model_on()
    batch = collated(mixed(False), manager)
    penalised = Step(model, batch, manager)
    assert len(penalised.calls) == 2
    plain = Step(model, collated(mixed(False), plugins("reverse")[0]), plugins("reverse")[0])
    torch.testing.assert_close(penalised.hessian, plain.hessian, rtol=1e-6, atol=0)
    plugin.engine, plugin.engine_name = get_engine("finite_difference"), "finite_difference"
    differences = Step(model, collated(mixed(False), manager), manager)
    assert len(differences.calls) == 1
    torch.testing.assert_close(differences.hessian, plain.hessian, rtol=1e-6, atol=0)


def test_forces_that_another_plugin_asked_for_are_not_taken():
    manager, plugin = plugins("finite_difference")
    model = model_on()
    batch = collated(mixed(False), manager)
    with JointForward(model, manager, lambda: PROGRESS):
        output = model(batch.to_dict(), training=True)
    labelled = graph_batch(model, batch, output).labelled
    expected = plugin.structure_losses(labelled)
    positions, forces = labelled.wanted
    for other in ((positions.clone(), 2 * forces), (positions, 2 * forces[:1])):
        labelled.wanted = other
        torch.testing.assert_close(plugin.structure_losses(labelled), expected, rtol=1e-6, atol=0)


def test_the_host_s_graph_serves_where_few_atoms_are_without_labels():
    cpu = torch.device("cpu")
    assert products.host_graph_serves(79, 79, 100, cpu)
    assert products.host_graph_serves(60, 79, 1, cpu)
    assert not products.host_graph_serves(10, 79, 1, cpu)
    assert not products.host_graph_serves(10, 79, 5, cpu)
    assert not products.host_graph_serves(100, 1000, 1, cpu)
    assert products.host_graph_serves(10, 79, 5, torch.device("cuda")), "small steps are bound by their launches there"
    assert not products.host_graph_serves(100, 1000, 1, torch.device("cuda"))


@pytest.mark.parametrize("engine", SHARED)
def test_few_labels_are_differentiated_alone(engine):
    """One small molecule among many: a pass of its own, and the products are those of its own batch."""
    manager, _ = plugins(engine)
    model = model_on()
    structures = [label_with_emt(a, hessian=k == 3) for k, a in enumerate(molecules(20))]
    step = Step(model, collated(structures, manager), manager)
    assert len(step.calls) == 2
    index = {3: structures[3]}
    alone = Collate(manager, 0)([(k, atomic_data(a, manager)) for k, a in index.items()])
    torch.testing.assert_close(step.hessian, Step(model, alone, manager).hessian, rtol=1e-10, atol=0)


@pytest.mark.parametrize("chosen", [(0, 1, 2), (0,), (2,), (0, 2), (1, 2)])
def test_inputs_of_the_labelled_structures_are_those_of_their_own_batch(chosen):
    manager, _ = manager_with()
    frames = [molecules(1)[0], crystals(1)[0], molecules(3)[2]]
    structures = [label_with_emt(atoms, hessian=k in chosen) for k, atoms in enumerate(frames)]
    batch = collated(structures, manager)
    data = [atomic_data(structures[k], manager) for k in chosen]
    expected = {k: v for k, v in Batch.from_data_list(data).to_dict().items() if k not in NOT_INPUTS}
    found = batch.inputs(NOT_INPUTS)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
        assert found[name].dtype == value.dtype


class TestPacked:
    def arrays(self):
        rng = np.random.default_rng(0)
        return {
            "probes": rng.standard_normal((4, 2, 3)),
            "kinds": np.arange(4, dtype=np.int32),
            "flags": np.array([True, False, True, True]),
            "single": rng.standard_normal(4).astype(np.float32),
        }

    def test_every_array_comes_back(self):
        arrays = self.arrays()
        index = {"batch": np.zeros(4, dtype=np.int64), "num_atoms": np.array([4.0])}
        drawn = pickle.loads(pickle.dumps(Drawn.pack([0], [4], arrays, index, torch.float64)))
        assert len(drawn.buffers) == 4
        labels = drawn.tensors("labels")
        assert labels.keys() == arrays.keys()
        for name, values in arrays.items():
            np.testing.assert_array_equal(labels[name].numpy(), values)
            assert labels[name].is_floating_point() == (values.dtype.kind == "f")
        assert {t.dtype for t in labels.values() if t.is_floating_point()} == {torch.float64}
        assert drawn.tensors("index")["num_atoms"].tolist() == [4.0]

    def test_a_training_batch_carries_what_was_drawn_and_no_hessian(self):
        manager, _ = manager_with(hessian_num_probes=2)
        training, validation = (collated(labelled_set(4, every=2), manager, epoch) for epoch in (0, None))
        atoms = sum(training.drawn.sizes)
        assert sum(b.numel() for b in training.drawn.buffers.values() if b.is_floating_point()) == 2 * 6 * atoms + 2
        assert not training.drawn.stored
        assert [len(s["hessian"]) for s in validation.drawn.stored] == [9 * n * n for n in validation.drawn.sizes]
        hessians = sum(s["hessian"].nbytes for s in validation.drawn.stored)
        assert len(pickle.dumps(training)) + hessians < len(pickle.dumps(validation))

    def test_labels_are_pinned_and_moved_with_the_batch(self, monkeypatch):
        """In one piece for each dtype, and without waiting."""
        manager, _ = manager_with()
        batch = collated(labelled_set(2, every=1), manager)
        pinned, moved = [], []
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
        monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: moved.append((self, a, k)) or self)
        fields, buffers = len(batch.keys), list(batch.drawn.buffers.values())
        assert batch.pin_memory().to("cuda:0") is batch
        assert len(buffers) == 2
        for buffer in buffers:
            assert any(t is buffer for t in pinned)
            assert any(t is buffer for t, _, _ in moved)
        assert len(pinned) == len(moved) == fields + 2
        assert all(a == ("cuda:0",) and k == {"non_blocking": True} for _, a, k in moved)
        moved.clear()
        batch.to("cpu")
        assert not any(k["non_blocking"] for _, _, k in moved), "numbers must have arrived before the CPU reads them"
