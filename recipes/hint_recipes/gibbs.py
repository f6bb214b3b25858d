"""Gibbs energies of molecules in the rigid-rotor/harmonic-oscillator approximation, from a potential's Hessian.

The thermochemistry is pyscf's (``pyscf.hessian.thermo``). What pyscf leaves out is done here: imaginary modes are
counted (its ``thermo`` drops them silently), the symmetry number and linearity tolerate an optimiser's noise, atoms
keep their own masses, and low modes can be damped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase import Atoms, units

from hint_recipes.symmetry import is_linear, straightened, symmetry_number

if TYPE_CHECKING:
    from hint_plugins.potential import Potential

#: 1 kcal/mol, "chemical accuracy", in eV.
CHEMICAL_ACCURACY = units.kcal / units.mol

QuasiHarmonic = Literal["none", "grimme", "truhlar"]


@dataclass(frozen=True)
class GibbsSettings:
    """Conditions and approximations.

    Attributes
    ----------
    temperature
        K.
    pressure
        Pa.
    quasi_harmonic
        Entropy of low modes: ``none`` (harmonic), ``grimme`` (interpolation to a free rotor, Chem. Eur. J. 18, 9955
        (2012)) or ``truhlar`` (modes below the cutoff raised to it, J. Phys. Chem. B 115, 14556 (2011)).
    cutoff_cm1
        Where the damping acts, cm^-1.
    symmetry_tolerance
        A; see :func:`hint_recipes.symmetry.symmetry_number`.
    """

    temperature: float = 298.15
    pressure: float = 101325.0
    quasi_harmonic: QuasiHarmonic = "none"
    cutoff_cm1: float = 100.0
    symmetry_tolerance: float = 0.02

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.pressure <= 0:
            raise ValueError(f"temperature ({self.temperature} K) and pressure ({self.pressure} Pa) must be positive")
        if self.quasi_harmonic not in ("none", "grimme", "truhlar"):
            raise ValueError(f"unknown quasi_harmonic {self.quasi_harmonic!r}: choose none, grimme or truhlar")
        if self.cutoff_cm1 <= 0:
            raise ValueError(f"cutoff_cm1 must be positive, got {self.cutoff_cm1}")


def free_energy(
    atoms: Atoms, energy: float, hessian: np.ndarray, settings: GibbsSettings | None = None
) -> dict[str, Any]:
    """Gibbs energy of one molecule at a stationary point.

    Parameters
    ----------
    atoms
        The molecule (not periodic). ``info`` may give ``charge`` (0), ``multiplicity`` (1, or 2 for an odd number of
        electrons) and ``symmetry_number`` (found from the geometry).
    energy
        Electronic energy, eV.
    hessian
        (3N, 3N) eV/A^2.
    settings
        Conditions.

    Returns
    -------
    dict
        ``energy``, ``zpe``, ``enthalpy_correction`` (H - E), ``gibbs_correction`` (G - E), ``gibbs`` in eV;
        ``entropy_eV_per_K``; ``symmetry_number``, ``linear``, ``multiplicity``, ``n_imaginary``;
        ``frequencies_cm1``, sorted, imaginary ones negative.

    Raises
    ------
    ValueError
        Periodic structure, wrong or non-finite Hessian, or a multiplicity that does not fit the electrons.
    """
    from pyscf.data import nist
    from pyscf.hessian import thermo

    settings = settings or GibbsSettings()
    hessian = np.asarray(hessian, dtype=float)
    if atoms.pbc.any():
        raise ValueError("the structure is periodic: a Gibbs energy of a free molecule needs pbc = False")
    if hessian.shape != (3 * len(atoms),) * 2:
        raise ValueError(f"the Hessian has shape {hessian.shape}, expected {(3 * len(atoms),) * 2}")
    if not np.isfinite(hessian).all() or not np.isfinite(energy):
        raise ValueError("the energy or the Hessian is not finite")

    multiplicity = spin_multiplicity(atoms)
    sigma = int(atoms.info.get("symmetry_number", 0)) or symmetry_number(atoms, settings.symmetry_tolerance)
    linear = is_linear(atoms, settings.symmetry_tolerance)
    molecule = _pyscf_molecule(straightened(atoms) if linear else atoms, multiplicity)

    n = len(atoms)
    if n == 1:
        freq_au, waves = np.zeros(0), np.zeros(0)
    else:
        atomic = 0.5 * (hessian + hessian.T) / units.Hartree * units.Bohr**2
        blocks = atomic.reshape(n, 3, n, 3).transpose(0, 2, 1, 3)
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


def low_mode_entropy_change(waves: np.ndarray, atoms: Atoms, settings: GibbsSettings) -> float:
    """Change of the vibrational entropy (eV/K) by the damping of low modes; ``waves`` in cm^-1."""
    real = waves[waves > 0]
    temperature, cutoff = settings.temperature, settings.cutoff_cm1
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


def spin_multiplicity(atoms: Atoms) -> int:
    """2S + 1 from ``info["multiplicity"]``, else the lowest that fits the number of electrons.

    Raises
    ------
    ValueError
        If it does not fit the number of electrons.
    """
    charge = int(atoms.info.get("charge", 0))
    electrons = int(atoms.numbers.sum()) - charge
    multiplicity = int(atoms.info.get("multiplicity", 1 + electrons % 2))
    if multiplicity < 1 or (electrons - multiplicity + 1) % 2 or multiplicity - 1 > electrons:
        raise ValueError(f"multiplicity {multiplicity} does not fit {electrons} electrons (charge {charge})")
    return multiplicity


@dataclass(frozen=True)
class _Model:
    """What ``thermo`` asks of a pyscf method."""

    mol: Any
    e_tot: float


def _boltzmann_au() -> float:
    from pyscf.data import nist

    return nist.BOLTZMANN / nist.HARTREE2J


def _pyscf_molecule(atoms: Atoms, multiplicity: int) -> Any:
    """A pyscf molecule with the masses of ``atoms`` (and one dummy function an element: nothing is solved)."""
    from pyscf import gto

    molecule = gto.Mole()
    molecule.nucprop = {i + 1: {"mass": float(mass)} for i, mass in enumerate(atoms.get_masses())}
    return molecule.build(
        atom=[(symbol, tuple(r)) for symbol, r in zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)],
        unit="Angstrom",
        basis={symbol: [[0, [1.0, 1.0]]] for symbol in set(atoms.get_chemical_symbols())},
        charge=int(atoms.info.get("charge", 0)),
        spin=multiplicity - 1,
        symmetry=False,
        verbose=0,
        dump_input=False,
        parse_arg=False,
    )


def gibbs_energies(
    potential: Potential,
    structures: Sequence[Atoms],
    settings: GibbsSettings | None = None,
    *,
    known: Callable[[int], dict[str, Any] | None] = lambda index: None,
    done: Callable[[int, dict[str, Any]], None] = lambda index, row: None,
) -> list[dict[str, Any]]:
    """Gibbs energies of many structures with one potential.

    Parameters
    ----------
    potential
        Energies, forces and Hessians.
    structures
        Stationary points; ``info`` as in :func:`free_energy`, and ``name``, ``reaction``, ``role``.
    settings
        Conditions.
    known
        Gives the row of a structure that was done earlier, or None.
    done
        Told of every new row.

    Returns
    -------
    list of dict
        The entries of :func:`free_energy` with ``name``, ``role``, ``reaction`` and ``fmax`` (largest force,
        eV/A), or ``name`` and ``error``.
    """
    rows = []
    for index, atoms in enumerate(structures):
        row = known(index)
        if row is None:
            row = {"name": structure_name(atoms, index)} | {k: atoms.info.get(k) for k in ("role", "reaction")}
            try:
                predictions = potential.evaluate([atoms])
                fmax = float(np.linalg.norm(np.asarray(predictions.forces[0]), axis=1).max())
                row |= {"fmax": fmax}
                row |= free_energy(atoms, float(predictions.energies[0]), potential.hessian(atoms), settings)
            except Exception as error:  # a potential's own failures differ; the rest of the set goes on
                row["error"] = f"{type(error).__name__}: {error}"
            done(index, row)
        rows.append(row)
    return rows


def structure_name(atoms: Atoms, index: int) -> str:
    """``info["name"]``, else reaction and role, else formula and position in the file."""
    if "name" in atoms.info:
        return str(atoms.info["name"])
    parts = [str(atoms.info[key]) for key in ("reaction", "role") if key in atoms.info]
    return "-".join(parts) if parts else f"{atoms.get_chemical_formula()}-{index}"


def reaction_free_energies(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reaction and activation free energies (eV) of the reactions among ``rows`` (several molecules a side add up)."""
    reactions: dict[str, dict[str, float]] = {}
    broken = {row.get("reaction") for row in rows if "error" in row}
    for row in rows:
        name, role = row.get("reaction"), row.get("role")
        if name is not None and role in ("reactant", "product", "ts") and name not in broken:
            sides = reactions.setdefault(str(name), {})
            sides[role] = sides.get(role, 0.0) + row["gibbs"]
    table = []
    for name, sides in reactions.items():
        if "reactant" not in sides or len(sides) == 1:
            continue
        row = {"reaction": name}
        if "product" in sides:
            row["reaction_gibbs"] = sides["product"] - sides["reactant"]
        if "ts" in sides:
            row["activation_gibbs"] = sides["ts"] - sides["reactant"]
        table.append(row)
    return table


