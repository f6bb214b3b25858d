"""Size of the comparison."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from hint_plugins.settings import Settings


class DemoSettings(Settings):
    """Settings of one comparison."""

    structures: int = Field(
        6, ge=2, le=32, description="Training structures per reaction (7 reactions). Lower it for a faster run."
    )
    labelled: int | None = Field(
        None,
        ge=1,
        description="Number of training structures per reaction that carry a Hessian [default: all]. Lower it to see "
        "how few Hessians suffice.",
    )
    steps: int = Field(
        1000,
        ge=1,
        description="Optimiser steps of each training, so that training sets of different size see as many batches. "
        "Raise it for lower errors of both models.",
    )
    weight: float = Field(
        0.1, ge=0, description="Hessian weight w_H after the ramp. Change it to see what the weight does."
    )
    probes: int = Field(
        5, ge=1, description="Random probes per labelled structure and step. Lower it for cheaper steps."
    )
    batch_size: int = Field(6, ge=1, description="Structures per batch. Change it as in a training of your own.")
    model: str = Field("MACE", description="MACE, or a model that a plugin offers (AlphaNet).")

    @model_validator(mode="before")
    @classmethod
    def _all_labelled(cls, values: dict[str, Any]) -> dict[str, Any]:
        given = values.get("labelled")
        return values if given is not None else values | {"labelled": values.get("structures", 6)}

    @model_validator(mode="after")
    def _not_more_than_there_are(self) -> DemoSettings:
        if self.labelled is not None and self.labelled > self.structures:
            raise ValueError(f"labelled is {self.labelled}, but there are only {self.structures} structures")
        return self

    def of_size(self, structures: int) -> DemoSettings:
        """The same with another number of training structures, and at most as many Hessians as now."""
        labelled = min(structures, self.labelled or structures)
        return type(self)(**{**self.model_dump(), "structures": structures, "labelled": labelled})
