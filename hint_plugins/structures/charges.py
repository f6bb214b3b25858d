"""Total charge and spin multiplicity of a structure, under every name that files use for them."""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.labelling.engine import EngineError

logger = logging.getLogger(__name__)

#: Entries of ``info`` that state the total charge in elementary charges, whatever their case.
CHARGE_KEYS = ("charge", "total_charge", "net_charge", "molecular_charge")
#: Entries of ``info`` that state the spin multiplicity 2S + 1; 0 leaves it open. ``spin`` is fairchem's name,
#: ``total_spin`` MACE's (its default is 1, and one less is the number of unpaired electrons).
SPIN_KEYS = ("spin", "multiplicity", "total_spin", "spin_multiplicity", "molecular_multiplicity")
#: ASE's per-atom columns: their sums are the total charge and, for molecules, the number of unpaired electrons. In a
#: crystal the moments are what they are called, the start of a magnetic calculation.
COLUMNS = ("initial_charges", "initial_magmoms")
#: How far a number, or the sum of a column, may lie from a whole one.
TOLERANCE = 0.01


def charge_and_multiplicity(atoms: Atoms) -> tuple[int, int]:
    """Total charge and spin multiplicity 2S + 1.

    Read from ``info`` (:data:`CHARGE_KEYS`, :data:`SPIN_KEYS`) and from ASE's columns ``initial_charges`` and
    ``initial_magmoms``. Without a statement the charge is 0 and the multiplicity the lowest that the number of
    electrons allows, 1 or 2; a molecule with an odd number of electrons is then named in a warning.

    Returns
    -------
    charge
        Elementary charges.
    multiplicity
        2S + 1.

    Raises
    ------
    EngineError
        If a value is no whole number, two values contradict each other, or they do not fit the number of electrons.
    """
    given = stated(atoms)
    charge = given.get("charge", 0)
    electrons = int(atoms.numbers.sum()) - charge
    multiplicity = given.get("spin", 1 + electrons % 2)
    if electrons < 0 or (electrons + multiplicity) % 2 == 0 or multiplicity < 1 or multiplicity - 1 > electrons:
        raise EngineError(
            f"charge {charge} and spin multiplicity {multiplicity} do not fit {electrons} electrons"
            f"{_named(atoms)}; a multiplicity is 2S + 1: 1 for a singlet, 2 for a doublet"
        )
    if multiplicity == 2 and "spin" not in given and not atoms.pbc.any():
        _warn_once(
            f"{atoms.get_chemical_formula()} with charge {charge} has an odd number of electrons and states no spin: "
            "it is taken as a doublet (info 'spin' = 2S + 1 says otherwise)"
        )
    return charge, multiplicity


def stated(atoms: Atoms) -> dict[str, int]:
    """What the structure says about itself, under the names ``charge`` and ``spin`` (2S + 1).

    Returns
    -------
    dict
        Empty for a structure that says nothing: what a derived structure's ``info`` needs, and no more.

    Raises
    ------
    EngineError
        If a value is no whole number, or two values contradict each other.
    """
    found: dict[str, int] = {}
    charges = _from_info(atoms, CHARGE_KEYS)
    if atoms.has("initial_charges") and np.any(column := atoms.get_initial_charges()):
        charges["the sum of initial_charges"] = _whole("the sum of initial_charges", float(column.sum()))
    if charges:
        found["charge"] = _agreed("charge", charges)
    spins = {name: value for name, value in _from_info(atoms, SPIN_KEYS).items() if value != 0}
    unpaired = None if atoms.pbc.any() else _unpaired(atoms)
    if unpaired is not None:
        spins["the sum of initial_magmoms, plus one,"] = unpaired + 1
    if spins:
        found["spin"] = _agreed("spin multiplicity (2S + 1)", spins)
    return found


