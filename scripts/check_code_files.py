"""Compare our reading of outputs of quantum-chemistry codes with independent ones: ``python check_code_files.py DIR``.

DIR holds files of any of the codes of ``hint_plugins.datasets.codes``: test data of cclib, iodata, TAMkin, phonopy, ...
Where cclib or iodata read the Hessian of a file (``pip install cclib qc-iodata``), theirs is compared; otherwise the
numbers are taken from the file in a way of its own here, which knows nothing of the layout but their order. Exit
status 1 if a Hessian differs by more than 1e-6 eV/A^2, or if nothing could be compared.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase.data import atomic_masses
from ase.units import Bohr, Hartree, _amu, _me

from hint_plugins.datasets.codes import find_runs, read_run
from hint_plugins.datasets.codes.projection import rigid_motions
from hint_plugins.datasets.codes.run import NoHessian, Run
from hint_plugins.datasets.record import RecordError

AU = Hartree / Bohr**2
LIMIT = 1e-6
#: 1 THz^2 in eV/A^2/u, with the constants of VASP.
THZ2 = 1.6605402e-27 * 1e4 / 1.60217733e-19 * (2 * np.pi) ** 2
_NUMBER = r"-?\d+\.\d+(?:[EeDd][+-]\d+)?"


def floats(text: str) -> np.ndarray:
    """All numbers with a decimal point."""
    return np.array([x.upper().replace("D", "E") for x in re.findall(_NUMBER, text)], dtype=float)


def from_columns(values: np.ndarray, size: int, each: int) -> np.ndarray:
    """Matrix from blocks of ``each`` columns that follow each other, whole rows."""
    parts, place = [], 0
    for start in range(0, size, each):
        width = min(each, size - start)
        parts.append(values[place : place + size * width].reshape(size, width))
        place += size * width
    return np.concatenate(parts, axis=1)


def lower(values: np.ndarray, size: int) -> np.ndarray:
    matrix = np.zeros((size, size))
    matrix[np.tril_indices(size)] = values[: size * (size + 1) // 2]
    return np.maximum(matrix, matrix.T) + np.minimum(matrix, matrix.T) - np.diag(matrix.diagonal())


def by_iodata(path: Path, run: Run) -> np.ndarray:
    from iodata import load_one

    return load_one(str(path), fmt="fchk" if "fch" in path.name else "qchemlog").athessian * AU


def by_cclib(path: Path, run: Run) -> np.ndarray:
    import cclib

    return np.array(cclib.io.ccread(str(path)).hessian) * AU


def fchk(path: Path, run: Run) -> np.ndarray:
    section = path.read_text().partition("Cartesian Force Constants")[2].partition("\n")[2]
    return lower(floats(section), 3 * len(run.numbers)) * AU


def archive(path: Path, run: Run) -> np.ndarray:
    text = re.sub(r"\r?\n ?", "", path.read_text(errors="replace")).replace("|", "\\")
    place = [
        m.end()
        for m in re.finditer(r"NImag=\d+\\\\", text)
        if "\\Freq\\" in text[text.rfind("1\\1\\", 0, m.end()) :][:60]
    ][-1]
    values = np.array(text[place:].partition("\\\\")[0].split(","), dtype=float)
    return lower(values, 3 * len(run.numbers)) * AU


def orca(path: Path, run: Run) -> np.ndarray:
    section = path.read_text().partition("$hessian")[2].partition("$")[0]
    lines = [line.split() for line in section.splitlines()[2:]]
    each = max(len(line) for line in lines if all(x.isdigit() for x in line))
    return from_columns(floats(section), 3 * len(run.numbers), each) * AU


def flat(path: Path, run: Run) -> np.ndarray:
    """``$hessian`` of Turbomole and xtb."""
    for name in ("nprhessian", "hessian"):
        file = path.parent / name
        if file.is_file():
            return floats(file.read_text()).reshape(3 * len(run.numbers), -1) * AU
    raise LookupError("no file nprhessian or hessian")


def vasprun(path: Path, run: Run) -> np.ndarray:
    root = ElementTree.parse(path).getroot()
    values = np.array([[float(x) for x in row.text.split()] for row in root.iterfind(".//varray[@name='hessian']/v")])
    thz = any((e.text or "").strip() == "THz^2" for e in root.iterfind(".//dynmat/i[@name='unit']"))
    kinds = [[c.text for c in rc] for rc in root.iterfind(".//array[@name='atomtypes']/set/rc")]
    root_masses = np.sqrt(np.repeat([float(k[2]) for k in kinds for _ in range(int(k[0]))], 3))
    return -values * np.outer(root_masses, root_masses) * (THZ2 if thz else 1.0)


def outcar(path: Path, run: Run) -> np.ndarray:
    section = path.read_text().partition("SECOND DERIVATIVES")[2]
    size = 3 * len(run.numbers)
    return -floats(section)[: size * size].reshape(size, size)


def psi4(path: Path, run: Run) -> np.ndarray:
    files = sorted(path.parent.glob(f"{path.stem}.*.hess"))
    if files:
        return floats(files[-1].read_text()).reshape(3 * len(run.numbers), -1) * AU
    section = path.read_text().rpartition("## Total Hessian (Symmetry 0) ##")[2]
    return from_columns(floats(section), 3 * len(run.numbers), 5) * AU


def qchem(path: Path, run: Run) -> np.ndarray:
    section = re.split(r"\n\s*(?:Hessian of the SCF Energy|Final Hessian\.)\s*\n", path.read_text())[-1]
    return from_columns(floats(section), 3 * len(run.numbers), 6) * AU


def nwchem(path: Path, run: Run) -> np.ndarray:
    return lower(floats(path.with_suffix(".hess").read_text()), 3 * len(run.numbers)) * AU


def nwchem_printed(path: Path, run: Run) -> np.ndarray:
    """Rows of the lower triangle, put together from the blocks, six digits. (cclib 1.8.1 shifts its second block.)"""
    section = path.read_text().partition("MASS-WEIGHTED NUCLEAR HESSIAN")[2].partition("-----\n          NORMAL")[0]
    parts: dict[int, list[float]] = {}
    for line in section.splitlines():
        if match := re.match(r"\s*(\d+)\s+(?=-?\d\.\d+D)", line):
            parts.setdefault(int(match[1]), []).extend(floats(line[match.end() :]))
    size = 3 * len(run.numbers)
    assert run.masses is not None
    weights = np.sqrt(np.repeat(run.masses, 3) / 1000)
    return lower(np.concatenate([parts[k + 1] for k in range(size)]), size) * np.outer(weights, weights) * AU


def cp2k(path: Path, run: Run) -> np.ndarray:
    section = path.read_text().rpartition("VIB| Hessian in cartesian coordinates")[2]
    assert run.masses is not None
    weights = np.sqrt(np.repeat(run.masses * _amu / _me, 3))
    return from_columns(floats(section), 3 * len(run.numbers), 5) * 1e-6 * np.outer(weights, weights) * AU


OTHERS: dict[str, list[Callable[[Path, Run], np.ndarray]]] = {
    "gaussian-fchk": [by_iodata, by_cclib, fchk],
    "gaussian": [archive],
    "orca": [orca],
    "xtb": [flat],
    "turbomole": [flat],
    "vasprun": [vasprun],
    "outcar": [outcar],
    "psi4": [by_cclib, psi4],
    "qchem": [by_cclib, by_iodata, qchem],
    "nwchem": [nwchem, nwchem_printed],
    "cp2k": [cp2k],
}  # fmt: skip


def difference(path: Path, run: Run, other: np.ndarray, reader: Callable[..., np.ndarray]) -> float:
    """Largest difference in eV/A^2, beyond the digits of a printed matrix.

    A Hessian whose rotations were put back is compared in its projected form, beyond what the code left of them.
    """
    ours, rounding = run.hessian, 0.0
    if any("put back" in note for note in run.notes):
        motions = rigid_motions(run.positions)
        w = np.repeat(np.ones(len(run.numbers)) if run.code == "xtb" else atomic_masses[run.numbers], 3)
        away = np.eye(len(ours)) - motions @ np.linalg.pinv((motions.T * w) @ motions) @ (motions.T * w)
        rounding = float(np.abs(away.T @ other @ away - other).max())
        ours = away.T @ ours @ away
    elif reader is nwchem_printed and path.with_suffix(".hess").is_file():
        rounding = 1e-5 * float(np.abs(other).max())
    return float(np.maximum(np.abs(ours - other) - rounding, 0.0).max())


def main(directory: Path) -> int:
    compared: Counter[str] = Counter()
    worst = 0.0
    for path, kind in find_runs(directory):
        name = path.relative_to(directory)
        try:
            run = read_run(path, kind)
        except NoHessian:
            continue
        except RecordError as error:
            print(f"refused   {kind:14} {name}: {error}")
            continue
        found = []
        for other in OTHERS[kind]:
            try:
                matrix = other(path, run)
            except Exception as error:  # a library that does not read this file, or is not installed
                found.append(f"{other.__name__}: {type(error).__name__}")
                continue
            apart = difference(path, run, matrix, other)
            found.append(f"{other.__name__} {apart:.1e}")
            compared[f"{kind} by {other.__name__}"] += 1
            worst = max(worst, apart)
        print(f"{'compared':9} {kind:14} {name}: {', '.join(found)}")
    print("\n".join(f"{count:4} {what}" for what, count in sorted(compared.items())))
    print(f"largest difference {worst:.1e} eV/A^2, limit {LIMIT:g}")
    return int(worst > LIMIT or not compared)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
