"""The suite that is shipped, on the devices of this project's tests: a pretend GPU where there is none."""

import pytest
from helpers.devices import DEVICES

from hint_plugins.testing import energy_model


class EnergyModelSuite(energy_model.EnergyModelSuite):
    @pytest.mark.parametrize("device", DEVICES)
    def test_single_precision_is_close_to_double(self, model, molecule, crystal, device):
        super().test_single_precision_is_close_to_double(model, molecule, crystal, device)

    @pytest.mark.parametrize("device", DEVICES)
    def test_hessian_on_every_device(self, model, molecule, device):
        super().test_hessian_on_every_device(model, molecule, device)
