"""NWChem: geometry, energy and gradient from an output, the Hessian from ``NAME.hess`` beside it.

The output prints the Hessian mass-weighted and in six digits (cclib 1.8.1 puts those from the eleventh column on in the
wrong place); ``NAME.hess`` has eleven, is not mass-weighted, and names no geometry: the two are compared.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from ase.units import Bohr, Hartree

from hint_plugins.datasets.codes.blocks import Block, run_of
from hint_plugins.datasets.codes.run import NoHessian, Run, numbers_of, read_text, triangle
from hint_plugins.datasets.record import RecordError
from hint_plugins.structures.species import element

#: What starts a geometry: the table of atoms of the gradient, or that of the frequencies.
_START = re.compile(r"^.*(?:ENERGY GRADIENTS|-{5,} Atom information -{5,})\s*$", re.MULTILINE)
_GRADIENT = re.compile(r"^\s*\d+\s+([A-Z][a-z]?)\S*((?:\s+-?\d+\.\d+){6})\s*$")
_ATOM = re.compile(r"^\s*([A-Z][a-z]?)\S*\s+\d+((?:\s+-?\d\.\d+D[+-]\d+){4})\s*$")
_ENERGY = re.compile(r"Total (?:SCF|DFT) energy =\s+(-?\d+\.\d+)")
_CORRELATED = re.compile(
    r"^\s*(?:Total MP2 energy|(?:CCSD|MP2|CCSD\(T\)|CR-\S+) total energy)", re.IGNORECASE | re.MULTILINE
)
_HESSIAN = "MASS-WEIGHTED NUCLEAR HESSIAN (Hartree/Bohr/Bohr/Kamu)"
#: Digits of the printed matrix: numbers of the two files may differ by this part of the largest number in their row.
_PRINTED = 1e-5


def read_nwchem(path: Path) -> Run:
    """Read an output of NWChem with a frequency task.

    Raises
    ------
    NoHessian
        Without frequency task.
    RecordError
        A correlated method, a ``.hess`` file of another calculation, an output cut short.
    """
    text = read_text(path)
    starts = list(_START.finditer(text))
    if not starts:
        raise NoHessian("no frequency task")
    if re.search(r"Calculation failed to converge", text):
        raise RecordError("a wave function of this output is not converged")
    ends = [start.start() for start in starts[1:]] + [len(text)]
    blocks, masses, before = [], None, 0
    for start, end in zip(starts, ends, strict=True):
        energies = _ENERGY.findall(text[before : start.start()])
        block, found = _block(text[start.end() : end], "information" in start[0])
        if energies:
            block.energy = float(energies[-1]) * Hartree
        if block.hessian is not None:
            masses = found
        blocks.append(block)
        before = start.start()
    run = run_of("NWChem", blocks, "mass-weighted Hessian of a frequency task")
    assert masses is not None
    if _CORRELATED.search(text):
        raise RecordError("a correlated method: only outputs of Hartree-Fock and DFT are read")
    run.masses = masses
    _take_file(run, path)
    if match := re.search(r"\(NWChem\) (\S+)", text):
        run.version = match[1]
    functional = re.search(r"^\s*(\S.*?) Method XC (?:Potential|Functional)", text, re.MULTILINE)
    basis = re.search(r"^\s*\*\s+library\s+\"?(\S+?)\"?\s*$", text, re.MULTILINE | re.IGNORECASE)
    run.method = f"{functional[1].strip() if functional else 'HF'}{'/' + basis[1] if basis else ''}"
    if match := re.search(r"^\s*Charge\s+:\s+(-?\d+)", text, re.MULTILINE):
        run.charge = int(match[1])
    if match := re.search(r"^\s*Spin multiplicity:\s+(\d+)", text, re.MULTILINE):
        run.multiplicity = int(match[1])
    return run


def _block(part: str, frequencies: bool) -> tuple[Block, np.ndarray]:
    rows = []
    for line in part.splitlines():
        if match := (_ATOM if frequencies else _GRADIENT).match(line):
            rows.append(match)
        elif rows:
            break
    if not rows:
        raise RecordError("a table of atoms without atoms: cut short")
    values = numbers_of("the atoms", [row[2] for row in rows]).reshape(len(rows), -1)
    block = Block([atomic_numbers[element(row[1])[0]] for row in rows], values[:, :3] * Bohr)
    if not frequencies:
        block.forces = -values[:, 3:] * Hartree / Bohr
    elif _HESSIAN in part:
        weights = np.sqrt(np.repeat(values[:, 3], 3) / 1000)
        printed = _printed(part.partition(_HESSIAN)[2], 3 * len(rows))
        block.hessian = printed * np.outer(weights, weights) * Hartree / Bohr**2
    return block, values[:, -1]


def _printed(text: str, size: int) -> np.ndarray:
    """The lower triangle, printed in blocks of ten columns; numbers of older versions may touch."""
    matrix = np.full((size, size), np.nan)
    first = 0
    for line in text.splitlines():
        words, row = line.split(), re.match(r"\s*(\d+)(?=[\s-])", line)
        if words and all(word.isdigit() for word in words):
            first = int(words[0]) - 1
        elif row and "D" in line:
            found = re.findall(r"-?\d\.\d+D[+-]\d\d", line)
            place = int(row[1]) - 1
            if place >= size or first + len(found) > size:
                raise RecordError("the printed Hessian is damaged")
            matrix[place, first : first + len(found)] = numbers_of("the printed Hessian", found)
            if place == size - 1 and first + len(found) == size:
                break
    matrix = np.where(np.isnan(matrix), matrix.T, matrix)
    if np.isnan(matrix).any():
        raise RecordError("the printed Hessian is cut short")
    return matrix


def _take_file(run: Run, path: Path) -> None:
    """Replace the printed Hessian by that of the ``.hess`` file, if it says the same."""
    file = path.with_suffix(".hess")
    if not file.is_file():
        run.notes.append(f"the Hessian has six digits: {file.name} is not there")
        return
    exact = triangle(numbers_of(file.name, read_text(file).split()), len(run.hessian)) * Hartree / Bohr**2
    scale = np.abs(exact).max(axis=1)
    if (np.abs(exact - run.hessian) > _PRINTED * np.sqrt(np.outer(scale, scale)) + 1e-3).any():
        raise RecordError(
            f"{file.name} differs from the printed Hessian by {np.abs(exact - run.hessian).max():.2g} eV/A^2"
        )
    run.hessian = exact
    run.taken.append(file)
