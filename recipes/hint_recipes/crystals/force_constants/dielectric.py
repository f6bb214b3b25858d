"""Born effective charges and the dielectric tensor of a crystal: brought to its cell, told, missed."""

from __future__ import annotations

import warnings

import numpy as np
from ase import Atoms

from hint_plugins.datasets.born import DielectricTensors
from hint_plugins.errors import InputError
from hint_recipes.crystals.force_constants.electronegativity import ELECTRONEGATIVITY
from hint_recipes.crystals.force_constants.phonopy_cells import to_phonopy_atoms

#: Largest distance of an atom from its site in the cell of the tensors, A.
SITE_TOLERANCE = 0.1
#: Symmetry and charge neutrality may change the tensors by this share of the largest charge (or constant).
SHARE = 0.1
#: A crystal whose elements differ in electronegativity (Pauling) by more than this may be polar.
MAY_BE_POLAR = 0.3


def on_crystal(tensors: DielectricTensors, crystal: Atoms) -> DielectricTensors:
    """The tensors on another cell of the same crystal in the same orientation.

    They are averaged over the space group (phonopy), and the mean charge is taken off, so that no field moves the
    crystal as a whole.

    Raises
    ------
    InputError
        If an atom finds no site, or symmetry and neutrality change the tensors much: they are then those of another
        crystal, of another orientation, or not converged.
    """
    own = tensors.crystal
    if own is crystal:
        return tensors
    order = _sites(own, crystal)
    born, dielectric = tensors.born[order], tensors.dielectric
    from phonopy.structure.symmetry import symmetrize_borns_and_epsilon

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what symmetry changes is judged below
        averaged, constant = symmetrize_borns_and_epsilon(born, dielectric, to_phonopy_atoms(crystal))
    averaged = averaged - averaged.mean(0)
    for name, before, after in (("charges", born, averaged), ("constant", dielectric, constant)):
        change, largest = np.abs(after - before).max(), np.abs(before).max()
        if change > SHARE * largest:
            raise InputError(
                f"symmetry and charge neutrality change the Born effective charges or the dielectric tensor ({name}) "
                f"by {change:.2f}, where the largest is {largest:.2f}: they belong to another crystal, order of "
                "atoms or another orientation, or are not converged"
            )
    return DielectricTensors(crystal, averaged, constant)


def _sites(own: Atoms, crystal: Atoms) -> np.ndarray:
    """Index of the atom in the cell ``own`` for each atom of ``crystal``."""
    density = len(own) / own.get_volume()
    shift = crystal.positions[:, None] - own.positions[None]
    fractions = shift @ np.linalg.inv(own.cell.array)
    distance = np.linalg.norm((fractions - np.rint(fractions)) @ own.cell.array, axis=-1)
    distance[crystal.numbers[:, None] != own.numbers[None]] = np.inf
    order = distance.argmin(1)
    vectors = crystal.cell.array @ np.linalg.inv(own.cell.array)  # one cell's lattice must hold the other's
    whole = [np.abs(m - np.rint(m)).max() < 0.05 for m in (vectors, np.linalg.inv(vectors))]
    if (
        abs(density / (len(crystal) / crystal.get_volume()) - 1) > 0.1
        or distance.min(1).max() > SITE_TOLERANCE
        or not any(whole)
    ):
        raise InputError(
            f"the Born effective charges are those of another crystal ({own.get_chemical_formula()}) or of another "
            "setting: give the cell with the lattice vectors, orientation and origin of that calculation"
        )
    return order


def tell_tensors(tensors: DielectricTensors) -> str:
    """The tensors in one sentence: a third of the trace of each kind of charge, and of the dielectric tensor."""
    charges: dict[str, None] = {}
    for symbol, charge in zip(tensors.crystal.get_chemical_symbols(), tensors.born, strict=True):
        charges[f"{symbol} {np.trace(charge) / 3:+.2f}"] = None
    return (
        f"Born effective charges {', '.join(charges)} e and dielectric constant {np.trace(tensors.dielectric) / 3:.2f} "
        "(means over directions)"
    )


def missing_charges(crystal: Atoms) -> str | None:
    """What is wrong with phonons of this crystal when no Born effective charges are known; None where nothing is.

    Whether a crystal is an insulator cannot be known from its composition, so the sentence names the condition.
    """
    values = [ELECTRONEGATIVITY.get(symbol) for symbol in set(crystal.get_chemical_symbols())]
    known = [value for value in values if value is not None]
    spread = max(known, default=0.0) - min(known, default=0.0)
    if spread <= MAY_BE_POLAR:
        return None
    return (
        f"no Born effective charges: the elements differ in electronegativity by {spread:.2f}, and unless the crystal "
        "is a metal, its frequencies near Gamma lack the splitting of longitudinal and transverse modes (--born)"
    )
