"""What a run keeps beside the host's checkpoints, and what a resumed one takes up again."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

#: File beside the checkpoints with what a resumed run must know (engine, scale of the loss).
STATE_FILE = "hint_state.json"
#: File in the folder of results: one row a validation.
HISTORY_FILE = "hessian_metrics.csv"


def kept_state(checkpoint: Path) -> dict[str, Any] | None:
    """State that the run of a checkpoint folder kept; None, with a warning, when there is none."""
    path = checkpoint.resolve().parent / STATE_FILE
    if not path.is_file():
        log.warning("%s is missing: engine and balance of the Hessian loss are chosen anew", path)
        return None
    return json.loads(path.read_text())


def kept_history(checkpoint: Path, step: int) -> list[dict[str, Any]]:
    """Rows of the metrics of a checkpoint's run up to the step it was made at."""
    path = checkpoint.resolve().parent.parent / "results" / HISTORY_FILE
    if not path.is_file():
        log.warning("%s is missing: the Hessian metrics of the earlier run are not continued", path)
        return []
    with path.open(newline="") as handle:
        rows = [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(handle)]
    return [{**row, "step": int(row["step"])} for row in rows if row["step"] <= step]
