import pytest
import torch


@pytest.fixture(autouse=True)
def double_precision():
    """MACE takes its precision from torch's default."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
