"""Psi4: the Hessian that its output prints (``print`` 3 or more) or the file that ``hessian_write true`` writes.

All is in the frame of the geometry that the output prints. Energies of Hartree-Fock and DFT only: an output of a
correlated method states several.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from ase.units import Bohr, Hartree

from hint_plugins.datasets.codes.blocks import Block, column_blocks, run_of
from hint_plugins.datasets.codes.run import NoHessian, Run, numbers_of, read_text, same_place
from hint_plugins.datasets.record import RecordError
from hint_plugins.structures.species import element

_GEOMETRY = re.compile(r"Geometry \(in (Bohr|Angstrom)\), charge = (-?\d+), multiplicity = (\d+):")
_ATOM = re.compile(r"^\s+([A-Z]+)\S*\s+(-?\d+\.\d+)\s+(-?\d+\.\d+)\s+(-?\d+\.\d+)\s+(\d+\.\d+)\s*$", re.IGNORECASE)
_ENERGY = re.compile(r"@\S*?(?:R|U|RO|CU)(?:HF|KS) Final Energy:\s+(-?\d+\.\d+)")
_CORRELATED = re.compile(
    r"^\s*\*?\s*(?:DF-|CD-)?(?:MP\d|OMP\d|CC\w+|CI\w*|REMP|LCCD|FNO)\S* .*total energy", re.I | re.M
)


def read_psi4(path: Path) -> Run:
    """Read an output of Psi4, with the ``.hess`` file of the same stem where the output prints no Hessian.

    Raises
    ------
    NoHessian
        Without Hessian.
    RecordError
        An output that did not end normally, a correlated method, a file that could belong to several geometries.
    """
    text = read_text(path)
    if not re.search(r"Psi4 (exiting successfully|stopped on)", text):
        raise RecordError("the output did not end normally")
    if "did not converge, but proceeding anyway" in text:
        raise RecordError("a wave function of this output is not converged")
    heads = list(_GEOMETRY.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    parts = [(head, text[head.end() : end]) for head, end in zip(heads, ends, strict=True)]
    parts = [(head, part) for head, part in parts if _rows(part)]
    if not parts:
        raise NoHessian("no geometry")
    blocks = [_block(head, part) for head, part in parts]
    files = sorted(path.parent.glob(f"{path.stem}.*.hess"))
    if not any(block.hessian is not None for block in blocks) and files:
        _take_file(blocks, files)
    run = run_of("Psi4", blocks, "Hessian: set print 3 (or more) or hessian_write true")
    run.taken += files
    if _CORRELATED.search(text):
        raise RecordError("a correlated method: only outputs of Hartree-Fock and DFT are read")
    head, part = parts[-1]
    run.masses = np.array([float(row[5]) for row in _rows(part)])
    run.charge, run.multiplicity = int(head[2]), int(head[3])
    if match := re.search(r"Psi4\s+(\d\S*)(?:\s+(?:release|driver))?\s*$", text, re.MULTILINE):
        run.version = match[1]
    functional = re.search(r"=> (?:Composite Functional|Composite|Functional): (\S+) <=", text)
    basis = re.search(r"Basis Set: (\S+)", text) or re.search(r"^\s*Name: (\S+)\s*$", text, re.MULTILINE)
    kind = "DFT" if re.search(r"\wKS (?:Reference|Final)", text) else "HF"
    run.method = "/".join(x for x in (functional[1] if functional else kind, basis[1] if basis else "") if x)
    return run


def _rows(part: str) -> list[re.Match[str]]:
    rows: list[re.Match[str]] = []
    for line in part.splitlines():
        if match := _ATOM.match(line):
            rows.append(match)
        elif rows:
            break
    return rows


def _block(head: re.Match[str], part: str) -> Block:
    rows = _rows(part)
    length = Bohr if head[1] == "Bohr" else 1.0
    block = Block(
        [atomic_numbers[element(row[1])[0]] for row in rows],
        np.array([[float(x) for x in row.groups()[1:4]] for row in rows]) * length,
    )
    n = len(rows)
    if energies := _ENERGY.findall(part):
        block.energy = float(energies[-1]) * Hartree
    if (place := part.rfind("-Total Gradient:")) >= 0:
        lines = part[place:].splitlines()[3 : 3 + n]
        values = numbers_of("the gradient", [word for line in lines for word in line.split()[1:]], 3 * n)
        block.forces = -values.reshape(n, 3) * Hartree / Bohr
    if (place := part.rfind("## Total Hessian (Symmetry 0) ##")) >= 0:
        hessian = column_blocks(part[place:].splitlines()[2:], 3 * n, 3 * n, "the Hessian")
        block.hessian = hessian * Hartree / Bohr**2
    return block


def _take_file(blocks: list[Block], files: list[Path]) -> None:
    """Give the last block the Hessian of the one file; it names no geometry, so that all blocks must agree."""
    if len(files) > 1:
        raise RecordError(f"{', '.join(file.name for file in files)}: which belongs to the output is not stated")
    last = blocks[-1]
    if any(same_place(last.numbers, last.positions, other.numbers, other.positions) for other in blocks):
        raise RecordError(
            f"{files[0].name} names no geometry, and the output has several (finite differences, an optimisation): use "
            "an output of an analytical Hessian alone"
        )
    words = read_text(files[0]).split()
    n = len(last.numbers)
    if [int(word) for word in words[:1]] != [n]:
        raise RecordError(f"{files[0].name} is of {words[:1]} atoms, the output of {n}")
    last.hessian = numbers_of(files[0].name, words[2:], 9 * n * n).reshape(3 * n, 3 * n) * Hartree / Bohr**2
