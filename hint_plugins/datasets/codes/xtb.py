"""The program ``xtb``: ``hessian`` with the gradient file that ``xtb --grad`` writes into the same directory.

``hessian`` is Cartesian, but translations and rotations are projected out of it (not in linear molecules) and it names
no geometry; the gradient says at which one it was made and puts the rotations back
(:mod:`hint_plugins.datasets.codes.projection`). cclib reads the matrix as it stands.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from hint_plugins.datasets.codes.projection import is_projected, unprojected
from hint_plugins.datasets.codes.run import Run, read_text
from hint_plugins.datasets.codes.turbomole import data_groups, last_cycle, matrix_of
from hint_plugins.datasets.record import RecordError

#: Largest rise of a moment of inertia (A^2) of a linear molecule.
_LINEAR = 1e-6


def read_xtb(path: Path) -> Run:
    """Read ``hessian`` of xtb and ``gradient`` beside it.

    Raises
    ------
    RecordError
        Without gradient (the Hessian alone names no geometry), of another geometry, cut short.
    """
    groups = data_groups(path)
    if "hessian" not in groups:
        raise RecordError("no $hessian")
    gradient = path.parent / "gradient"
    if not gradient.is_file():
        raise RecordError(
            "no file `gradient` beside it, which says at which geometry and energy it was made: run xtb with --grad in "
            "the same directory"
        )
    energy, numbers, positions, forces = last_cycle(data_groups(gradient).get("grad", []))
    hessian = matrix_of(groups["hessian"], len(numbers))
    run = Run("xtb", numbers, positions, hessian, energy=energy, forces=forces, taken=[gradient])
    spread = np.linalg.svd(positions - positions.mean(axis=0), compute_uv=False)
    if is_projected(hessian, positions) or (len(numbers) > 2 and spread[1] > _LINEAR):
        run.hessian = unprojected(hessian, positions, forces)
        run.notes.append("rotations, which xtb had projected out, put back from the gradient")
    _take_output(run, path.parent)
    return run


def _take_output(run: Run, directory: Path) -> None:
    """Version, Hamiltonian, charge and spin from an output in the directory."""
    for path in sorted([*directory.glob("*.out"), *directory.glob("*.log")]):
        text = read_text(path)
        if "x T B" not in text or not (match := re.search(r"xtb version (\S+)", text)):
            continue
        run.taken.append(path)
        run.version = match[1]
        if match := re.search(r"Hamiltonian\s+(GFN\S+)", text):
            solvent = re.search(r"--(?:alpb|gbsa|cosmo|cpcmx)\s+\S+", text)
            run.method = match[1] + (f" {solvent[0].lstrip('-')}" if solvent else "")
        if match := re.search(r"total charge\s+(-?\d+\.\d+)", text):
            run.charge = round(float(match[1]))
        if match := re.search(r"program call.*\s(?:--uhf|-u)\s+(\d+)", text):
            run.multiplicity = int(match[1]) + 1
        if "normal termination" not in text.lower() and "finished run" not in text:
            run.notes.append(f"{path.name} has no end")
        if "iterator did not converge" in text:
            raise RecordError(f"the charges of {path.name} are not converged")
        return
