"""A plugin for the trainer that measures what a training costs: processor time and Hessian-vector products.

Named beside ``hint`` (``--plugins hint,cost``); the numbers go into checkpoints, so those of a run that was killed and
continued are those of the work that counted. ``NAME_cost.json`` in the folder of results holds them after the run.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from hint_plugins.hookspecs import hookimpl


class CostMeter:
    """Counts from the first step on: imports, reading of data and self-tests are left out."""

    def __init__(self) -> None:
        self.products = self.steps = 0
        self.before = 0.0  #: s, of the parts of the run before this process
        self.started: float | None = None

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all threads since the first step, validation included."""
        return self.before + (0.0 if self.started is None else time.process_time() - self.started)

    @hookimpl
    def loss_terms(self, batch: Any) -> dict:
        if self.started is None:
            self.started = time.process_time()
        self.steps += 1
        if batch.labelled is not None and "drawn_probes" in batch.labelled.labels:
            self.products += batch.labelled.num_graphs * batch.labelled.labels["drawn_probes"].shape[1]
        return {}

    @hookimpl
    def checkpoint_state(self) -> dict[str, Any]:
        return {"cost": {"products": self.products, "steps": self.steps, "cpu_seconds": self.cpu_seconds}}

    @hookimpl
    def restore_state(self, state: Any) -> None:
        mine = state.get("cost", {})
        self.products, self.steps = mine.get("products", 0), mine.get("steps", 0)
        self.before = mine.get("cpu_seconds", 0.0)

    @hookimpl
    def training_finished(self, run: Any) -> None:
        cost = {"products": self.products, "steps": self.steps, "cpu_seconds": round(self.cpu_seconds, 2)}
        Path(run.directory, f"{run.name}_cost.json").write_text(json.dumps(cost | {"epochs": run.progress.max_epochs}))
