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
        An electronic loop that ended at NELM, a file cut short, a first geometry that is displaced, selective dynamics
        of single coordinates in an oblique cell.
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
    run.masses = _masses(root)
    if _selective(run, root, len(rows)):
        run.hessian = _block(root, rows, run)
    else:
        run.hessian = convert(parse_force_constants(path)[0], Layout.BLOCKS, Layout.FLAT)
    run.version = (
        _text(root, "generator/i[@name='version']") + " " + _text(root, "generator/i[@name='subversion']")
    ).strip()
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
        A file cut short, an electronic loop that ended at NELM, or coordinates that are not named.
    """
    text = read_text(path)
    before, found, after = text.partition("SECOND DERIVATIVES (NOT SYMMETRIZED)")
    if not found:
        if re.search(r"IBRION =\s+[5-8]\b", text):
            raise RecordError("IBRION is 5 to 8, but there are no second derivatives: the run is not finished")
        raise NoHessian("no second derivatives")
    limit, steps = re.search(r"NELM\s+=\s+(\d+)", before), re.findall(r"Iteration\s+(\d+)\(\s*(\d+)\)", before)
    if limit and re.search(r"IBRION =\s+[56]\b", before):
        ended = next((ion for ion, step in steps if int(step) >= int(limit[1])), None)
        if ended is not None:
            raise RecordError(f"the electronic loop of step {ended} ended at NELM = {limit[1]}, not converged")
    run = _run(path, "vasp-out")
    lines = after.splitlines()
    labels = lines[2].split()
    _take_labels(run, labels)
    values = [line.split()[1:] for line in lines[3 : 3 + len(labels)]]
    try:
        run.hessian = -np.array(values, dtype=np.float64).reshape(len(labels), len(labels))
    except ValueError:
        raise RecordError("the second derivatives are cut short") from None
    run.masses = _outcar_masses(before, len(run.numbers))
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


def _take_labels(run: Run, labels: list[str]) -> None:
    """Coordinates of ``OUTCAR``'s second derivatives from their names, ``1X 1Y ...``."""
    if len(labels) == 3 * len(run.numbers):
        return
    known: np.ndarray = np.zeros((len(run.numbers), 3), dtype=bool)
    for label in labels:
        if not (match := re.fullmatch(r"(\d+)([XYZ])", label)) or not 0 < int(match[1]) <= len(known):
            raise RecordError(f"second derivatives by {label!r}, which is no coordinate of {len(known)} atoms")
        known[int(match[1]) - 1, "XYZ".index(match[2])] = True
    if known.sum() != len(labels):
        raise RecordError("a coordinate of the second derivatives is named twice")
    _take_known(run, known)


def _selective(run: Run, root: ElementTree.Element, rows: int) -> bool:
    """Whether the second derivatives are those of some coordinates, which selective dynamics names."""
    if rows == 3 * len(run.numbers):
        return False
    flags = root.find("structure[@name='initialpos']/varray[@name='selective']")
    words = [] if flags is None else [(row.text or "").split() for row in flags]
    known = np.array([[word.upper().startswith("T") for word in row] for row in words], dtype=bool)
    if known.shape != (len(run.numbers), 3) or known.sum() != rows:
        raise RecordError(
            f"second derivatives by {rows} coordinates where {len(run.numbers)} atoms have {3 * len(run.numbers)}, and "
            f"selective dynamics lets {int(known.sum())} move: which coordinates they are is not stated"
        )
    assert run.cell is not None
    oblique = np.count_nonzero(np.abs(run.cell) > 1e-8) > 3
    if oblique and not (known.all(axis=1) == known.any(axis=1)).all():
        raise RecordError(
            "selective dynamics of single coordinates in a cell that is not rectangular: whether they are along the "
            "axes or along the cell is not stated; the OUTCAR of this run names them"
        )
    _take_known(run, known)
    return True


def _take_known(run: Run, known: np.ndarray) -> None:
    run.known, run.held = known, ~known
    run.notes.append(f"selective dynamics: the Hessian is the block of {int(known.sum())} free coordinates")


def _block(root: ElementTree.Element, rows: list[ElementTree.Element], run: Run) -> np.ndarray:
    """(b, b) in eV/A^2 from mass-weighted second derivatives of the opposite sign, as phonopy reads whole ones."""
    from phonopy.physical_units import get_physical_units

    values = np.array([[float(x) for x in (row.text or "").split()] for row in rows])
    if values.shape != (len(rows), len(rows)):
        raise RecordError(f"{values.size} second derivatives by {len(rows)} coordinates: cut short or damaged")
    assert run.masses is not None
    weights = np.sqrt(np.repeat(run.masses, 3)[np.asarray(run.known).reshape(-1)])
    values = -values * np.outer(weights, weights)
    unit = _text(root, "calculation/dynmat/i[@name='unit']")
    if unit not in ("", "THz^2"):
        raise RecordError(f"the second derivatives are in {unit}, which is not known here")
    return values / get_physical_units().DefaultToTHz ** 2 if unit else values


def _converged(calculations: list[ElementTree.Element], limit: str, kind: str) -> None:
    """With finite differences each calculation is one electronic loop; with DFPT the steps of all loops are listed."""
    for index, calculation in enumerate(calculations):
        if kind in ("5", "6") and limit and len(calculation.findall("scstep")) >= int(limit):
            raise RecordError(f"the electronic loop of calculation {index} ended at NELM = {limit}, not converged")


def _masses(root: ElementTree.Element) -> np.ndarray:
    kinds = [[entry.text or "" for entry in row] for row in root.findall("atominfo/array[@name='atomtypes']/set/rc")]
    return np.concatenate([np.full(int(kind[0]), float(kind[2])) for kind in kinds])


def _outcar_masses(text: str, atoms: int) -> np.ndarray | None:
    """Masses (u) of the kinds of atoms as used, isotopes included; None where they are not stated."""
    masses = re.search(r"Mass of Ions in am\s+POMASS =([ \d.]+)", text)
    counts = re.search(r"ions per type =([ \d]+)", text)
    if not (masses and counts):
        return None
    values, each = masses[1].split(), [int(count) for count in counts[1].split()]
    if len(values) != len(each) or sum(each) != atoms:
        raise RecordError(f"{len(values)} masses of ions for {len(each)} types and {atoms} atoms")
    return np.repeat([float(value) for value in values], each)


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
