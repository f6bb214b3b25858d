"""Plugins of another package: one that works, one that does not."""

import numpy as np
from pydantic import BaseModel

from hint_plugins.hookspecs import hookimpl


class OtherOptions(BaseModel):
    other_strength: float = 1.0


class Other:
    """A plugin of another package."""

    @hookimpl
    def add_options(self, options):
        options.add("other", OtherOptions)

    @hookimpl
    def register_probe_laws(self):
        return {"ones": lambda count, dim, rng: np.ones((count, dim))}

    @hookimpl
    def register_engines(self):
        return {"other_engine": lambda view, probes, create_graph=True: probes}

    @hookimpl
    def register_schedules(self):
        return {"late": lambda x: float(x > 0.9)}


class Broken:
    @hookimpl
    def loss_terms(self, model, batch, predictions, progress, unknown):
        return {}
