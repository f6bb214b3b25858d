"""ORCA: the Hessian from ``NAME.hess``, energy and gradient from ``NAME.engrad`` or the output beside it.

No library reads ``.hess``. Its matrix is Cartesian, neither mass-weighted nor projected, in the frame of its atoms. An
analytical frequency calculation makes no gradient: ``! EnGrad Freq`` does. After ``! Opt Freq`` the last gradient
belongs to the geometry before the last step, which is noticed here. Atoms that a partial Hessian leaves out have rows
and columns of zeros: the others become a block.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from ase.units import Bohr, Hartree

from hint_plugins.datasets.codes.blocks import Block, column_blocks, take_blocks
from hint_plugins.datasets.codes.run import Run, numbers_of, read_text, same_place
from hint_plugins.datasets.record import RecordError
from hint_plugins.structures.species import element

_COORDINATES = "CARTESIAN COORDINATES (A.U.)"
_ROW = re.compile(r"^\s*\d+\s+([A-Z][a-z]?)\s+\S+\s+\d+\s+\S+((?:\s+-?\d+\.\d+){3})\s*$")
_GRADIENT = re.compile(r"^\s*\d+\s+[A-Z][a-z]?\s+:((?:\s+-?\d+\.\d+){3})\s*$")


def read_orca(path: Path) -> Run:
    """Read ``NAME.hess`` and what belongs to its geometry in ``NAME.engrad``, ``NAME.out`` or ``NAME.log``.

    Raises
    ------
    RecordError
        A file cut short, a numerical Hessian that is not finished, an output that did not end normally.
    """
    sections = _sections(read_text(path))
    for name in ("atoms", "hessian"):
        if name not in sections:
            raise RecordError(f"no section ${name}: cut short or damaged")
    numbers, masses, positions = _atoms(sections["atoms"])
    run = Run("ORCA", numbers, positions, _hessian(sections["hessian"], len(numbers)), masses=masses)
    if "job_list" in sections:
        undone = [line.split()[0] for line in sections["job_list"][1:] if "0" in line.split()[1:]]
        if undone:
            raise RecordError(f"the numerical Hessian is not finished: atom {undone[0]} is not done")
    if "multiplicity" in sections:
        run.multiplicity = int(sections["multiplicity"][0])
    engrad = path.with_suffix(".engrad")
    if engrad.is_file():
        _take_engrad(run, engrad)
    for output in (path.with_suffix(".out"), path.with_suffix(".log")):
        if output.is_file():
            _take_output(run, output)
            break
    return run


def _sections(text: str) -> dict[str, list[str]]:
    """Lines of each ``$name`` without comments and blank lines."""
    if "$orca_hessian_file" not in text:
        raise RecordError("no Hessian file of ORCA ($orca_hessian_file)")
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("$"):
            lines = found[line[1:].strip()] = []
        elif line.strip() and not line.startswith("#"):
            lines.append(line)
    return found


def _atoms(lines: list[str]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Atomic numbers, masses (u) and positions (A)."""
    rows = [line.split() for line in lines[1 : int(lines[0]) + 1]]
    if len(rows) != int(lines[0]):
        raise RecordError(f"$atoms has {len(rows)} of {lines[0].strip()} atoms: cut short")
    values = numbers_of("$atoms", [word for row in rows for word in row[1:]], 4 * len(rows)).reshape(-1, 4)
    return [atomic_numbers[element(row[0])[0]] for row in rows], values[:, 0], values[:, 1:] * Bohr


def _hessian(lines: list[str], atoms: int) -> np.ndarray:
    """(3N, 3N) in eV/A^2 from blocks of five or six columns under their indices."""
    size = int(lines[0])
    if size != 3 * atoms:
        raise RecordError(
            f"$hessian has {size} rows where {atoms} atoms have {3 * atoms}: of which coordinates is not stated"
        )
    matrix = column_blocks(lines[1:], size, size, "$hessian")
    return matrix * Hartree / Bohr**2


def _take_engrad(run: Run, path: Path) -> None:
    """Energy and gradient of an ``.engrad`` file, if its geometry is that of the Hessian."""
    words = [word for line in read_text(path).splitlines() if not line.startswith("#") for word in line.split()]
    n = len(run.numbers)
    if len(words) != 2 + 7 * n or int(words[0]) != n:
        raise RecordError(f"{path.name} is damaged or of another number of atoms than {n}")
    values = numbers_of(path.name, words[1:])
    rows = values[1 + 3 * n :].reshape(n, 4)
    if wrong := same_place(run.numbers, run.positions, rows[:, 0].astype(int), rows[:, 1:] * Bohr):
        run.notes.append(f"{path.name} {wrong} and is not used")
        return
    run.energy = float(values[0]) * Hartree
    run.forces = -values[1 : 1 + 3 * n].reshape(n, 3) * Hartree / Bohr
    run.taken.append(path)


def _take_output(run: Run, path: Path) -> None:
    """Version, method, charge, and energy and gradient of the Hessian's geometry where the output has them."""
    text = read_text(path)
    if "O   R   C   A" not in text:
        return
    if "ORCA TERMINATED NORMALLY" not in text:
        raise RecordError(f"the calculation of {path.name} did not end normally")
    run.taken.append(path)
    if match := re.search(r"Program Version\s+(\S+)", text):
        run.version = match[1]
    run.method = " ".join(x.strip() for x in re.findall(r"^\|\s*\d+>\s*!\s*(.*)$", text, re.MULTILINE))
    if match := re.search(r"Total Charge\s+Charge\s+\.+\s+(-?\d+)", text):
        run.charge = int(match[1])
    if match := re.search(r"Multiplicity\s+Mult\s+\.+\s+(\d+)", text):
        run.multiplicity = int(match[1])
    blocks = []
    for part in text.split(_COORDINATES)[1:]:
        lines = part.splitlines()
        rows = [match for line in lines[: len(run.numbers) + 5] if (match := _ROW.match(line))]
        if len(rows) != len(run.numbers):
            continue
        block = Block(
            [atomic_numbers[row[1]] for row in rows],
            np.array([[float(x) for x in row[2].split()] for row in rows]) * Bohr,
        )
        if same_place(run.numbers, run.positions, block.numbers, block.positions):
            continue
        if "NOT CONVERGED" in part:
            raise RecordError(f"the wave function at this geometry is not converged ({path.name})")
        if energies := re.findall(r"^FINAL SINGLE POINT ENERGY\s+(-?\d+\.\d+)", part, re.MULTILINE):
            block.energy = float(energies[0]) * Hartree
        gradient = [[float(x) for x in m[1].split()] for line in lines if (m := _GRADIENT.match(line))]
        if len(gradient) == len(run.numbers):
            block.forces = -np.array(gradient) * Hartree / Bohr
        blocks.append(block)
    take_blocks(run, blocks)
