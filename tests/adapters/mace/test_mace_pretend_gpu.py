"""Training with MACE on a GPU, a pretend one: it runs in every mode, and a step costs no more than it must.

What a step costs is counted from the batch on the host to the new weights, and compared with MACE's own step on the
same batch: the ratio of kernel launches, and the moments at which the host waits for the GPU and the copies between
them that come on top. Nothing of this depends on the size of model or batch.
"""

import zipfile

import numpy as np
import pytest
import torch

pytest.importorskip("mace")
pytestmark = [pytest.mark.mace, pytest.mark.slow]

from ase.io import read, write  # noqa: E402
from helpers.gpu_budgets import hold_to  # noqa: E402
from helpers.pretend_counts import Totals  # noqa: E402
from helpers.pretend_gpu import pretend_gpu  # noqa: E402
from helpers.training import HINT, records, train_on_pretend_gpu, write_data  # noqa: E402

from hint_plugins.potential import Potential  # noqa: E402

#: Launches of a step with two probes, every structure labelled, in those of MACE's own step.
LAUNCHES = {
    "reverse": 3.9,
    "replicate": 3.5,
    "vmap": 2.9,
    "finite_difference": 1.15,
    "finite_difference_one_sided": 1.15,
}
#: The same for AlphaNet, with half of the structures labelled.
LAUNCHES_ALPHANET = {"replicate": 3.7}
#: Waits and copies that a step has beyond MACE's own, whatever the engine: batches come from pinned memory, so that
#: none of the 33 copies waits that do in MACE's. Waits of a step before the ramp begins.
WAITS, COPIES = -33, 2
WAITS_BEFORE_RAMP = -33
#: Waits for a forward pass of AlphaNet.
WAITS_ALPHANET = 0
#: Launches, waits and copies, at most, of a call of a potential (two layers).
POTENTIAL = {
    "evaluate 8": Totals(730, 7, 7),
    "hvp": Totals(1760, 7, 7),
    "hessians of 8": Totals(1770, 14, 14),
}

SMALL = {"hidden_irreps": "2x0e+2x1o", "max_ell": 1, "max_num_epochs": 1, "eval_interval": 1}
CONSTANT = {**HINT, "hessian_schedule": "constant", "hessian_metrics": "probes"}
ALPHANET = "hidden_channels: 16\nnum_layers: 2\nmain_chi1: 4\nmp_chi1: 4\nchi2: 2\nframe_channels: 4\n"


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """A run of one epoch for each engine, and one without Hessians, on labelled structures only."""
    directory = tmp_path_factory.mktemp("engines")
    write_data(directory, train=8, every=1)
    runs = {name: {**SMALL, **CONSTANT, "hessian_engine": name} for name in LAUNCHES}
    runs |= {"plain": SMALL, "on_cpu": {**runs["reverse"], "device": "cpu"}}
    return directory, train_on_pretend_gpu(directory, **runs)


@pytest.fixture(scope="module")
def modes(tmp_path_factory):
    """Other ways to train, with half of the structures labelled."""
    directory = tmp_path_factory.mktemp("modes")
    write_data(directory, train=8, every=2)
    write(directory / "few.xyz", [a for a in read(directory / "train.xyz", ":") if "REF_hessian" in a.info][:3])
    (directory / "net.yaml").write_text(ALPHANET)
    whole = {**SMALL, **HINT, "name": "whole", "num_interactions": 1, "ema": "", "swa": "", "start_swa": 1}
    whole |= {"hessian_engine": "auto", "hessian_ramp_start": 1, "hessian_ramp_end": 1}
    alphanet = {**SMALL, **HINT, "model": "AlphaNet", "alphanet_config": "net.yaml", "ema": "", "max_num_epochs": 2}
    alphanet |= {"hidden_irreps": None, "max_ell": None, "hessian_engine": "replicate", "hessian_metrics": "probes"}
    runs = {
        "whole": {**whole, "max_num_epochs": 2, "hessian_selftest": True},
        "continued": {**whole, "max_num_epochs": 3, "restart_latest": ""},
        "moved": {**whole, "max_num_epochs": 4, "restart_latest": "", "device": "cpu"},
        "lbfgs": {**SMALL, **CONSTANT, "hessian_engine": "finite_difference", "lbfgs": "", "train_file": "few.xyz"},
        "alphanet": {**alphanet, "hessian_ramp_start": 1, "hessian_ramp_end": 1},
    }
    return directory, train_on_pretend_gpu(directory, **runs)


