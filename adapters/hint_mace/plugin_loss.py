"""MACE's loss function with the plugins' terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from hint_mace.session import Session


class PluginLoss(nn.Module):
    """MACE's loss function plus the plugins' terms; in validation MACE's alone."""

    def __init__(self, base: nn.Module, session: Session) -> None:
        super().__init__()
        self.base = base
        self.session = [session]  # in a list, so that it is no submodule

    def forward(self, ref: Any, pred: dict[str, Tensor], ddp: bool | None = None) -> Tensor:
        """Loss of a batch ``ref`` with predictions ``pred``."""
        loss = self.base(ref=ref, pred=pred) if ddp is None else self.base(ref=ref, pred=pred, ddp=ddp)
        return loss + self.session[0].loss_terms(ref, pred, loss)

    def extra_repr(self) -> str:
        return "with plugin terms"
