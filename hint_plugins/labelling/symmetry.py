"""A crystal's Hessian from symmetry-distinct displacements only, by phonopy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.curvature.layouts import Layout, convert
from hint_plugins.labelling.differences import Forces
from hint_plugins.labelling.engine import EngineError


def symmetric_hessian(forces: Forces, atoms: Atoms, step: float) -> np.ndarray:
    """Hessian of a (super)cell from plus and minus displacements of its symmetry-distinct atoms.

    Parameters
    ----------
    forces
        Positions (N, 3) in A to forces (N, 3) in eV/A.
    atoms
        The periodic structure; its own translations and point operations are used.
    step
        Displacement in A.

    Returns
    -------
    numpy.ndarray
        (3N, 3N) in eV/A^2.

    Raises
    ------
    EngineError
        The structure is not periodic, or phonopy is not installed.
    """
    if not atoms.pbc.all():
        raise EngineError("symmetry-distinct displacements are for crystals; leave --symmetry out")
    try:
        from phonopy import Phonopy
        from phonopy.harmonic.force_constants import compact_fc_to_full_fc
        from phonopy.structure.atoms import PhonopyAtoms
    except ImportError as error:
        raise EngineError(f"--symmetry needs `pip install phonopy` ({error})") from error
    cell = PhonopyAtoms(numbers=atoms.numbers, cell=np.asarray(atoms.cell), positions=atoms.positions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # phonopy says that it has found the primitive cell, which is what we want
        phonon = Phonopy(cell, np.eye(3, dtype=int), primitive_matrix="auto", log_level=0)
    phonon.generate_displacements(distance=step, is_plusminus=True)
    origin = atoms.positions
    calculated = []
    dataset: Any = phonon.dataset
    for first in dataset["first_atoms"]:
        moved = origin.copy()
        moved[first["number"]] += first["displacement"]
        calculated.append(forces(moved))
    phonon.forces = np.array(calculated)
    phonon.produce_force_constants()
    constants = np.asarray(phonon.force_constants)
    if constants.shape[0] != len(atoms):
        constants = compact_fc_to_full_fc(phonon.primitive, constants)
    return convert(constants, Layout.BLOCKS, Layout.FLAT)
