"""The ``hint`` plugin on a toy host: what it checks, chooses, refuses and puts back."""

import os

import numpy as np
import pytest
import torch
from ase import Atoms
from torch import nn

from hint_plugins.config import ConfigError, HintConfig
from hint_plugins.curvature.engines import EXACT, ForceView, get_engine
from hint_plugins.curvature.layer_norm import ExactLayerNorm
from hint_plugins.curvature.selftest import SelfTestError
from hint_plugins.hookspecs import TrainingRun
from hint_plugins.labels.hessian_label import LabelError
from hint_plugins.objective.metrics import NotFiniteError, hessian_errors
from hint_plugins.testing.toy import ToyPotential, toy_view
from hint_plugins.training.hint import HintPlugin
from hint_plugins.training.protocol import GraphBatch, LabelledGraphs, Progress


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
        labels={"drawn_probes": probes, "drawn_products": torch.randn_like(probes)},
    )


def run_of(model, tmp_path, num_labelled=4, exact=True, history=(), progress=Progress()):
    def double(count):
        import copy

        twin = copy.deepcopy(model).double()
        return twin, labelled(twin)

    return TrainingRun(
        model=model,
        num_labelled=num_labelled,
        num_structures=9,
        labelled_example=lambda: labelled(model, torch.float32),
        double_example=double,
        exact_derivatives=exact,
        directory=str(tmp_path),
        name="toy",
        progress=progress,
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


def test_the_self_test_judges_kernels_that_nobody_knows(tmp_path, caplog):
    """Kernels that may have third derivatives: ``auto`` falls back where they have not, an exact engine is refused."""
    right = HintPlugin(HintConfig(hessian_engine="reverse"))
    right.training_started(run_of(ToyPotential(), tmp_path, exact=None))
    assert right.engine_name == "reverse"
    measured = HintPlugin()
    measured.training_started(run_of(ToyPotential(), tmp_path, exact=None))
    assert measured.engine_name in EXACT
    wrong = ToyPotential(nn.BatchNorm1d(8))
    fallen = HintPlugin(HintConfig(hessian_metrics="none", hessian_valid_loss=False))
    fallen.training_started(run_of(wrong, tmp_path, exact=None))
    assert fallen.engine_name == "finite_difference"
    assert "norm: BatchNorm1d" in caplog.text
    fallen.validation_metrics(model=wrong, loader=[], progress=Progress(step=3))  # the test is not repeated
    with pytest.raises(SelfTestError, match="norm: BatchNorm1d"):
        HintPlugin(HintConfig(hessian_engine="vmap")).training_started(run_of(wrong, tmp_path, exact=None))


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
    z = graphs.labels["drawn_probes"].transpose(0, 1).reshape(2, 15)
    difference = (z @ (curl - curl.T).detach()).square().view(2, 5, 3)
    expected = torch.stack([difference[:, :2].mean((1, 2)).mean(), difference[:, 2:].mean((1, 2)).mean()])
    torch.testing.assert_close(penalised - plain, expected, rtol=1e-5, atol=1e-6)


def test_steps_without_labels_do_not_wait_for_the_balance():
    """The host's loss is read, which waits for the device, only where there is a Hessian loss to compare it with."""
    model = ToyPotential().double()
    plugin = HintPlugin(HintConfig(hessian_balance=0.5, hessian_schedule="constant", hessian_engine="reverse"))
    graphs = labelled(model)
    for batch in (None, graphs):
        predictions = {} if batch is None else {"loss": torch.tensor(2.0)}
        host = GraphBatch(graphs.view.positions, None, graphs.batch, 2, batch)
        plugin.loss_terms(model=model, batch=host, predictions=predictions, progress=Progress())
        assert (plugin.scale is None) == (batch is None)


LONG = Progress(max_epochs=10, steps_per_epoch=4)


@pytest.mark.parametrize(
    "options",
    [
        {"hessian_ramp_start": 10, "hessian_ramp_end": 20},
        {"hessian_ramp_start": 50, "hessian_ramp_end": 60},
        {"hessian_ramp_start": 40, "hessian_ramp_end": 41, "hessian_ramp_unit": "steps"},
        {"hessian_ramp_end": 11, "hessian_schedule": "step"},
    ],
)
def test_a_ramp_after_the_run_is_refused(options, tmp_path, caplog):
    plugin = HintPlugin(HintConfig(**options))
    with pytest.raises(ConfigError, match="lies after the end of the run"):
        plugin.training_started(run_of(ToyPotential(), tmp_path, progress=LONG))
    plugin = HintPlugin(HintConfig(**options, hessian_weight=0))
    plugin.training_started(run_of(ToyPotential(), tmp_path, progress=LONG))


def test_a_ramp_that_ends_after_the_run_is_told(tmp_path, caplog):
    plugin = HintPlugin(HintConfig(hessian_weight=1.0, hessian_ramp_end=20, hessian_engine="reverse"))
    plugin.training_started(run_of(ToyPotential(), tmp_path, progress=LONG))
    assert "the Hessian weight reaches 0.487 of 1 within the run" in caplog.text


def test_a_continued_run_keeps_the_end_of_its_ramp(tmp_path):
    first = HintPlugin(HintConfig(hessian_weight=1.0, hessian_engine="reverse"))
    first.training_started(run_of(ToyPotential(), tmp_path, progress=LONG))
    longer = HintPlugin(HintConfig(hessian_weight=1.0, hessian_engine="reverse"))
    longer.restore_state(first.checkpoint_state())
    longer.training_started(run_of(ToyPotential(), tmp_path, progress=Progress(max_epochs=40, steps_per_epoch=4)))
    for plugin in (first, longer):
        at = Progress(step=10, steps_per_epoch=4, max_epochs=40)
        assert plugin.curriculum.weight(at) == 0.5


def test_the_engine_is_chosen_without_timing_on_request(tmp_path, monkeypatch):
    import hint_plugins.training.preparation as preparation

    monkeypatch.setattr(preparation, "measured_engine", None)
    for _ in range(2):
        plugin = HintPlugin(HintConfig(hessian_reproducible=True))
        plugin.training_started(run_of(ToyPotential(), tmp_path))
        assert plugin.engine_name == "vmap"
    again = HintPlugin()
    again.restore_state({"hint": {"engine": "replicate"}})
    again.training_started(run_of(ToyPotential(), tmp_path))
    assert again.engine_name == "replicate", "a continued run takes the engine of its first part"


def test_an_engine_measured_on_another_device_is_chosen_anew(tmp_path, monkeypatch):
    import hint_plugins.training.preparation as preparation

    monkeypatch.setattr(preparation, "measured_engine", lambda *_: "reverse")
    first = HintPlugin()
    first.training_started(run_of(ToyPotential(), tmp_path))
    state = first.checkpoint_state()
    assert state["hint"]["device"] == "cpu"
    for device, engine, name in (
        ("cpu", "auto", "vmap"),
        ("cuda", "auto", "reverse"),
        ("cuda", "replicate", "replicate"),
    ):
        state["hint"] |= {"device": device, "engine": "vmap"}
        plugin = HintPlugin(HintConfig(hessian_engine=engine))
        plugin.restore_state(state)
        plugin.training_started(run_of(ToyPotential(), tmp_path))
        assert plugin.engine_name == name


def test_reproducible_runs_take_deterministic_kernels(tmp_path, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    plugin = HintPlugin()
    plugin.configure(values={"hessian_reproducible": True})
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    run = run_of(ToyPotential(), tmp_path)
    for before in (False, True):
        torch.use_deterministic_algorithms(before, warn_only=before)
        try:
            plugin.training_started(run)
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
            plugin.training_finished(run)
            assert torch.are_deterministic_algorithms_enabled() is before
            assert torch.is_deterministic_algorithms_warn_only_enabled() is before
        finally:
            torch.use_deterministic_algorithms(False)
    plain = HintPlugin()
    plain.training_started(run)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_self_test_is_repeated_after_some_steps(tmp_path):
    """A module that becomes wrong in training is found at the next validation."""
    model = ToyPotential()
    plugin = HintPlugin(HintConfig(hessian_engine="reverse", hessian_metrics="none", hessian_valid_loss=False))
    plugin.training_started(run_of(model, tmp_path))
    plugin.validation_metrics(model=model, loader=[], progress=Progress(step=0))
    model.norm = nn.LayerNorm(8)
    model.requires_grad_(False)  # as hosts do in validation
    with pytest.raises(SelfTestError, match="norm: LayerNorm"):
        plugin.validation_metrics(model=model, loader=[], progress=Progress(step=3))
    plugin.training_started(run_of(model, tmp_path))  # swaps the layer
    for step in (3, 6):
        plugin.validation_metrics(model=model, loader=[], progress=Progress(step=step))


def test_kinks_are_warned_of(tmp_path, caplog):
    plugin = HintPlugin(HintConfig(hessian_engine="reverse"))
    plugin.training_started(run_of(ToyPotential(nn.ReLU()), tmp_path))
    assert "the model is not smooth: norm: ReLU has a kink" in caplog.text


@pytest.mark.parametrize("metrics", ["full", "probes"])
def test_a_model_of_nan_is_named_in_validation(metrics):
    model = ToyPotential().double()
    plugin = HintPlugin(HintConfig(hessian_engine="reverse", hessian_metrics=metrics))
    graphs = labelled(model)
    graphs.stored = [{}, {}]
    plugin.validation_metrics(model=model, loader=[graphs], progress=Progress())
    with torch.no_grad():
        model.first.weight[0, 0] = float("nan")
    graphs.view.graph = None
    with pytest.raises(NotFiniteError, match=r"not finite for labelled structure 0 \(H2\)"):
        plugin.validation_metrics(model=model, loader=[graphs], progress=Progress())


def test_errors_of_a_hessian_that_is_not_finite_are_refused():
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])
    with pytest.raises(NotFiniteError, match="Hessian of H2 is not finite"):
        hessian_errors(np.full((6, 6), np.nan), np.eye(6), atoms)


