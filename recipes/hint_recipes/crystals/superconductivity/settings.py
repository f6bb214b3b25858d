"""Settings of critical temperatures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from hint_plugins.settings import Settings
from hint_recipes.crystals.repetitions import METAVAR, Mesh


class TcSettings(Settings):
    """Settings of critical temperatures from a spectral function alpha2F."""

    mu_star: list[float] = Field(
        [0.1, 0.125],
        description="Coulomb pseudopotential mu*, no unit (usual: 0.1 to 0.15); may be given several times.",
    )
    eliashberg: bool = Field(
        False,
        description="Solve the isotropic Migdal-Eliashberg equations too. Use it for the gap and for strong coupling.",
    )
    temperature: list[float] = Field(
        [],
        description="With --eliashberg: temperature at which the gap is computed, K; may be given several times "
        "[default: twelve between 0.2 and 0.97 Tc].",
    )
    cutoff: float = Field(
        10.0,
        gt=0,
        description="Matsubara cutoff of the Migdal-Eliashberg equations, in highest phonon energies. Raise it to see "
        "that Tc no longer changes.",
    )
    rescale_mu: bool = Field(
        True,
        description="Bring mu* from the highest phonon energy, where the formula of Allen and Dynes takes it, to the "
        "cutoff of the Migdal-Eliashberg equations. Switch it off for a mu* that is given at the cutoff.",
    )

    @field_validator("mu_star")
    @classmethod
    def _allowed(cls, values: list[float]) -> list[float]:
        if not values:
            raise ValueError("give at least one --mu-star")
        if wrong := [mu for mu in values if not 0 <= mu < 1]:
            raise ValueError(f"--mu-star {wrong[0]}: mu* is at least 0 and below 1")
        return values


class ReadingSettings(Settings):
    """How files of spectral functions are read."""

    unit: Literal["meV", "eV", "Ry", "Ha", "THz", "cm-1", "K"] | None = Field(
        None,
        description="Unit of the frequencies (meV, eV, Ry, Ha, THz, cm-1, K) [default: what the file states]. Give it "
        "for files that state none.",
    )
    column: int = Field(
        1, ge=1, description="Number of the alpha2F column, from 1. EPW and lambda.x write one per smearing."
    )
    clip_negative: bool = Field(
        False,
        description="Set negative values of alpha2F to zero instead of refusing them. Use it for noise only.",
    )


class CouplingSettings(Settings):
    """How the electron-phonon coupling of Quantum ESPRESSO is put on other phonons."""

    broadening: int = Field(
        3,
        ge=1,
        description="Number of the electronic broadening in the files of ph.x, from 1. Choose one where lambda is flat "
        "(--converge shows it).",
    )
    route: Literal["auto", "matdyn", "projected"] = Field(
        "auto",
        description="How the coupling is put on other phonons: matdyn (stock Quantum ESPRESSO, exact), projected "
        "(mode-resolved couplings; loses couplings between modes), or auto: matdyn where its files and programs are "
        "there.",
    )
    mesh: Mesh = Field(
        (12, 12, 12),
        description="q mesh of the matdyn route. Raise it until lambda no longer changes.",
        json_schema_extra={"metavar": METAVAR, "text": "12x12x12"},
    )
    smearing: float = Field(
        1.0, description="Gaussian width of alpha2F in the projected route, meV. Lower it for dense q grids."
    )
    converge: bool = Field(
        False,
        description="With --elph-dir: also vary broadening, q mesh and cutoff, one at a time, at the first mu* "
        "(convergence.csv, convergence.png). Use it before you quote a critical temperature.",
    )
    prepare_only: bool = Field(
        False,
        description="matdyn route: write the inputs and do not run. Use it where Quantum ESPRESSO is on another "
        "machine.",
    )

    @field_validator("smearing")
    @classmethod
    def _positive(cls, value: float) -> float:
        if not value > 0:
            raise ValueError(f"--smearing must be positive, not {value}")
        return value
