"""How much of a data set is evaluated."""

from __future__ import annotations

from pydantic import Field

from hint_plugins.settings import Settings


class EvaluateSettings(Settings):
    """Settings of an evaluation."""

    max_hessians: int | None = Field(
        None,
        ge=0,
        description="Largest number of Hessians to compute, a random selection of the labelled structures. Hessians "
        "cost most of the time [default: all]. Lower it for a quick look.",
    )
    seed: int = Field(
        0,
        ge=0,
        description="Seed of the random selections. Change it to see how far the errors depend on the selection.",
    )
