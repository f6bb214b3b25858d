"""Gibbs energies of molecules in the rigid-rotor/harmonic-oscillator approximation, from a potential's Hessian.

Where atoms are frozen nothing rotates or moves as a whole: all modes of the free atoms are vibrations, as of an
adsorbate on a slab, and the free energy is Helmholtz's (``ase.thermochemistry.HarmonicThermo``), to which pV adds
next to nothing.

The thermochemistry is pyscf's (``pyscf.hessian.thermo``). What pyscf leaves out is done here: imaginary modes are
counted (its ``thermo`` drops them silently), the symmetry number and linearity tolerate an optimiser's noise, atoms
keep their own masses, and low modes can be damped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units

from hint_plugins.curvature.layouts import Layout, convert
from hint_plugins.objective.metrics import frequencies
from hint_plugins.structures.charges import charge_and_multiplicity
from hint_plugins.structures.frozen import free_components, with_zeros
from hint_recipes.molecules.thermochemistry.settings import GibbsSettings
from hint_recipes.molecules.thermochemistry.symmetry import is_linear, straightened, symmetry_number


def free_energy(
    atoms: Atoms, energy: float, hessian: np.ndarray, settings: GibbsSettings | None = None
) -> dict[str, Any]:
    """Gibbs energy of one molecule, or of the free atoms of a structure with frozen ones, at a stationary point.

    Parameters
    ----------
    atoms
        The molecule (not periodic), or a structure with ``FixAtoms`` or ``FixCartesian``.
        ``info`` may give ``charge`` (default 0), ``spin`` (2S + 1; default the lowest
        that fits the electrons) and ``symmetry_number`` (default: found from the geometry).
    energy
        Electronic energy, eV.
    hessian
        (3N, 3N) eV/A^2; with frozen atoms (b, b) of the b free coordinates.
    settings
        Conditions.

    Returns
    -------
    dict
        ``approximation`` ("rigid rotor, harmonic oscillator" or, with frozen atoms, "harmonic");
        ``energy``, ``zpe``, ``enthalpy_correction`` (H - E), ``gibbs_correction`` (G - E), ``gibbs`` in eV;
        ``entropy_eV_per_K``; ``symmetry_number``, ``linear``, ``multiplicity``, ``n_imaginary``;
        ``frequencies_cm1``, sorted, imaginary ones negative.

    Raises
    ------
    ValueError
        Periodic structure without frozen atoms, wrong or non-finite Hessian.
    LabelError
        Constraints of another kind, or no free atom.
    EngineError
        Charge and spin do not fit the electrons.
    """
    from pyscf.data import nist
    from pyscf.hessian import thermo

    settings = settings or GibbsSettings()
    hessian = np.asarray(hessian, dtype=float)
    check_molecule(atoms)
    free = free_components(atoms)
    if hessian.shape != (int(free.sum()),) * 2:
        raise ValueError(f"the Hessian has shape {hessian.shape}, expected {(int(free.sum()),) * 2}")
    if not np.isfinite(hessian).all() or not np.isfinite(energy):
        raise ValueError("the energy or the Hessian is not finite")
    if not free.all():
        return _harmonic_free_energy(atoms, energy, with_zeros(hessian, free), settings)

    charge, multiplicity = charge_and_multiplicity(atoms)
    sigma = int(atoms.info.get("symmetry_number", 0)) or symmetry_number(atoms, settings.symmetry_tolerance)
    linear = is_linear(atoms, settings.symmetry_tolerance)
    molecule = _pyscf_molecule(straightened(atoms) if linear else atoms, charge, multiplicity)

    n = len(atoms)
    if n == 1:
        freq_au, waves = np.zeros(0), np.zeros(0)
    else:
        atomic = 0.5 * (hessian + hessian.T) / units.Hartree * units.Bohr**2
        blocks = convert(atomic, Layout.FLAT, Layout.BLOCKS)
        modes = thermo.harmonic_analysis(molecule, blocks, imaginary_freq=False)
        freq_au, waves = np.real(modes["freq_au"]), np.real(modes["freq_wavenumber"])

    result = thermo.thermo(_Model(molecule, 0.0), freq_au, settings.temperature, settings.pressure)
    entropy_au = result["S_tot"][0] + _boltzmann_au() * (np.log(result["sym_number"][0]) - np.log(sigma))
    entropy = entropy_au * nist.HARTREE2EV
    if settings.quasi_harmonic != "none":
        entropy += low_mode_entropy_change(waves, atoms, settings)
    enthalpy = result["H_tot"][0] * nist.HARTREE2EV
    correction = enthalpy - settings.temperature * entropy
    return {
        "approximation": "rigid rotor, harmonic oscillator",
        "energy": float(energy),
        "zpe": float(result["ZPE"][0] * nist.HARTREE2EV),
        "enthalpy_correction": float(enthalpy),
        "entropy_eV_per_K": float(entropy),
        "gibbs_correction": float(correction),
        "gibbs": float(energy + correction),
        "symmetry_number": sigma,
        "linear": linear,
        "multiplicity": multiplicity,
        "n_imaginary": int((waves < 0).sum()),
        "frequencies_cm1": [float(w) for w in waves],
    }


def _harmonic_free_energy(atoms: Atoms, energy: float, hessian: np.ndarray, settings: GibbsSettings) -> dict[str, Any]:
    """Free energy of the free atoms, as vibrations in the field of the frozen ones; ``hessian`` (3N, 3N)."""
    from ase.thermochemistry import HarmonicThermo

    if settings.quasi_harmonic == "grimme":
        raise ValueError(
            "quasi_harmonic grimme brings low modes to the rotation of a free molecule, and atoms are frozen: take "
            "truhlar or none"
        )
    waves, temperature = frequencies(hessian, atoms), settings.temperature
    thermo = HarmonicThermo(vib_energies=(waves[waves > 0] * units.invcm).tolist())
    entropy, inner = 0.0, 0.0
    if (waves > 0).any():
        entropy, inner = thermo.get_entropy(temperature, verbose=False), thermo.get_internal_energy(temperature, False)
    if settings.quasi_harmonic != "none":
        entropy += low_mode_entropy_change(waves, atoms, settings)
    correction = inner - temperature * entropy
    return {
        "approximation": "harmonic",
        "energy": float(energy),
        "zpe": float(0.5 * waves[waves > 0].sum() * units.invcm),
        "enthalpy_correction": float(inner),
        "entropy_eV_per_K": float(entropy),
        "gibbs_correction": float(correction),
        "gibbs": float(energy + correction),
        "symmetry_number": 1,
        "linear": False,
        "multiplicity": None if atoms.pbc.any() else charge_and_multiplicity(atoms)[1],
        "n_imaginary": int((waves < 0).sum()),
        "frequencies_cm1": [float(w) for w in waves],
    }


def check_molecule(atoms: Atoms) -> None:
    """Refuse a periodic structure without frozen atoms, which the rigid rotor does not describe (ValueError)."""
    if atoms.pbc.any() and free_components(atoms).all():
        raise ValueError(
            "the structure is periodic: a Gibbs energy of a free molecule needs pbc = False, and one of an adsorbate "
            "frozen atoms (FixAtoms, or the column move_mask of an extended XYZ file)"
        )


def low_mode_entropy_change(waves: np.ndarray, atoms: Atoms, settings: GibbsSettings) -> float:
    """Change of the vibrational entropy (eV/K) by the damping of low modes; ``waves`` in cm^-1."""
    real = waves[waves > 0]
    temperature, cutoff = settings.temperature, settings.cutoff
    harmonic = _harmonic_entropy(real, temperature)
    if settings.quasi_harmonic == "truhlar":
        return float((_harmonic_entropy(np.maximum(real, cutoff), temperature) - harmonic).sum())
    joule = real * units.invcm / units.J
    frequency = joule / (2 * np.pi * units._hbar)
    average = np.mean(atoms.get_moments_of_inertia()) * units._amu * 1e-20
    inertia = units._hbar / (4 * np.pi * frequency)
    inertia = inertia * average / (inertia + average)
    thermal = units.kB * temperature / units.J
    rotor = units.kB * (0.5 + 0.5 * np.log(2 * np.pi * inertia * thermal / units._hbar**2))
    weight = 1 / (1 + (cutoff / real) ** 4)
    return float(((1 - weight) * (rotor - harmonic)).sum())


def _harmonic_entropy(waves: np.ndarray, temperature: float) -> np.ndarray:
    x = waves * units.invcm / (units.kB * temperature)
    return units.kB * (x / np.expm1(x) - np.log1p(-np.exp(-x)))


@dataclass(frozen=True)
class _Model:
    """What ``thermo`` asks of a pyscf method."""

    mol: Any
    e_tot: float


def _boltzmann_au() -> float:
    from pyscf.data import nist

    return nist.BOLTZMANN / nist.HARTREE2J


def _pyscf_molecule(atoms: Atoms, charge: int, multiplicity: int) -> Any:
    """A pyscf molecule with the masses of ``atoms`` (and one dummy function an element: nothing is solved)."""
    from pyscf import gto

    molecule = gto.Mole()
    molecule.nucprop = {i + 1: {"mass": float(mass)} for i, mass in enumerate(atoms.get_masses())}
    return molecule.build(
        atom=[(symbol, tuple(r)) for symbol, r in zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)],
        unit="Angstrom",
        basis={symbol: [[0, [1.0, 1.0]]] for symbol in set(atoms.get_chemical_symbols())},
        charge=charge,
        spin=multiplicity - 1,
        symmetry=False,
        verbose=0,
        dump_input=False,
        parse_arg=False,
    )
