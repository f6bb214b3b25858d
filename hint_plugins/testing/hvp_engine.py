"""What every engine of Hessian-vector products must do. Subclass :class:`HvpEngineSuite`.

    from hint_plugins.testing.hvp_engine import HvpEngineSuite

    class TestMine(HvpEngineSuite):
        engine = staticmethod(my_engine)

The engine works on a small smooth many-body potential in float64 (:mod:`hint_plugins.testing.toy`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from hint_plugins.curvature.engines import ForceView
from hint_plugins.testing.toy import ToyPotential, toy_view

#: Atoms of the structures of the batch.
SIZES = (3, 1, 4)


class HvpEngineSuite:
    """Tests of one engine; see the module's docstring."""

    #: The engine.
    engine: ClassVar[Callable]
    #: Largest relative error of the products.
    tolerance = 1e-6
    #: Largest relative error of the parameter gradient of a squared product; None where it is not exact.
    gradient_tolerance: float | None = 1e-6

    def view(self) -> tuple[ToyPotential, ForceView]:
        """A fresh potential and the view of a batch of structures."""
        torch.manual_seed(0)
        model = ToyPotential().double()
        return model, toy_view(model, torch.randn(sum(SIZES), 3, dtype=torch.float64), SIZES)

    def probes(self, count: int) -> Tensor:
        """Directions (count, n, 3)."""
        return torch.randn(count, sum(SIZES), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def test_products_equal_differences_of_forces(self):
        _, view = self.view()
        probes, step = self.probes(4), 1e-4
        ahead, behind = (view.forces_at(view.positions + sign * step * probes).detach() for sign in (1, -1))
        expected = (behind - ahead) / (2 * step)
        found = self.engine(self.view()[1], probes)
        assert found.shape == probes.shape
        assert float((found - expected).abs().max() / expected.abs().max()) < self.tolerance
        assert found.requires_grad

    def test_the_gradient_of_a_squared_product_equals_differences(self):
        if self.gradient_tolerance is None:
            return
        model, _ = self.view()
        probes = self.probes(2)
        weights = list(model.parameters())
        directions = [torch.randn_like(w) for w in weights]

        def loss(shift: float) -> Tensor:
            model, view = self.view()
            with torch.no_grad():
                for weight, direction in zip(model.parameters(), directions, strict=True):
                    weight.add_(direction, alpha=shift)
            value = self.engine(view, probes).square().sum()
            if shift:
                return value.detach()
            gradients = torch.autograd.grad(value, list(model.parameters()), allow_unused=True, materialize_grads=True)
            return sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))

        numeric = (loss(1e-5) - loss(-1e-5)) / 2e-5
        assert float(abs(numeric - loss(0.0)) / abs(numeric)) < self.gradient_tolerance

    def test_products_are_linear_in_the_probes(self):
        one, other = self.probes(2)
        made = self.engine(self.view()[1], torch.stack([one, other, one + 2 * other]))
        error = (made[0] + 2 * made[1] - made[2]).abs().max() / made[2].abs().max()
        assert float(error) < max(self.tolerance, 1e-10)

    def test_without_a_graph_nothing_is_kept(self):
        assert not self.engine(self.view()[1], self.probes(1), create_graph=False).requires_grad
