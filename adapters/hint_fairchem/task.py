"""The Hessian loss as a fairchem task: HINT fills in its prediction, the trainer adds it up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairchem.core.modules.normalization.normalizer import Normalizer
from fairchem.core.units.mlip_unit.mlip_unit import OutputSpec, Task
from torch import Tensor, nn

from hint_fairchem.dataset import TARGET
from hint_fairchem.options import no_unknown
from hint_plugins.config import ConfigError


class HessianLoss(nn.Module):
    """Sum of the per-structure shares that the model's outputs carry.

    They are weighted by the curriculum and reduced over all processes already (mean over the labelled
    structures of the global batch, as fairchem's ``DDPMTLoss`` reduces its own losses).
    """

    def forward(self, input: Tensor, target: Tensor, mult_mask: Tensor, natoms: Tensor) -> Tensor:
        """Scalar loss from shares (B, 1); the other arguments are the host's."""
        return input.sum()


class Answered(Normalizer):
    """The task's normaliser, of which the host asks before it looks for the prediction: is the callback there?"""

    answered = False

    def norm(self, tensor: Tensor) -> Tensor:
        """The target as it is.

        Raises
        ------
        ConfigError
            If no callback has come forward to fill in the prediction.
        """
        if not self.answered:
            raise ConfigError(
                "the Hessian task has no callback: add `- {_target_: hint_fairchem.callback.HintCallback, "
                'hint: "${hint}"}` to runner.callbacks'
            )
        return super().norm(tensor)


def hessian_task(datasets: Sequence[str] = (), **unknown: Any) -> Task:
    """The task to add to ``tasks``: ``{_target_: hint_fairchem.task.hessian_task, datasets: [mol]}``.

    Parameters
    ----------
    datasets
        Names of all datasets of the run.

    Raises
    ------
    ConfigError
        For a misspelt key.
    """
    no_unknown("hessian_task", unknown, ["datasets"])
    return Task(
        name=TARGET,
        level="system",
        property=TARGET,
        out_spec=OutputSpec(dim=[1], dtype="float32"),
        normalizer=Answered(mean=0.0, rmsd=1.0),
        datasets=list(datasets),
        loss_fn=HessianLoss(),
        metrics=[],
    )
