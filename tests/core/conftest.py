import pytest
import torch


@pytest.fixture(autouse=True)
def _default_dtype():
    torch.set_default_dtype(torch.float32)  # tests of the hosts may leave another one
    yield
    torch.set_default_dtype(torch.float32)
    torch.use_deterministic_algorithms(False)  # runs that are begun and not ended
