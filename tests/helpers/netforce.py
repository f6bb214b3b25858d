"""A plugin of somebody else: a loss term and a metric, without touching this repository."""

from pydantic import BaseModel, Field

from hint_plugins.hookspecs import hookimpl


class NetForceOptions(BaseModel):
    netforce_weight: float = Field(1.0, ge=0, description="Weight of the squared net force, (eV/A)^2.")


class NetForce:
    def __init__(self):
        self.weight = 1.0

    @hookimpl
    def add_options(self, options):
        options.add("netforce", NetForceOptions)

    @hookimpl
    def configure(self, values):
        self.weight = values["netforce_weight"]

    @hookimpl
    def loss_terms(self, batch):
        net = batch.forces.new_zeros(batch.num_graphs, 3).index_add(0, batch.batch, batch.forces)
        return {"netforce": self.weight * net.square().sum(dim=1).mean()}

    @hookimpl
    def validation_metrics(self, progress):
        return {"netforce_steps": float(progress.step)}
