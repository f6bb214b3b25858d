"""How a transition state is searched."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hint_plugins.settings import Settings


class SearchSettings(Settings):
    """Settings of a transition-state search."""

    path: Literal["auto", "geodesic", "neb", "gsm"] = Field(
        "auto",
        description="Where the guess comes from: neb (geodesic interpolation, then a loose climbing-image band), "
        "geodesic (highest image of the interpolation), auto (neb; when that leads to no intended saddle, geodesic), "
        "gsm (growing string of pysisyphus, which must be installed).",
    )
    saddle: Literal["sella", "rsirfo"] = Field(
        "sella",
        description="Saddle search: sella (P-RFO) or rsirfo (RS-I-RFO of pysisyphus); both use the model's Hessian.",
    )
    images: int = Field(
        11, ge=3, description="Images of the path, end points included. Raise it for reactions with long paths."
    )
    band_fmax: float = Field(
        0.5,
        gt=0,
        description="Largest force at which the band stops, eV/A. Lower it when saddle searches start too far from "
        "the saddle.",
    )
    band_steps: int = Field(
        60, ge=1, description="Largest number of steps of the band. Raise it when the band stops before its force does."
    )
    end_point_fmax: float = Field(
        0.01,
        gt=0,
        description="Largest force at a relaxed end point, eV/A. Lower it when end points must be exact minima.",
    )
    end_point_steps: int = Field(
        1000,
        ge=1,
        description="Largest number of steps of an end point's relaxation. Raise it for end points far from a minimum.",
    )
    saddle_fmax: float = Field(
        0.01, gt=0, description="Largest force at a saddle, eV/A. Lower it when Gibbs energies follow."
    )
    saddle_steps: int = Field(
        200,
        ge=1,
        description="Largest number of steps of the saddle search. Raise it when searches end without a saddle.",
    )
    irc_steps: int = Field(
        100,
        ge=1,
        description="Largest number of steps of the reaction coordinate, each way. Raise it when the reaction "
        "coordinate ends before a minimum.",
    )
    irc_step: float = Field(
        0.1,
        gt=0,
        description="Length of a step of the reaction coordinate, amu^(1/2) A. Lower it when the reaction coordinate "
        "leaves the valley.",
    )
    imaginary_threshold: float = Field(
        10.0, ge=0, description="A mode counts as imaginary when it is below minus this, cm^-1."
    )
    max_seconds: float = Field(
        3600.0, ge=0, description="Time limit per reaction, s. Raise it for large molecules and slow potentials."
    )
    seed: int = Field(
        0, ge=0, description="Seed of the random nudges in the interpolation. Change it when the interpolation fails."
    )

    @property
    def needs_pysisyphus(self) -> bool:
        """Whether a part is asked for that only pysisyphus has."""
        return self.path == "gsm" or self.saddle == "rsirfo"
