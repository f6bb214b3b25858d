"""How a model for one crystal is trained."""

from __future__ import annotations

from pydantic import Field

from hint_plugins.settings import Settings


class FinetuneSettings(Settings):
    """Settings of a training on one supercell Hessian and a few displaced cells."""

    compare_without: bool = Field(
        False,
        description="Train a second model without Hessians too, and compare. Use it to see what the Hessian brings.",
    )
    epochs: int = Field(
        500,
        ge=1,
        description="Number of epochs; the learning rate falls to a hundredth over them. Raise it while the errors "
        "still fall at the end.",
    )
    valid_fraction: float = Field(0.1, gt=0, lt=1, description="Part of the displaced cells kept for validation.")
    max_energy: float | None = Field(
        4.0,
        description="Leave out cells whose energy is higher than this above the lowest, eV per unit cell.",
    )
    copies: int = Field(
        1,
        ge=1,
        description="How often the supercell occurs in the training set; more copies give it more weight. Raise it "
        "when the unit cells outnumber the supercell by far.",
    )
    stress_weight: float = Field(
        100.0,
        ge=0,
        description="Weight of the stresses in the loss; pressures and relaxed cells depend on it. Raise it when "
        "held-out stresses are off and cells are to be relaxed.",
    )
    seed: int = Field(
        0, ge=0, description="Seed of the split and of the trainer. Change it to see how far the model depends on it."
    )
