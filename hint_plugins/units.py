"""Conversions to the units of this project (eV, A, amu; wavenumbers in cm^-1), all from the constants of ASE.

ASE's own ``Hartree``, ``Rydberg``, ``Bohr``, ``GPa`` and ``kB`` are imported from ``ase.units``. What is composed of
them has its name here, and is multiplied with: ``forces * HARTREE_PER_BOHR`` is in eV/A.
"""

from __future__ import annotations

import numpy as np
from ase import units

#: eV in one kcal/mol.
KCAL = units.kcal / units.mol
#: eV in one kJ/mol.
KJ = units.kJ / units.mol
#: eV/A in one Ha/Bohr and one Ry/Bohr.
HARTREE_PER_BOHR = units.Hartree / units.Bohr
RYDBERG_PER_BOHR = units.Rydberg / units.Bohr
#: eV/A^2 in one of the named units of a Hessian.
HESSIAN_UNITS: dict[str, float] = {
    "eV/A^2": 1.0,
    "Ha/Bohr^2": units.Hartree / units.Bohr**2,
    "Ry/Bohr^2": units.Rydberg / units.Bohr**2,
    "eV/Bohr^2": 1.0 / units.Bohr**2,
}
#: Electron masses in one amu.
ELECTRON_MASSES = units._amu / units._me
#: sqrt(eV / (A^2 amu)) as a wavenumber in cm^-1.
CM1 = float(units._hbar * 1e10 / np.sqrt(units._e * units._amu) / units.invcm)
#: cm^-1 in one THz.
THZ_TO_CM1 = 1e12 / (units._c * 100)
