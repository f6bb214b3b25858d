"""Conditions and approximations of a Gibbs energy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hint_plugins.settings import Settings


class GibbsSettings(Settings):
    """Settings of Gibbs energies in the rigid-rotor/harmonic-oscillator approximation (harmonic with frozen atoms)."""

    temperature: float = Field(298.15, gt=0, description="Temperature, K. Set it to that of the experiment.")
    pressure: float = Field(
        101325.0, gt=0, description="Pressure of the ideal gas, Pa. Set it to that of the experiment."
    )
    quasi_harmonic: Literal["none", "grimme", "truhlar"] = Field(
        "none",
        description="Entropy of low modes, for floppy molecules: none (harmonic), grimme (interpolation to a free "
        "rotor, Chem. Eur. J. 18, 9955 (2012)) or truhlar (modes below the cutoff are raised to it, "
        "J. Phys. Chem. B 115, 14556 (2011)). Structures with frozen atoms take none or truhlar.",
    )
    cutoff: float = Field(
        100.0,
        gt=0,
        description="Frequency below which quasi_harmonic acts, cm^-1. Lower it to trust softer modes as harmonic "
        "ones.",
    )
    symmetry_tolerance: float = Field(
        0.02,
        gt=0,
        description="How far atoms may be from a symmetric place, for the symmetry number and for linearity, A. "
        "Raise it for geometries that are relaxed loosely.",
    )
    relax: bool | None = Field(
        None,
        description="Go to the potential's own minimum (saddle for role ts) first [default: yes, but not with a "
        "reference, which compares at the given geometries].",
        json_schema_extra={"flags": ["--relax/--no-relax"]},
    )
    fmax: float = Field(
        0.001,
        gt=0,
        description="Largest force at which the relaxation stops, eV/A. Lower it when soft modes come out imaginary.",
    )
