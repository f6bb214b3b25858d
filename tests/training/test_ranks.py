"""Two processes: what fails on one fails on both, with the same words, and nobody waits for a process that is gone."""

import datetime
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from test_hint_plugin import labelled, run_of

from hint_plugins.config import HintConfig
from hint_plugins.curvature.selftest import SelfTestError
from hint_plugins.objective.metrics import NotFiniteError
from hint_plugins.testing.toy import ToyPotential
from hint_plugins.training.hint import HintPlugin
from hint_plugins.training.protocol import Progress
from hint_plugins.training.ranks import first_decides, together


class Awkward(RuntimeError):
    """Cannot be made from its message alone, so not be sent as it is."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def fail(error):
    raise error


def run_on(rank, model, directory, broken, exact=True):
    """A run whose example cannot be made on process ``broken``."""
    run = run_of(model, directory, exact=exact, progress=Progress(rank=rank, world_size=2))
    if rank == broken:
        run.labelled_example = lambda: fail(SelfTestError("no batch can be made"))
        run.double_example = lambda count: fail(ValueError("no double model can be made"))
    return run


def engine_fails(rank, directory):
    plugin = HintPlugin(HintConfig(hessian_selftest=False))
    plugin.training_started(run_on(rank, ToyPotential(), directory, broken=0))


def engine_is_shared(rank, directory):
    plugin = HintPlugin(HintConfig(hessian_selftest=False))
    plugin.training_started(run_on(rank, ToyPotential(), directory, broken=1))
    names = [None, None]
    dist.all_gather_object(names, plugin.engine_name)
    assert names[0] == names[1]
    return "shared"


def first_engine_is_shared(rank, directory):
    plugin = HintPlugin(HintConfig(hessian_selftest=False, hessian_reproducible=True))
    plugin.training_started(run_on(rank, ToyPotential(), directory, broken=1))
    assert plugin.engine_name == "vmap"
    return "shared"


def self_test_fails(rank, directory):
    HintPlugin().training_started(run_on(rank, ToyPotential(), directory, broken=1))


def validation_fails(rank, directory):
    model = ToyPotential().double()
    graphs = labelled(model)
    graphs.stored = [{}, {}]
    if rank == 1:
        with torch.no_grad():
            model.first.weight[0, 0] = float("nan")
        graphs.view.graph = None
    plugin = HintPlugin(HintConfig(hessian_engine="reverse", hessian_metrics="probes"))
    plugin.validation_metrics(model=model, loader=[graphs], progress=Progress(rank=rank, world_size=2))


def exit_of_the_first(rank, directory):
    first_decides(lambda: sys.exit("bad file"))


def awkward_error(rank, directory):
    together(lambda: fail(Awkward("this", "that")) if rank == 1 else None)


def nothing_fails(rank, directory):
    assert together(lambda: rank) == rank
    assert first_decides(lambda: rank + 7) == 7
    return "fine"


CASES = {
    engine_fails: "SelfTestError: no batch can be made",
    engine_is_shared: "shared",
    first_engine_is_shared: "shared",
    self_test_fails: "ValueError: no double model can be made",
    validation_fails: f"{NotFiniteError.__name__}: the model's Hessian is not finite for labelled structure 0",
    exit_of_the_first: "SystemExit: bad file",
    awkward_error: "RuntimeError: Awkward: this and that",
    nothing_fails: "fine",
}


def work(rank, directory):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{directory}/store",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=60),
    )
    for case in CASES:
        try:
            said = case(rank, directory)
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {error}"
        Path(directory, f"{case.__name__}-{rank}").write_text(said or "nothing")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Both processes go through all cases, one after the other."""
    directory = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(work, (str(directory),), nprocs=2)
    return directory


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_both_processes_end_alike(case, said):
    for rank in range(2):
        assert (said / f"{case.__name__}-{rank}").read_text().startswith(CASES[case])


def test_alone_nothing_is_sent():
    assert first_decides(lambda: 3) == together(lambda: 3) == 3
    with pytest.raises(Awkward, match="this and that"):
        together(lambda: fail(Awkward("this", "that")))
