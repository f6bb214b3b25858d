"""Devices that tests run on; where there is no GPU, a pretend one stands in (see :mod:`helpers.pretend_gpu`)."""

from __future__ import annotations

import pytest
import torch

HAS_GPU = torch.cuda.is_available()
DEVICES = ["cpu", pytest.param("cuda", id="cuda" if HAS_GPU else "pretend")]
