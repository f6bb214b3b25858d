"""CP2K: the Hessian that a vibrational analysis prints, with energy and forces of the same geometry.

``VIB| Hessian in cartesian coordinates`` is mass-weighted (electron masses) and multiplied by 10^6. The analysis prints
the forces of displaced geometries only; energy and forces come from the output of an ``ENERGY_FORCE`` run in the same
directory, if its coordinates are the same.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from ase.units import Bohr, Hartree

from hint_plugins.datasets.codes.run import NoHessian, Run, numbers_of, read_text, same_place
from hint_plugins.datasets.record import RecordError
from hint_plugins.structures.species import element
from hint_plugins.units import ELECTRON_MASSES

_HESSIAN = "VIB| Hessian in cartesian coordinates"
_COORDINATES = re.compile(r"MODULE (\w+):\s+ATOMIC COORDINATES IN ANGSTROM", re.IGNORECASE)
_ATOM = re.compile(r"^\s*\d+\s+\d+\s+([A-Z][a-z]?)\w*(?:\s+\d+)?((?:\s+-?\d+\.\d+){5})\s*$")
_FORCE = re.compile(
    r"^\s*(?:\d+\s+\d+\s+[A-Z]\w*|FORCES\|\s+\d+)((?:\s+-?\d+\.\d+(?:E[+-]\d+)?){3})(?:\s+\d\.\d+(?:E[+-]\d+)?)?\s*$"
)
_ENERGY = re.compile(r"ENERGY\| Total FORCE_EVAL.*?energy.*?:?\s+(-?\d+\.\d+)\s*$", re.MULTILINE)


def read_cp2k(path: Path) -> Run:
    """Read an output of a vibrational analysis.

    Raises
    ------
    NoHessian
        Without printed Hessian.
    RecordError
        Frozen atoms, a Hessian cut short, a table of atoms that is not understood, a wave function that is not
        converged.
    """
    text = read_text(path)
    before, found, after = text.rpartition(_HESSIAN)
    if not found:
        raise NoHessian("no Hessian: VIBRATIONAL_ANALYSIS/PRINT/PROGRAM_RUN_INFO ON prints it")
    if "SCF run NOT converged" in text:
        raise RecordError("the wave function at a displaced geometry is not converged")
    numbers, positions, masses = _atoms(before)
    weights = np.sqrt(np.repeat(masses * ELECTRON_MASSES, 3))
    hessian = _hessian(after, 3 * len(numbers)) * 1e-6 * np.outer(weights, weights) * Hartree / Bohr**2
    run = Run("CP2K", numbers, positions, hessian, masses=masses)
    if not re.search(r"CELL\| Periodicity\s+NONE", text):
        run.cell = _cell(text)
    if match := re.search(r"CP2K\| version string:\s+CP2K version (\S+)", text):
        run.version = match[1]
    functionals = list(dict.fromkeys(re.findall(r"FUNCTIONAL\| +([\w-]+) *:", text)))
    module = _COORDINATES.search(text)
    run.method = "+".join(functionals) or ("xTB" if "xTB|" in text else module[1] if module else "")
    if match := re.search(r"DFT\| Charge\s+(-?\d+)", text):
        run.charge = int(match[1])
    if match := re.search(r"DFT\| Multiplicity\s+(\d+)", text):
        run.multiplicity = int(match[1])
    for other in sorted({*path.parent.glob("*.out"), *path.parent.glob("*.log")} - {path}):
        if run.forces is None:
            _take_forces(run, other)
    return run


def _atoms(text: str) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Atomic numbers, positions (A) and masses (u) of the last table."""
    heads = list(_COORDINATES.finditer(text))
    if not heads:
        raise RecordError("no atomic coordinates")
    rows: list[re.Match[str]] = []
    for line in text[heads[-1].end() :].splitlines():
        if match := _ATOM.match(line):
            rows.append(match)
        elif rows:
            break
    values = numbers_of("the atoms", [row[2] for row in rows], 5 * len(rows)).reshape(-1, 5)
    numbers = [atomic_numbers[element(row[1])[0]] for row in rows]
    odd = np.abs(atomic_masses[numbers] - values[:, 4]) > 2.5  # tritium is 2 u heavier than hydrogen
    if not rows or odd.any():
        raise RecordError("the table of atoms is not understood: kinds and masses do not fit")
    return numbers, values[:, :3], values[:, 4]


def _hessian(text: str, size: int) -> np.ndarray:
    """Rows of number, symbol and five values under the numbers of their columns."""
    matrix = np.full((size, size), np.nan)
    columns: list[int] = []
    for line in text.splitlines():
        words = line.split()
        if words and all(word.isdigit() for word in words):
            columns = [int(word) - 1 for word in words]
        elif len(words) == len(columns) + 2 and words[0].isdigit():
            row = int(words[0]) - 1
            if row >= size or columns[-1] >= size:
                raise RecordError(f"the Hessian has more than {size} rows or columns")
            matrix[row, columns] = numbers_of("the Hessian", words[2:], len(columns))
        elif words and columns:
            break
    if np.isnan(matrix).any():
        raise RecordError(f"the Hessian has less than {size} rows and columns: frozen atoms, or cut short")
    return matrix


def _cell(text: str) -> np.ndarray:
    rows = re.findall(r"CELL\| Vector [abc] \[angstrom\]:((?:\s+-?\d+\.\d+){3})", text, re.IGNORECASE)
    if len(rows) < 3:
        raise RecordError("no cell")
    return numbers_of("the cell", rows[:3], 9).reshape(3, 3)


def _take_forces(run: Run, path: Path) -> None:
    """Energy and forces of a single point at the same coordinates."""
    text = read_text(path)
    if "CP2K|" not in text or _HESSIAN in text or not (energies := _ENERGY.findall(text)):
        return
    try:
        numbers, positions, _ = _atoms(text)
    except RecordError:
        return
    forces = [match[1] for line in text.splitlines() if (match := _FORCE.match(line))]
    if same_place(run.numbers, run.positions, numbers, positions) or len(forces) != len(numbers) or len(energies) != 1:
        return
    if "SCF run NOT converged" in text:
        raise RecordError(f"the wave function of {path.name} is not converged")
    run.energy = float(energies[0]) * Hartree
    run.forces = numbers_of("the forces", forces, 3 * len(numbers)).reshape(-1, 3) * Hartree / Bohr
    run.taken.append(path)
