"""How a reaction path is relaxed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hint_plugins.settings import Settings


class BandSettings(Settings):
    """Settings of a climbing-image nudged elastic band."""

    images: int = Field(
        15,
        ge=3,
        description="Images of the path, end points included. Rodriguez et al. take 58. Raise it for long paths with "
        "several barriers.",
    )
    spring: float = Field(
        1.0, gt=0, description="Spring constant between images, eV/A^2. Raise it when images gather at the end points."
    )
    fmax: float = Field(
        0.05,
        gt=0,
        description="Largest force on the band at which it counts as converged, eV/A. Lower it when energies along "
        "the path must be exact.",
    )
    steps: int = Field(
        500, ge=1, description="Largest number of steps of the band. Raise it when the band has not converged."
    )
    optimizer: Literal["fire", "lbfgs"] = Field(
        "fire",
        description="Optimizer of the band: fire (FIRE 2.0, robust) or lbfgs (faster near the end). Use lbfgs when "
        "fire needs too many steps.",
    )
    end_point_fmax: float = Field(
        0.01,
        ge=0,
        description="Largest force at the relaxed end points, eV/A; 0 leaves them as they are. Lower it when end "
        "points must be exact minima.",
    )
    seed: int = Field(
        0, ge=0, description="Seed of the random nudges in the interpolation. Change it when the interpolation fails."
    )
    width: float = Field(
        25.0,
        gt=0,
        description="Width of a line in the picture of the frequencies, cm^-1. Lower it to separate neighbouring "
        "lines.",
    )
