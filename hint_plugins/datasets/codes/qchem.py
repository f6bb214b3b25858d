"""Q-Chem: the last Hessian of an output, or of the ``.fchk`` file beside it, with what belongs to its geometry.

Hessian, gradient and geometry are in the frame of the ``Standard Nuclear Orientation``; the Hessian is Cartesian and
not mass-weighted. A frequency job prints no gradient: it is found where an optimisation or force job of the same output
ended at that geometry.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from ase.units import Bohr, Hartree

from hint_plugins.datasets.codes.blocks import Block, column_blocks, run_of, take_blocks
from hint_plugins.datasets.codes.run import NoHessian, Run, read_text
from hint_plugins.datasets.record import RecordError
from hint_plugins.structures.species import element

_GEOMETRY = "Standard Nuclear Orientation (Angstroms)"
_ROW = re.compile(r"^\s*\d+\s+([A-Z][a-z]?)\s+(-?\d+\.\d+)\s+(-?\d+\.\d+)\s+(-?\d+\.\d+)\s*$")
_HESSIAN = re.compile(r"^\s*(?:Hessian of the SCF Energy|Final Hessian\.)\s*$", re.MULTILINE)


def read_qchem(path: Path) -> Run:
    """Read an output of Q-Chem.

    Raises
    ------
    NoHessian
        Without a printed Hessian.
    RecordError
        An output that did not end normally, an excited state, a Hessian cut short.
    """
    text = read_text(path)
    if _HESSIAN.search(text) is None:
        raise NoHessian("no printed Hessian: if there is a .fchk file (gui = 2), read that")
    if "Thank you very much for using Q-Chem" not in text[text.rfind(_GEOMETRY) :]:
        raise RecordError("the last job did not end normally")
    return describe(run_of("Q-Chem", qchem_blocks(text), "Hessian"), text)


def describe(run: Run, text: str) -> Run:
    """Version, method, charge, multiplicity and masses (isotopes), as the output states them."""
    if match := re.search(r"Q-Chem (\d+\.\d+(?:\.\d+)?)", text):
        run.version = match[1]
    keys: dict[str, str] = {}
    for section in re.findall(r"^\s*\$rem\s*\n(.*?)^\s*\$end", text, re.MULTILINE | re.DOTALL | re.IGNORECASE):
        keys |= {key.lower(): value for key, value in re.findall(r"^\s*(\w+)[ =\t]+(\S+)", section, re.MULTILINE)}
    run.method = f"{keys.get('method') or keys.get('exchange', '')}/{keys.get('basis', '')}".strip("/")
    if match := re.search(r"^\$molecule\s*\n\s*(-?\d+)\s+(\d+)\s*$", text, re.MULTILINE | re.IGNORECASE):
        run.charge, run.multiplicity = int(match[1]), int(match[2])
    masses = re.findall(r"Atom\s+\d+\s+Element\s+\S+\s+Has Mass\s+(\d+\.\d+)", text)[-len(run.numbers) :]
    if len(masses) == len(run.numbers):
        run.masses = np.array(masses, dtype=float)
    if "cis_n_roots" in keys or "ee_states" in keys:
        raise RecordError("excited states: which of the energies belongs to the Hessian is not stated")
    return run


def qchem_blocks(text: str) -> list[Block]:
    """Geometry, energy, gradient and Hessian, geometry by geometry."""
    blocks = []
    for part in text.split(_GEOMETRY)[1:]:
        rows = _rows(part)
        block = Block(
            [atomic_numbers[element(row[1])[0]] for row in rows],
            np.array([[float(x) for x in row.groups()[1:]] for row in rows]),
        )
        n = len(rows)
        if energies := re.findall(r"Total energy in the final basis set =\s+(-?\d+\.\d+)", part):
            block.energy = float(energies[-1]) * Hartree
        if (place := part.rfind("Gradient of SCF Energy\n")) >= 0:
            gradient = column_blocks(part[place:].splitlines()[1:], 3, n, "the gradient")
            block.forces = -gradient.T * Hartree / Bohr
        if match := _HESSIAN.search(part):
            hessian = column_blocks(part[match.end() :].splitlines(), 3 * n, 3 * n, "the Hessian")
            block.hessian = hessian * Hartree / Bohr**2
        blocks.append(block)
    return blocks


def _rows(part: str) -> list[re.Match[str]]:
    rows: list[re.Match[str]] = []
    for line in part.splitlines()[1:]:
        if match := _ROW.match(line):
            rows.append(match)
        elif rows:
            break
    return rows


def complete_fchk(run: Run, path: Path) -> None:
    """Energy, gradient and description of a ``.fchk`` of Q-Chem, which lacks them, from the output beside it."""
    for output in (path.with_suffix(".out"), path.with_suffix(".log")):
        if output.is_file() and "Q-Chem" in (text := read_text(output)):
            run.code = "Q-Chem"
            take_blocks(describe(run, text), qchem_blocks(text))
            run.taken.append(output)
            return
