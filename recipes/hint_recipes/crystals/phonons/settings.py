"""Settings of harmonic phonons."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import Field

from hint_plugins.settings import Settings
from hint_recipes.crystals.repetitions import MATRIX_METAVAR, METAVAR, Mesh, Supercell


class PhononSettings(Settings):
    """Settings of harmonic phonons from supercell Hessians."""

    supercell: Supercell = Field(
        (2, 2, 2),
        description="Repetitions of the unit cell, or nine numbers: phonopy's supercell matrix, row by row. Raise it "
        "until bands and free energy no longer change.",
        json_schema_extra={"metavar": MATRIX_METAVAR, "text": "2x2x2"},
    )
    relax: Literal["none", "positions", "cell"] = Field(
        "none",
        description="Relax with the model first, keeping the symmetry: none, positions, or cell (positions and cell). "
        "Use it when the given structure is not the model's own minimum.",
    )
    pressure: float = Field(
        0.0, description="Pressure to which --relax cell relaxes, GPa. Change it for a crystal under pressure."
    )
    symmetrize: bool = Field(
        True, description="Average the force constants over the space group. Switch it off to see a model's own."
    )
    asr: bool = Field(
        True, description="Impose the acoustic sum rule: no force when the whole crystal moves. Switch it off to see "
        "how far a model or a file violates it.",
    )  # fmt: skip
    mesh: Mesh = Field(
        (12, 12, 12),
        description="q mesh for density of states and free energy. Raise it until the free energies of the mesh and of "
        "half the mesh, which summary.json gives both, agree.",
        json_schema_extra={"metavar": METAVAR, "text": "12x12x12"},
    )
    t_max: float = Field(
        1000.0,
        ge=0,
        description="Highest temperature of the thermal properties, K. Raise it for properties at higher temperatures.",
    )
    t_step: float = Field(
        100.0,
        gt=0,
        description="Step between the temperatures of the thermal properties, K. Lower it for smoother curves.",
    )
    dos_width: float = Field(
        10.0, gt=0, description="Gaussian width of the density of states, cm^-1. Lower it with a denser mesh."
    )

    born: Path | None = Field(
        None,
        description="Born effective charges and dielectric tensor, for the splitting of longitudinal and transverse "
        "modes: BORN or yaml of phonopy, q2r .fc, dyn1 of ph.x, vasprun.xml or OUTCAR of VASP [default: those of the "
        "reference's file, if it holds any]. Give it for every crystal that is not a metal and not elemental.",
    )

    @property
    def temperatures(self) -> list[float]:
        """Temperatures of the thermal properties, K."""
        return [i * self.t_step for i in range(math.ceil((self.t_max + self.t_step / 2) / self.t_step))]
