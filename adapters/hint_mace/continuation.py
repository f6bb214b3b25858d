"""How a training run is continued: what stands beside a checkpoint, written and taken up again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from mace.tools import CheckpointHandler, CheckpointState

from hint_mace.checkpoint import write_checkpoint

if TYPE_CHECKING:
    from hint_mace.session import Session

log = logging.getLogger(__name__)


def restart(session: Session) -> None:
    """Continue with the epoch after the checkpoint's, its average and its plugin state."""
    path, content = getattr(session.call["checkpoint_handler"].io, "hint_loaded", (None, None))
    if content is None:
        if path is not None:
            log.warning(
                "%s was written without plugins: its epoch is trained again, and moving average, history and "
                "plugin state start anew",
                path,
            )
        return
    session.adapter.accept_changes(content.get("data", {}), session.data)
    session.continued = True
    session.epoch = content["epoch"] + 1
    session.call["start_epoch"] = session.epoch
    session.history = content["history"]
    session.manager.hook.restore_state(state=content["plugins"])
    ema = session.call.get("ema")
    if ema is not None and content["ema"] is not None:
        ema.load_state_dict(content["ema"])
        if ema.collected_params is not None:
            ema.restore()
    swa = session.call.get("swa")
    if content["valid_loss"] is not None and (swa is None or session.epoch < swa.start):
        session.call["lr_scheduler"].step(metrics=content["valid_loss"])
    log.info("restarted after epoch %d", content["epoch"])


def save_beside(session: Session) -> None:
    """Let MACE write checkpoints whole or not at all, each with a file beside it."""
    handler: CheckpointHandler = session.call["checkpoint_handler"]

    def save(state: CheckpointState, epochs: int, keep_last: bool = False) -> None:
        checkpoint = handler.builder.create_checkpoint(state)
        write_checkpoint(handler.io, checkpoint, run_state(session), epochs, keep_last)

    session.adapter.patches.put(handler, "save", save)


def run_state(session: Session) -> dict[str, Any]:
    """What stands beside a checkpoint: numbers, text and tensors."""
    ema = session.call.get("ema")
    state: dict[str, Any] = {}
    for part in session.manager.hook.checkpoint_state():
        state.update(part or {})
    return {
        "epoch": session.epoch,
        "settings": session.adapter.settings,
        "data": session.data,
        "ema": None if ema is None else ema.state_dict(),
        "plugins": state,
        "history": session.history,
        "valid_loss": session.last_valid_loss,
    }
