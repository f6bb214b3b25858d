"""MACE through its adapter passes what every energy model must."""

from typing import ClassVar

import pytest
import torch

pytest.importorskip("mace")

from conformance.suite import EnergyModelSuite
from helpers.mace import tiny_mace

from hint_mace.host import MaceEnergyModel

pytestmark = pytest.mark.mace


@pytest.fixture(autouse=True)
def double_precision():
    """MACE takes its precision from torch's default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class TestMace(EnergyModelSuite):
    elements: ClassVar[tuple[int, ...]] = (1, 6, 8)
    all_parameters_used = False

    def make(self):
        return MaceEnergyModel(tiny_mace())
