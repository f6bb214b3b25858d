"""Force constants on finer q grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hint_plugins.errors import InputError
from hint_recipes.crystals.force_constants.cellconstructor import from_cellconstructor, output_to, to_cellconstructor
from hint_recipes.crystals.force_constants.force_constants import ForceConstants


def interpolate(constants: ForceConstants, multiples: Sequence[int]) -> ForceConstants:
    """Fourier-interpolate force constants to another q grid (CellConstructor, centred).

    Of a polar crystal with tensors the short-ranged part is interpolated, and the dipole-dipole part of the new points
    added (phonopy, Gonze and Lee).

    Raises
    ------
    InputError
        If a repetition of the new grid is smaller than that of the old one.
    """
    new = tuple(int(m) for m in multiples)
    if any(n < o for n, o in zip(new, constants.multiples, strict=True)):
        raise InputError(f"cannot interpolate a {constants.multiples} grid to the coarser {new}")
    if constants.tensors is not None:
        phonon = constants.to_phonopy().ph2ph(np.diag(new), with_nac=True)
        return ForceConstants.from_phonopy(phonon, constants.primitive).with_tensors(constants.tensors)
    # CellConstructor drops elements below 1e-5 Ry/Bohr^2, and ends the process where none is left.
    scale = 1e6 / max(float(np.abs(constants.hessian).max()), 1e-12)
    with output_to(None):
        dyn = to_cellconstructor(constants.replace(scale * constants.hessian)).InterpolateMesh(list(new))
    wider = from_cellconstructor(dyn)
    return wider.replace(wider.hessian / scale)


def refine(constants: ForceConstants, fine: ForceConstants) -> ForceConstants:
    """Put what an anharmonic calculation changed in a small supercell on the harmonic phonons of a finer q grid.

    The difference to ``fine`` at the q points of ``constants`` is Fourier-interpolated and added to ``fine``, as is
    usual for SSCHA matrices (Errea, Calandra, Mauri, Phys. Rev. B 89, 064302): it has a shorter range than the
    matrices themselves. Dipole-dipole forces are in both and leave no part in it.

    Parameters
    ----------
    constants
        Anharmonic force constants; their masses are kept.
    fine
        Harmonic ones of the same crystal in the same setting.

    Raises
    ------
    InputError
        If the q points of ``constants`` are not among those of ``fine``.
    """
    if any(f % c for f, c in zip(fine.multiples, constants.multiples, strict=True)):
        raise InputError(
            f"the anharmonic force constants have a {constants.multiples} grid, which is no part of the grid "
            f"{fine.multiples} of the harmonic ones"
        )
    if fine.multiples == constants.multiples:
        return constants
    fine = replace(fine, primitive=constants.primitive)
    step = np.array(fine.multiples) // constants.multiples
    shared = np.ravel_multi_index((constants.cell_indices * step).T, fine.multiples)
    coarse = constants.from_dynamical_matrices(fine.dynamical_matrices()[shared])
    change = constants.hessian - coarse.hessian
    if not change.any():
        return fine
    change = interpolate(constants.replace(change).with_tensors(None), fine.multiples).hessian
    return fine.replace(fine.hessian + change)
