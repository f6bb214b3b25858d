"""Units of phonopy files, which are those of the calculator that they name."""

from __future__ import annotations

from typing import Any

from hint_plugins.datasets.record import RecordError


def units(phonon: Any) -> tuple[float, float, float]:
    """Factors of lengths to A, energies to eV and forces to eV/A; force constants are forces over lengths."""
    from phonopy.interface.calculator import get_calculator_physical_units

    known = get_calculator_physical_units(phonon.calculator)
    return known.distance_to_A, known.energy_to_eV, known.force_to_eVperA


def force_constant_unit(phonon: Any) -> float:
    """Factor of force constants to eV/A^2, from the unit that phonopy names for the calculator."""
    from ase.units import Bohr, Hartree, Rydberg
    from phonopy.interface.calculator import get_calculator_physical_units

    name = get_calculator_physical_units(phonon.calculator).force_constants_unit
    energy, _, length = name.partition("/")
    energies = {"eV": 1.0, "Ry": Rydberg, "hartree": Hartree, "mRy": Rydberg / 1000}
    lengths = {"angstrom^2": 1.0, "au^2": Bohr**-2, "angstrom.au": 1.0 / Bohr}
    if energy not in energies or length not in lengths:
        raise RecordError(f"force constants in {name}: unknown unit")
    return energies[energy] * lengths[length]