def errors_against(
    rows: Sequence[dict[str, Any]], reference: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Deviations from a reference level, by structure and as mean absolute errors.

    Parameters
    ----------
    rows, reference
        From :func:`gibbs_energies` for the same structures in the same order.

    Returns
    -------
    list of dict, dict
        Per structure ``name``, ``role`` and the differences of ``energy``, ``gibbs`` and ``gibbs_correction`` (eV);
        and the MAEs: ``gibbs_mae``, ``gibbs_correction_mae``, ``energy_mae``, each also ``_minima`` and ``_ts``,
        ``reaction_gibbs_mae``, ``activation_gibbs_mae`` (eV) and each with the suffix ``_kcal_mol``.
    """
    differences = [
        {"name": row["name"], "role": row.get("role")}
        | {f"{key}_error": row[key] - ref[key] for key in ("energy", "gibbs", "gibbs_correction")}
        for row, ref in zip(rows, reference, strict=True)
        if "error" not in row and "error" not in ref
    ]
    groups = {
        "": differences,
        "_minima": [d for d in differences if d["role"] != "ts"],
        "_ts": [d for d in differences if d["role"] == "ts"],
    }
    maes = {
        f"{key}_mae{suffix}": float(np.mean([abs(d[f"{key}_error"]) for d in group]))
        for key in ("gibbs", "gibbs_correction", "energy")
        for suffix, group in groups.items()
        if group
    }
    theirs = {row["reaction"]: row for row in reaction_free_energies(reference)}
    ours = {row["reaction"]: row for row in reaction_free_energies(rows)}
    for key in ("reaction_gibbs", "activation_gibbs"):
        gaps = [abs(ours[n][key] - theirs[n][key]) for n in ours if n in theirs and key in ours[n] and key in theirs[n]]
        if gaps:
            maes[f"{key}_mae"] = float(np.mean(gaps))
    return differences, maes | {f"{key}_kcal_mol": value / CHEMICAL_ACCURACY for key, value in maes.items()}
