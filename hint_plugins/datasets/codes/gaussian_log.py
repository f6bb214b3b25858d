"""Outputs of Gaussian: the archive at the end of each job, which states all of one calculation in one frame.

The archive holds geometry, energy, force constants (lower triangle) and gradient, in eight decimals. Composite methods
(G4, CBS-QB3, ...) end with one more archive, in which the force constants of one step stand beside the geometry of
another; only archives of frequency jobs are read.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from ase.units import Bohr, Hartree

from hint_plugins.datasets.codes.run import NoHessian, Run, numbers_of, read_text, triangle
from hint_plugins.datasets.record import RecordError

_ARCHIVE = re.compile(r"^ 1[\\|]1[\\|].*?[\\|]{2}@", re.DOTALL | re.MULTILINE)
_ATOM = re.compile(r"([A-Z][a-z]?)(?:\(Iso=([\d.]+)\)|\([^)]*\))?(\d*)$")
#: Energies of an archive beside HF, by the method they belong to.
_CORRELATED = ("MP2", "MP3", "MP4D", "MP4DQ", "MP4SDQ", "MP4SDTQ", "CCSD", "CCSD(T)", "QCISD", "QCISD(T)", "CISD", "BD")


def read_gaussian_log(path: Path) -> Run:
    """Read the last frequency job of an output of Gaussian.

    Raises
    ------
    NoHessian
        Without the archive of a frequency job.
    RecordError
        A frequency job without its archive (the job died), a crystal, a geometry given as Z-matrix, an excited state,
        an archive cut short.
    """
    text = read_text(path)
    if path.name == "g98.out":
        raise NoHessian("an imitation of Gaussian's output, which xtb writes for programs that show vibrations")
    jobs = [_sections(match[0]) for match in _ARCHIVE.finditer(text)]
    jobs = [job for job in jobs if job[0][3:4] == ["Freq"] and "NImag=" in job[3]]
    if not jobs:
        if "Frequencies --" in text:
            raise RecordError("a frequency job without the archive at its end: the job died, or the file was cut")
        raise NoHessian("no archive of a frequency job")
    run = _run(jobs[-1])
    if len(jobs) > 1:
        run.notes.append(f"the last of {len(jobs)} frequency jobs in the file")
    return run


def _sections(archive: str) -> list:
    """Fields of the header, route, geometry, results, force constants, gradient.

    The title comes before the geometry; a Z-matrix is followed by its variables.
    """
    joined = re.sub(r"\r?\n ?", "", archive).replace("|", "\\")
    parts = joined.split("\\\\")
    place = next((k for k, part in enumerate(parts) if part.startswith("Version=")), 0)
    return [parts[0].split("\\"), *parts[1:2], "\\\\".join(parts[3:place]), *parts[place:]]


def _run(job: list) -> Run:
    if len(job) < 7:
        raise RecordError("the archive of the frequency job holds no force constants or no gradient")
    header, route, geometry, results, constants, slope = job[:6]
    state, *atoms = geometry.split("\\")
    if re.search(r"\b(td|tda|cis|eom|eomccsd|sac-?ci)\b", route, re.IGNORECASE):
        raise RecordError("an excited state, whose energy the archive does not state: use the .fchk file")
    symbols, positions, masses = _geometry(atoms)
    n = len(symbols)
    values = dict(entry.partition("=")[::2] for entry in results.split("\\"))
    charge, multiplicity = (int(x) for x in state.split(",")[:2])
    gradient = numbers_of("the gradient", slope.strip("\\").replace(",", " "), 3 * n)
    return Run(
        code="Gaussian",
        version=values.get("Version", ""),
        method=f"{header[4]}/{header[5]}",
        numbers=[atomic_numbers[symbol] for symbol in symbols],
        positions=positions,
        hessian=triangle(numbers_of("the force constants", constants.replace(",", " ")), 3 * n) * Hartree / Bohr**2,
        energy=_energy(values, header[4]) * Hartree,
        forces=-gradient.reshape(n, 3) * Hartree / Bohr,
        charge=charge,
        multiplicity=multiplicity,
        masses=masses,
    )


def _geometry(atoms: list[str]) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """Symbols, positions in A, and masses (u) if an isotope is named."""
    symbols: list[str] = []
    positions: list[list[float]] = []
    isotopes: dict[int, float] = {}
    for row in atoms:
        name, *numbers = row.split(",")
        match = _ATOM.match(name)
        if name == "TV":
            raise RecordError("a periodic calculation, whose force constants are not read")
        if not match or match[1] not in atomic_numbers:
            raise RecordError(f"{name!r} is no element")
        try:
            positions.append([float(x) for x in numbers[-3:]])
        except ValueError:
            positions.append([])
        if len(positions[-1]) != 3 or len(numbers) > 4:
            raise RecordError("the geometry of the archive is a Z-matrix; use the .fchk file, or formchk to make one")
        if match[2]:
            isotopes[len(symbols)] = float(match[2])
        symbols.append(match[1])
    if not isotopes:
        return symbols, np.array(positions), None
    from ase.data import atomic_masses

    masses = atomic_masses[[atomic_numbers[symbol] for symbol in symbols]]
    masses[list(isotopes)] = list(isotopes.values())
    return symbols, np.array(positions), masses


def _energy(values: dict[str, str], method: str) -> float:
    """The energy of the method, in Hartree; a correlated one stands beside that of Hartree-Fock."""
    found = {name: values[name] for name in _CORRELATED if name in values}
    plain = re.sub(r"^(RO|R|U)(?=[A-Z])|-(FC|FU|Full|FrzG4)$", "", method)
    if found and plain not in found and not (set(found) == {"MP2"} and "2" in plain):  # B2PLYP and its kind
        raise RecordError(f"which of the energies {', '.join(['HF', *found])} is that of {method}? Use the .fchk file")
    text = found.get(plain) or found.get("MP2") or values.get("HF")
    if text is None:
        raise RecordError("the archive states no energy")
    return float(numbers_of("the energy", text, 1)[0])
