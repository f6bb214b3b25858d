"""How data sets are converted."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from hint_plugins.settings import ConfigError, Settings


class ConvertSettings(Settings):
    """Settings of a conversion."""

    format: str = Field(
        "auto",
        description="Format of IN: auto, extxyz, aselmdb, ase (any other format that ASE reads), horm, transition1x, "
        "rgd1, hessian-qm9, deepmd, phonopy, qe-fc, openreact, codes (files of Gaussian, ORCA, VASP, ...) or "
        "module:function.",
    )
    setting: list[str] | None = Field(
        None,
        description="Option of the reader, for example split=train or energy=ae; may be given several times.",
        json_schema_extra={"flags": ["--set"], "metavar": "NAME=VALUE"},
    )
    hessian_unit: Literal["eV/A^2", "Ha/Bohr^2", "Ry/Bohr^2", "eV/Bohr^2"] = Field(
        "eV/A^2", description="Unit of the Hessians in IN: eV/A^2, Ha/Bohr^2, Ry/Bohr^2 or eV/Bohr^2."
    )
    symmetrize: bool = Field(False, description="Write (H + H^T)/2 for whole Hessians and blocks.")
    align_to: Path | None = Field(
        None,
        description="Shift the energies by one constant per element to the scale of this data set, which is of another "
        "level of theory.",
    )
    align_from: Path | None = Field(
        None,
        description="With --align-to: a data set of the same level of theory as IN that gives the constants in its "
        "place, so that several files (training set and test set) get the same ones.",
    )
    on_bad: Literal["drop", "error"] = Field(
        "drop", description="drop: leave bad records out and name them; error: stop at the first one."
    )
    limit: int | None = Field(None, ge=1, description="Largest number of records to read [default: all].")
    metadata: bool = Field(
        False, description="Write metadata.npz (natoms, has_hessian) beside an .aselmdb, for fairchem."
    )

    def model_post_init(self, context: object) -> None:
        if self.align_from is not None and self.align_to is None:
            raise ConfigError("--align-from belongs to --align-to")