def label_of_h2(**changes):
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]], info={"hint_source": "train_0.h5, structure 7"})
    k = np.zeros((6, 6))
    k[2, 2] = k[5, 5] = 35.0
    k[2, 5] = k[5, 2] = -35.0
    return atoms, {"hessian": k.reshape(-1), "hessian_pbc": np.zeros(3, np.int8)} | changes


@pytest.mark.parametrize("wrong", [np.full(36, np.nan), np.full(36, 1.0), np.zeros(35)])
def test_labels_of_prepared_files_are_judged_again(wrong):
    atoms, labels = label_of_h2()
    assert HintPlugin().check_labels(labels=labels, atoms=atoms, forces=np.zeros((2, 3))) is True
    assert HintPlugin().check_labels(labels={"other": wrong}, atoms=atoms, forces=None) is None
    atoms, labels = label_of_h2(hessian=wrong)
    with pytest.raises(LabelError, match=r"train_0\.h5, structure 7"):
        HintPlugin().check_labels(labels=labels, atoms=atoms, forces=None)
    dropping = HintPlugin(HintConfig(hessian_on_bad_label="drop"))
    assert dropping.check_labels(labels=labels, atoms=atoms, forces=None) is False
    assert dropping.labels.dropped == {"train_0.h5, structure 7"}


@pytest.mark.parametrize(
    ("engine", "copies"), [("reverse", None), ("finite_difference", 4), ("finite_difference_one_sided", 2)]
)
def test_forces_are_asked_of_the_host_where_differences_need_them(engine, copies):
    """Two probes: displaced both ways, or one way beside the host's own forces; none while the weight is 0."""
    plugin = HintPlugin()
    plugin.configure(values={"hessian_weight": 1.0, "hessian_schedule": "constant", "hessian_fd_step": 0.01})
    plugin.engine = get_engine(engine, 0.01)
    graphs = labelled(ToyPotential().double())
    found = plugin.positions_wanted(labelled=graphs, progress=Progress(max_epochs=1))
    if copies is None:
        assert found is None
        return
    assert found.shape == (copies, 5, 3)
    moves = (found - graphs.view.positions).abs().amax(dim=(1, 2))
    torch.testing.assert_close(moves, torch.full_like(moves, 0.01))
    plugin.configure(values={"hessian_weight": 0.0, "hessian_schedule": "constant"})
    assert plugin.positions_wanted(labelled=graphs, progress=Progress(max_epochs=1)) is None