def raw_info(atoms: Atoms) -> dict[str, Any]:
    """The entries of ``info`` about charge and spin as they stand."""
    known = {*CHARGE_KEYS, *SPIN_KEYS}
    return {name: value for name, value in atoms.info.items() if str(name).lower() in known}


def raw_statements(atoms: Atoms) -> dict[str, Any]:
    """The entries of ``info`` and the columns about charge and spin as they stand, for copies and comparisons."""
    return raw_info(atoms) | {name: atoms.arrays[name] for name in COLUMNS if atoms.has(name)}


def is_charged_or_open_shell(atoms: Atoms) -> bool:
    """Whether a model that reads positions and elements alone misses something.

    An odd number of electrons counts for molecules only, since in a metal's cell it says nothing. A statement that
    cannot be understood counts too.
    """
    try:
        given = stated(atoms)
    except EngineError:
        return True
    odd = not atoms.pbc.any() and (int(atoms.numbers.sum()) - given.get("charge", 0)) % 2 == 1
    return given.get("charge", 0) != 0 or given.get("spin", 1) != 1 or odd


def tell_calculator(atoms: Atoms, *, whole: bool = False) -> None:
    """Write charge and spin into ``atoms`` in every form that ASE calculators read.

    These are ``info["charge"]`` and ``info["spin"]``, and the columns ``initial_charges`` and ``initial_magmoms``,
    spread evenly where the structure has none of its own.

    Parameters
    ----------
    atoms
        Changed in place.
    whole
        Also where the structure states nothing; otherwise such a structure is left as it is.

    Raises
    ------
    EngineError
        As :func:`charge_and_multiplicity`.
    """
    charge, multiplicity = charge_and_multiplicity(atoms)
    if not (whole or stated(atoms) or is_charged_or_open_shell(atoms)):
        return
    n = len(atoms)
    atoms.info["charge"] = charge
    if whole or not atoms.pbc.any() or "spin" in stated(atoms):
        atoms.info["spin"] = multiplicity
    if not np.any(atoms.get_initial_charges()):
        atoms.set_initial_charges([charge / n] * n)
    if not np.any(atoms.get_initial_magnetic_moments()):
        atoms.set_initial_magnetic_moments([(multiplicity - 1) / n] * n)


def _from_info(atoms: Atoms, names: tuple[str, ...]) -> dict[str, int]:
    return {
        str(key): _whole(repr(key), value)
        for key, value in atoms.info.items()
        if str(key).lower() in names and value is not None
    }


def _whole(name: str, value: Any) -> int:
    array = np.asarray(value)
    number = np.nan
    if array.size == 1 and array.dtype.kind in "iufU":
        try:
            number = float(array.reshape(-1)[0])
        except ValueError:
            number = np.nan
    if not np.isfinite(number) or abs(number - round(number)) > TOLERANCE:
        raise EngineError(f"{name} is {value!r}, and charge and multiplicity (2S + 1) are whole numbers")
    return round(number)


def _unpaired(atoms: Atoms) -> int | None:
    """Number of unpaired electrons of a molecule according to ``initial_magmoms``, None where they do not say."""
    if not atoms.has("initial_magmoms") or not np.any(moments := atoms.get_initial_magnetic_moments()):
        return None
    if moments.ndim > 1:
        raise EngineError(
            "initial_magmoms are vectors: noncollinear magnetism has no multiplicity; give 'spin' instead"
        )
    return _whole("the sum of initial_magmoms", abs(float(moments.sum())))


def _agreed(what: str, values: dict[str, int]) -> int:
    if len(set(values.values())) > 1:
        listed = ", ".join(f"{name} says {value}" for name, value in values.items())
        raise EngineError(f"the structure contradicts itself about its {what}: {listed}")
    return next(iter(values.values()))


def _named(atoms: Atoms) -> str:
    names = [str(name) for name in raw_statements(atoms)]
    return f" (read from {', '.join(names)})" if names else ""


@functools.lru_cache(maxsize=10_000)
def _warn_once(message: str) -> None:
    logger.warning(message)
