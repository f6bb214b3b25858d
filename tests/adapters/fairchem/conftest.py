"""The fairchem adapter's tests, left out where fairchem-core is not installed (``make env-fairchem`` installs it)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

collect_ignore_glob = [] if find_spec("fairchem") else ["test_*.py"]


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in Path(item.fspath).parents:
            item.add_marker(pytest.mark.fairchem)


@pytest.fixture(scope="session", autouse=True)
def process_group(tmp_path_factory):
    """The host trains through DDP also on one process."""
    import torch.distributed as dist

    path = tmp_path_factory.mktemp("gloo") / "store"
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(scope="session")
def stores(tmp_path_factory) -> SimpleNamespace:
    """Training (every second structure labelled) and validation sets of small molecules."""
    from helpers.structures import labelled_set

    from hint_plugins.storage.store import write_structures

    folder = tmp_path_factory.mktemp("stores")
    train, valid = labelled_set(12, every=2, seed=0), labelled_set(5, every=2, seed=1)
    write_structures(folder / "train.aselmdb", train)
    write_structures(folder / "valid.aselmdb", valid)
    return SimpleNamespace(
        train=folder / "train.aselmdb", valid=folder / "valid.aselmdb", train_set=train, valid_set=valid
    )


@pytest.fixture
def make_run(stores, tmp_path):
    """Factory: ``make_run("hint.hessian_weight=1", config=..., start=...)``."""
    from helpers.fairchem_run import build

    return lambda *overrides, **options: build(stores, tmp_path, *overrides, **options)


@pytest.fixture
def alone(process_group, tmp_path):
    """The host's own launcher makes the process group: put ours away for the test."""
    import torch.distributed as dist

    dist.destroy_process_group()
    yield
    if dist.is_initialized():
        dist.destroy_process_group()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'again'}", rank=0, world_size=1)
