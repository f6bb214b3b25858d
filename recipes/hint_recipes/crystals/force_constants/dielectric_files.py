"""Born effective charges and the dielectric tensor of a crystal from the files of other codes."""

from __future__ import annotations

from pathlib import Path

from ase import Atoms

from hint_plugins.datasets.born import DielectricTensors, read_born_file, read_vasp_tensors
from hint_plugins.datasets.phonopy_file import read_phonopy_tensors
from hint_plugins.datasets.q2r import read_q2r
from hint_plugins.datasets.record import RecordError
from hint_plugins.errors import InputError
from hint_recipes.crystals.force_constants.dielectric import on_crystal
from hint_recipes.crystals.force_constants.dynamical_matrices import read_gamma_tensors


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
        Of ``crystal``, symmetrised (:func:`~hint_recipes.crystals.force_constants.dielectric.on_crystal`).

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
            return read_gamma_tensors(path)
    return read_born_file(path, crystal)