def added(run, plain, step=-1):
    """What a step costs beside the plain one."""
    return run.steps[step].since(plain.steps[-1])


def test_every_engine_trains_with_the_numbers_of_the_cpu(engines):
    directory, runs = engines
    for name, run in runs.items():
        assert run.status == 0, f"{name}:\n{run.output[-3000:]}"
        assert len(run.steps) == 2
    losses = {name: [row["loss"] for row in records(directory, "opt", name=name)] for name in runs}
    np.testing.assert_allclose(losses["reverse"], losses["on_cpu"], rtol=1e-9)
    for name in LAUNCHES:
        np.testing.assert_allclose(losses[name], losses["on_cpu"], rtol=1e-4)
    assert abs(losses["plain"][0] / losses["on_cpu"][0] - 1) > 1e-3


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_step_keeps_its_budget(engines, name):
    run, plain = engines[1][name], engines[1]["plain"]
    assert run.steps[-1].launches <= LAUNCHES[name] * plain.steps[-1].launches
    assert added(run, plain).waits <= WAITS, run.waits
    assert added(run, plain).copies <= COPIES, run.copies


def test_every_mode_trains(modes):
    for name, run in modes[1].items():
        assert run.status == 0, f"{name}:\n{run.output[-3000:]}"
    assert "self-test in float64" in modes[1]["whole"].output
    assert "HVP engines on" in modes[1]["whole"].output
    assert "restarted after epoch 1" in modes[1]["continued"].output
    assert "restarted after epoch 2" in modes[1]["moved"].output


def test_no_mode_waits_more(modes, engines):
    """Ramp, second stage, moving average, a mixed batch, and a continued run, whose optimiser came from a file."""
    plain, runs = engines[1]["plain"], modes[1]
    assert len(runs["whole"].steps) == 4
    for step in (0, 1):
        assert added(runs["whole"], plain, step).waits <= WAITS_BEFORE_RAMP
    for run in (runs["whole"], runs["continued"]):
        assert added(run, plain).waits <= WAITS, run.waits


def test_alphanet_keeps_its_budget(modes, engines):
    plain, run = engines[1]["plain"], modes[1]["alphanet"]
    before, after = run.steps[1], run.steps[-1]
    assert before.since(plain.steps[-1]).waits <= WAITS_BEFORE_RAMP + WAITS_ALPHANET
    assert after.launches <= LAUNCHES_ALPHANET["replicate"] * before.launches
    assert after.since(plain.steps[-1]).waits <= WAITS + 2 * WAITS_ALPHANET, run.waits


@pytest.mark.parametrize("name", ["reverse", "alphanet"])
def test_models_trained_on_a_gpu_open_without_one(engines, modes, name):
    file = (modes if name == "alphanet" else engines)[0] / f"{name}.model"
    with zipfile.ZipFile(file) as archive:
        pickled = next(archive.read(part) for part in archive.namelist() if part.endswith("/data.pkl"))
    assert b"cuda:0" in pickled, "the file is not what a machine with a GPU writes"
    with pytest.raises((RuntimeError, NotImplementedError), match="CUDA"):
        torch.load(file, weights_only=False)
    structures = read(modes[0] / "valid.xyz", ":")
    assert np.isfinite(Potential.load(file, "cpu").evaluate(structures).energies).all()


@pytest.mark.parametrize("name", POTENTIAL)
def test_potential_keeps_its_budget(name):
    from helpers.mace import tiny_mace

    from hint_mace.host import MaceEnergyModel

    with pretend_gpu() as counts:
        hold_to(POTENTIAL[name], counts, MaceEnergyModel(tiny_mace()), name)
