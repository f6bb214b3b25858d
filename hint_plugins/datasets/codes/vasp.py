"""VASP with ``IBRION`` 5 to 8: ``vasprun.xml``, or ``OUTCAR`` where there is none.

Geometry, energy, forces and stress are those of the first calculation of the file (with IBRION 5 and 6 displaced ones
follow), read by ASE. The second derivatives of ``vasprun.xml`` are read by phonopy, which takes out the masses and,
since VASP 6, the unit THz^2; those of ``OUTCAR`` are forces over displacements, of the opposite sign. The energy is
the free energy (TOTEN), whose derivatives forces and Hessian are; ``energy_sigma0`` in ``info`` is VASP's
extrapolation to no smearing.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from ase import Atoms

from hint_plugins.curvature.layouts import Layout, convert
from hint_plugins.datasets.codes.run import SAME_PLACE, NoHessian, Run, read_text
from hint_plugins.datasets.record import RecordError

#: What is missing from an INCAR's functional when it is not named, by the name of the pseudopotentials.
_FUNCTIONALS = {"PE": "PBE", "91": "PW91", "PS": "PBEsol", "RP": "RPBE", "RE": "revPBE", "CA": "LDA", "AM": "AM05"}


def read_vasprun(path: Path) -> Run:
    """Read ``vasprun.xml`` (also ``.gz``).

    Raises
    ------
    NoHessian
        Without ``dynmat``.
    RecordError
        Selective dynamics, an electronic loop that ended at NELM, a file cut short, a first geometry that is displaced.
    """
    from phonopy.interface.vasp import parse_force_constants

    text = read_text(path)
    if '<varray name="hessian"' not in text:
        if 5 <= int(_tag(text, "IBRION") or 0) <= 8:
            raise RecordError("IBRION is 5 to 8, but there are no second derivatives: the run is not finished")
        raise NoHessian("no second derivatives")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise RecordError(f"not whole XML: cut short or damaged ({error})") from None
    calculations = root.findall("calculation")
    first = root.find("structure[@name='initialpos']/varray[@name='positions']")
    start = calculations[0].find("structure/varray[@name='positions']")
    if first is None or start is None or np.abs(_array(first) - _array(start)).max() > SAME_PLACE:
        raise RecordError(
            "the first calculation is not at the starting geometry: no forces of the undisplaced structure"
        )
    _converged(calculations, _tag(text, "NELM"), _tag(text, "IBRION"))
    run = _run(path, "vasp-xml")
    rows = root.findall("calculation/dynmat/varray[@name='hessian']/v")
    _all_move(len(rows), len(run.numbers))
    run.hessian = _matrix(parse_force_constants(path)[0])
    run.version = (
        _text(root, "generator/i[@name='version']") + " " + _text(root, "generator/i[@name='subversion']")
    ).strip()
    run.masses = _masses(root)
    potentials = [(c[4].text or "").strip() for c in root.findall("atominfo/array[@name='atomtypes']/set/rc")]
    run.method = _method(
        _tag(text, "GGA"), _tag(text, "METAGGA"), _tag(text, "LHFCALC"), _tag(text, "ENMAX"), potentials
    )
    return run


def read_outcar(path: Path) -> Run:
    """Read ``OUTCAR`` (also ``.gz``). Its second derivatives are not symmetrised.

    Raises
    ------
    NoHessian
        Without ``SECOND DERIVATIVES``.
    RecordError
        Selective dynamics, a file cut short.
    """
    text = read_text(path)
    before, found, after = text.partition("SECOND DERIVATIVES (NOT SYMMETRIZED)")
    if not found:
        if re.search(r"IBRION =\s+[5-8]\b", text):
            raise RecordError("IBRION is 5 to 8, but there are no second derivatives: the run is not finished")
        raise NoHessian("no second derivatives")
    run = _run(path, "vasp-out")
    lines = after.splitlines()
    labels = lines[2].split()
    _all_move(len(labels), len(run.numbers))
    values = [line.split()[1:] for line in lines[3 : 3 + len(labels)]]
    try:
        run.hessian = -np.array(values, dtype=np.float64).reshape(len(labels), len(labels))
    except ValueError:
        raise RecordError("the second derivatives are cut short") from None
    if match := re.search(r"vasp\.(\S+.*)", text):
        run.version = match[1].strip()
    encut = re.search(r"ENCUT\s*=\s*([\d.]+)", before)
    gga = re.search(r"GGA\s+=\s+(\S+)\s+GGA type", before)
    potentials = list(dict.fromkeys(re.findall(r"TITEL\s*=\s*(.*?)\s*$", before, re.MULTILINE)))
    hybrid = re.search(r"LHFCALC\s*=\s*(\S)", before)
    run.method = _method(gga[1] if gga else "", "", hybrid[1] if hybrid else "", encut[1] if encut else "", potentials)
    return run


def _run(path: Path, format: str) -> Run:
    """Geometry, energy, forces and stress of the first calculation, by ASE."""
    from ase.io import read

    try:
        atoms = read(path.absolute(), index=0, format=format)
    except Exception as error:  # ASE's readers raise whatever a damaged file triggers
        raise RecordError(f"ASE cannot read its first calculation ({type(error).__name__}: {error})") from None
    assert isinstance(atoms, Atoms)
    results = dict(atoms.calc.results) if atoms.calc is not None else {}
    atoms.set_constraint()
    run = Run("VASP", atoms.numbers, atoms.positions, np.zeros((0, 0)), cell=atoms.cell.array)
    run.energy, run.forces = results.get("free_energy"), results.get("forces")
    run.stress = results.get("stress")
    if "energy" in results:
        run.extra["energy_sigma0"] = float(results["energy"])
    return run


def _all_move(rows: int, atoms: int) -> None:
    if rows != 3 * atoms:
        raise RecordError(
            f"second derivatives by {rows} coordinates where {atoms} atoms have {3 * atoms} (selective dynamics); "
            "parts of a Hessian are not read"
        )


def _converged(calculations: list[ElementTree.Element], limit: str, kind: str) -> None:
    """With finite differences each calculation is one electronic loop; with DFPT the steps of all loops are listed."""
    for index, calculation in enumerate(calculations):
        if kind in ("5", "6") and limit and len(calculation.findall("scstep")) >= int(limit):
            raise RecordError(f"the electronic loop of calculation {index} ended at NELM = {limit}, not converged")


def _matrix(constants: np.ndarray) -> np.ndarray:
    return convert(constants, Layout.BLOCKS, Layout.FLAT)


def _masses(root: ElementTree.Element) -> np.ndarray:
    kinds = [[entry.text or "" for entry in row] for row in root.findall("atominfo/array[@name='atomtypes']/set/rc")]
    return np.concatenate([np.full(int(kind[0]), float(kind[2])) for kind in kinds])


def _array(element: ElementTree.Element) -> np.ndarray:
    return np.array([[float(x) for x in (row.text or "").split()] for row in element])


def _text(root: ElementTree.Element, name: str) -> str:
    element = root.find(name)
    return (element.text or "").strip() if element is not None else ""


def _tag(text: str, name: str) -> str:
    """The last value of a tag: the parameters that VASP used come after the INCAR."""
    found = re.findall(rf'<i[^>]* name="{name}">\s*(\S*)\s*</i>', text)
    return found[-1] if found else ""


def _method(gga: str, metagga: str, hybrid: str, encut: str, potentials: list[str]) -> str:
    """Functional, cutoff and pseudopotentials in words."""
    name = _FUNCTIONALS.get(gga.upper(), gga.strip("-"))
    if metagga.strip("-").upper() not in ("", "NONE", "F"):
        name = metagga
    if not name:
        name = "PBE" if any("PBE" in p for p in potentials) else "functional of the pseudopotentials"
    parts = [name + (" hybrid" if hybrid.upper().startswith("T") else "")]
    if encut:
        parts.append(f"ENCUT {float(encut):g} eV")
    return ", ".join([*parts, *potentials])
