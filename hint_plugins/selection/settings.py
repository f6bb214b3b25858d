"""Settings of whoever chooses or displaces structures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hint_plugins.settings import Settings


class DisplaceSettings(Settings):
    """How structures are displaced."""

    method: Literal["gaussian", "normal-modes", "path"] = Field(
        "gaussian",
        description="gaussian: every coordinate by a normal deviate (crystals, molecules); normal-modes: harmonic "
        "samples of molecules; path: geodesic path between every first and second structure.",
    )
    count: int = Field(
        30,
        ge=1,
        description="Number of structures made from each one (path: images, end points included). Raise it for larger "
        "training sets.",
    )
    sigma: float = Field(
        0.4,
        description="gaussian: standard deviation of every coordinate, A. Lower it for stiff crystals and molecules "
        "(0.05 to 0.1).",
    )
    keep_centre: bool = Field(
        True,
        description="gaussian: take the mean displacement away, so that the structure as a whole stays where it is.",
        json_schema_extra={"flags": ["--keep-centre/--free-centre"]},
    )
    temperature: float = Field(
        300.0,
        description="normal-modes: temperature of the samples, K. Raise it for structures farther from the minimum.",
    )
    classical: bool = Field(False, description="normal-modes: classical widths, without zero-point motion.")
    engine: str = Field("xtb", description="normal-modes: label engine for the Hessians of structures that carry none.")
    seed: int = Field(0, ge=0, description="Seed of the displacements. Change it for other displacements.")


class SelectSettings(Settings):
    """How structures are chosen."""

    method: str = Field(
        "density",
        description="density: rare environments more often (SOAP); energy: by energy above the lowest isomer; random; "
        "or the name of a plugin's selector.",
    )
    fraction: float = Field(0.1, description="Part of the structures to choose, for energies and forces, 0 to 1.")
    hessian_fraction: float = Field(
        1.0,
        description="Part of the chosen ones, drawn at random, that is to get Hessians, 0 to 1. Lower it when "
        "Hessians are expensive.",
    )
    end: str = Field("top", description="energy: top (high energies, transition states) or bottom.")
    neighbours: int = Field(
        10, description="density: number of neighbours that set the local density. Raise it for dense data sets."
    )
    components: int = Field(
        32, description="Principal components of SOAP that are kept. Raise it for data sets of many elements."
    )
    r_cut: float = Field(5.0, description="Cutoff radius of SOAP, A. Use the cutoff of the model that will be trained.")
    map_plot: bool = Field(
        True,
        description="Draw the map of the structures in two dimensions (needs SOAP for energy and random, too).",
        json_schema_extra={"flags": ["--map/--no-map"]},
    )
    output_format: Literal["extxyz", "aselmdb"] = Field("extxyz", description="Format of the chosen structures.")
    seed: int = Field(0, ge=0, description="Seed of the draws. Change it for another choice of the same size.")
