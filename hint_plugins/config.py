"""Every option of HINT training, once: flags, YAML keys and their help are generated from here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hint_plugins.objective.curriculum import Curriculum
from hint_plugins.objective.loss import LossKind
from hint_plugins.registries import registries
from hint_plugins.settings import ConfigError, sentences


class HintConfig(BaseModel):
    """Options of Hessian-informed training. Units: eV, Angstrom."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    hessian_key: str = Field(
        "REF_hessian",
        description="Key of the Hessian label: flat 9N^2 numbers in eV/A^2, row-major; or KEY_columns with "
        "KEY_column_indices, KEY_probes with KEY_products, or KEY_block with KEY_block_indices.",
    )
    hessian_weight: float = Field(
        0.1,
        ge=0,
        description="Weight w_H of the Hessian loss after the ramp. Raise it when Hessian errors stall while forces "
        "still improve, lower it when forces suffer.",
    )
    hessian_weight_start: float = Field(
        0.0, ge=0, description="Weight w_0 before the ramp. Raise it to see Hessians from the first step."
    )
    hessian_ramp_start: float = Field(
        0.0,
        ge=0,
        description="Where the ramp begins (see hessian_ramp_unit). Move it later when energies and forces must be "
        "sound first.",
    )
    hessian_ramp_end: float | None = Field(
        None, ge=0, description="Where the ramp ends (see hessian_ramp_unit); default: half of the run."
    )
    hessian_ramp_unit: Literal["epochs", "steps"] = Field(
        "epochs",
        description="Unit of ramp start and end: epochs (fractions allowed) or optimiser steps. Use steps where the "
        "length of an epoch changes.",
    )
    hessian_schedule: str = Field(
        "linear",
        description="Shape of the ramp: linear, cosine, step or constant. Use constant when training continues from a "
        "model that knows Hessians.",
    )
    hessian_probes: str = Field(
        "rademacher", description="Law of the probes: rademacher, gaussian, columns (one-hot) or orthogonal."
    )
    hessian_num_probes: int = Field(
        5,
        ge=1,
        description="Probes m per structure and step. Raise it when few structures are labelled; each costs a product "
        "per structure.",
    )
    hessian_part: Literal["all", "active", "intermolecular"] = Field(
        "all",
        description="Part of the Hessian that is compared: all; active, the rows and columns of an active region; or "
        "intermolecular, the entries between different molecules (split at random into sources and receivers for every "
        "probe), which are small beside those of bonds.",
    )
    hessian_part_key: str | None = Field(
        None,
        description="Array in the structure file with one integer per atom: 1 in the active region and 0 elsewhere; or "
        "the number of the molecule. Default: active, or molecule where there is such an array; otherwise molecules "
        "are found by their bonds.",
    )
    hessian_engine: str = Field(
        "auto",
        description="Hessian-vector products: auto (the exact one that is fastest on the largest labelled batch), "
        "reverse, replicate, vmap, "
        "finite_difference, finite_difference_one_sided.",
    )
    hessian_reproducible: bool = Field(
        False,
        description="Two runs agree to the last digit: the engine auto takes the first of vmap, replicate and reverse "
        "that runs, without measuring, and torch takes deterministic kernels (slower; an error where there is none).",
    )
    hessian_fd_step: float | None = Field(
        None,
        gt=0,
        description="Displacement of the finite-difference engines, A; default by dtype. Change it only when hint "
        "doctor shows a better one.",
    )
    hessian_loss: LossKind = Field("mse", description="Function of the product errors: mse, mae, huber or norm.")
    hessian_huber_delta: float = Field(
        1.0, gt=0, description="Where huber turns linear, eV/A^2. Lower it when few labels with large errors dominate."
    )
    hessian_symmetry_weight: float = Field(
        0.0, ge=0, description="Weight of the penalty ||(J - J^T) z||^2 for direct-force models."
    )
    hessian_balance: float | None = Field(
        None,
        gt=0,
        description="Set the scale of the Hessian loss so that, at weight 1, its first value is this multiple of the "
        "energy and force loss there; hessian_weight then multiplies the scaled loss.",
    )
    hessian_batch_fraction: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of labelled structures in the batches that hold any; such batches are spread evenly over "
        "the epoch. 1 groups them in batches of their own. Default: plain shuffling. Use it when few structures are "
        "labelled, so that fewer steps pay for products.",
    )
    hessian_every: int | None = Field(
        None,
        ge=1,
        description="Put labelled structures into every k-th batch only (instead of a fraction). Use it when labels "
        "are so few that a fraction would fill few batches.",
    )
    hessian_recycle: bool = Field(
        False,
        description="Repeat scarce labelled structures within an epoch until every batch has its share.",
    )
    hessian_on_bad_label: Literal["error", "drop"] = Field(
        "error",
        description="A label that fails its checks: stop with the reason, or drop the label and count it. Use drop "
        "for data that you cannot correct.",
    )
    hessian_metrics: Literal["full", "probes", "none"] = Field(
        "full",
        description="Validation metrics: whole Hessians (MAE, eigenvalues, frequencies, asymmetry) and fixed probes; "
        "probes only; or none. Use probes when whole Hessians make validations slow.",
    )
    hessian_metrics_max: int = Field(
        64,
        ge=1,
        description="Labelled validation structures whose whole Hessian is computed (the first ones). Lower it when "
        "validations are slow.",
    )
    hessian_valid_loss: bool = Field(
        True,
        description="Add w_H times the Hessian loss on fixed probes to the host's validation loss, which chooses the "
        "best checkpoint and drives the learning rate. The weight is the final one, so it does not move with the "
        "ramp. Switch it off to choose the checkpoint by energies and forces alone.",
    )
    hessian_selftest: bool = Field(
        True,
        description="Check second and third derivatives of the model against finite differences before training. "
        "Switch it off only for a model that has passed.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> HintConfig:
        known = registries()
        _known("hessian_schedule", self.hessian_schedule, list(known.schedules))
        _known("hessian_probes", self.hessian_probes, list(known.probe_laws))
        _known("hessian_engine", self.hessian_engine, ["auto", *known.engines])
        if self.hessian_ramp_end is not None and self.hessian_ramp_end < self.hessian_ramp_start:
            raise ValueError(
                f"hessian_ramp_end ({self.hessian_ramp_end:g}) lies before hessian_ramp_start "
                f"({self.hessian_ramp_start:g}): the ramp runs from start to end"
            )
        if self.hessian_batch_fraction is not None and self.hessian_every is not None:
            raise ValueError("hessian_batch_fraction and hessian_every exclude each other: give one")
        if self.hessian_recycle and self.hessian_batch_fraction is None and self.hessian_every is None:
            raise ValueError("hessian_recycle needs hessian_batch_fraction or hessian_every: how much shall be filled?")
        return self

    @property
    def curriculum(self) -> Curriculum:
        """Schedule of the weight."""
        return self.curriculum_until(None)

    def curriculum_until(self, end: float | None) -> Curriculum:
        """Schedule of the weight whose ramp ends at ``end`` where no end was chosen."""
        return Curriculum(
            self.hessian_weight_start,
            self.hessian_weight,
            self.hessian_ramp_start,
            end if self.hessian_ramp_end is None else self.hessian_ramp_end,
            self.hessian_schedule,
            self.hessian_ramp_unit,
        )


def _known(field: str, value: str, names: list[str]) -> None:
    if value not in names:
        raise ValueError(f"unknown {field} {value!r}: known are {', '.join(names)}")


def make_config(model: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    """Validate ``values`` (option names to values) with ``model``.

    Raises
    ------
    ConfigError
        With one line per problem; an unknown name comes with the nearest known one.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigError(sentences(error, list(model.model_fields))) from None
