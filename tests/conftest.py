"""Fixtures of all tests."""

from __future__ import annotations

import pytest
import torch
from helpers.devices import HAS_GPU
from helpers.pretend_gpu import pretend_gpu, register


def pytest_configure(config):
    if not HAS_GPU:
        register()


def on_gpu(item) -> bool:
    """Whether a test, or a fixture that it takes, has a parameter ``cuda``."""
    parameters = getattr(item, "callspec", None)
    return parameters is not None and any(isinstance(v, str) and v == "cuda" for v in parameters.params.values())


def pytest_collection_modifyitems(config, items):
    """Leave out what a test is not run with on a pretend GPU."""
    if HAS_GPU:
        return
    dropped = []
    for item in items:
        wanted = [marker.kwargs for marker in item.iter_markers("pretend_gpu_with")] if on_gpu(item) else []
        given = item.callspec.params if wanted else {}
        if any(given[name] != value for values in wanted for name, value in values.items()):
            dropped.append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


@pytest.fixture(autouse=True)
def default_dtype():
    """Tests of the hosts may leave another one, and runs that are begun and not ended another mode."""
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float32)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def gpu_counts(request):
    """A test with a parameter ``cuda`` runs on the GPU, or on a pretend one, whose counts these are; else None."""
    if HAS_GPU or not on_gpu(request.node):
        yield None
        return
    for marker in request.node.iter_markers("needs_real_gpu"):
        pytest.skip(marker.args[0])
    with pretend_gpu() as counts:
        yield counts
