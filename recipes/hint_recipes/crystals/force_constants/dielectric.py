"""Born effective charges and the dielectric tensor of a crystal: read from files, brought to its cell, missed."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from ase import Atoms

from hint_plugins.datasets.born import DielectricTensors, read_born_file, read_vasp_tensors
from hint_plugins.datasets.phonopy_file import read_phonopy_tensors
from hint_plugins.datasets.q2r import read_q2r
from hint_plugins.datasets.record import RecordError
from hint_plugins.errors import InputError
from hint_recipes.crystals.force_constants.electronegativity import ELECTRONEGATIVITY
from hint_recipes.crystals.force_constants.phonopy_cells import to_phonopy_atoms

#: Largest distance of an atom from its site in the cell of the tensors, A.
SITE_TOLERANCE = 0.1
#: Symmetry and charge neutrality may change the tensors by this share of the largest charge (or constant).
SHARE = 0.1
#: A crystal whose elements differ in electronegativity (Pauling) by more than this may be polar.
MAY_BE_POLAR = 0.3


def read_tensors(path: str | Path, crystal: Atoms) -> DielectricTensors:
    """Born effective charges and dielectric tensor of ``crystal`` from a file.

    Parameters
    ----------
    path
        phonopy's ``BORN`` (charges of the symmetry-independent atoms in the order of ``crystal``) or a phonopy yaml
        that holds them; ``.fc`` of ``q2r.x``; a file of dynamical matrices at Gamma of ``ph.x`` (needs
        CellConstructor); ``vasprun.xml`` or ``OUTCAR`` of VASP.
    crystal
        The cell that is used; all files but ``BORN`` hold their own cell, which must be one of the same crystal in the
        same orientation.

    Returns
    -------
    DielectricTensors
        Of ``crystal``, symmetrised (:func:`on_crystal`).

    Raises
    ------
    InputError
        If the file cannot be read, holds no such tensors, or those of another crystal.
    """
    path = Path(path)
    try:
        return on_crystal(_read(path, crystal), crystal)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, RecordError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no Born effective charges: {error}") from None


def _read(path: Path, crystal: Atoms) -> DielectricTensors:
    if not path.is_file():
        raise RecordError("no such file")
    if any(suffix in (".yaml", ".yml") for suffix in path.suffixes[-2:]):
        return read_phonopy_tensors(path)
    if path.suffix == ".fc":
        found = read_q2r(path)
        if found.tensors is None:
            raise RecordError("flag F: q2r.x wrote no Born effective charges into it")
        return found.tensors
    if path.suffix == ".xml" or "OUTCAR" in path.name:
        return read_vasp_tensors(path)
    with path.open() as handle:
        if "Dynamical matrix file" in handle.readline(200):
            from hint_recipes.crystals.force_constants.dynamical_matrices import read_gamma_tensors

            return read_gamma_tensors(path)
    return read_born_file(path, crystal)


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
