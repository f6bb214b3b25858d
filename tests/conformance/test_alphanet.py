"""AlphaNet's smooth network passes the suite, small and with strongly randomised parameters."""

import torch
from conformance.suite import EnergyModelSuite

from hint_plugins.models.alphanet import AlphaNet

SMALL = {
    "num_layers": 3,
    "hidden_channels": 16,
    "num_radial": 5,
    "main_chi1": 4,
    "mp_chi1": 6,
    "chi2": 3,
    "frame_channels": 6,
    "cutoff": 4.0,
    "elements": (1, 6, 8),
}


class TestSmooth(EnergyModelSuite):
    elements = (1, 6, 8)

    def make(self) -> torch.nn.Module:
        return AlphaNet(**SMALL)


class TestSmoothRandomised(EnergyModelSuite):
    """Every parameter away from its initial value, biases included: what training may reach."""

    elements = (1, 6, 8)

    def make(self) -> torch.nn.Module:
        model = AlphaNet(**SMALL, scale=2.0).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.5 * parameter.abs().mean().clamp(min=0.3) * torch.randn_like(parameter))
        return model
