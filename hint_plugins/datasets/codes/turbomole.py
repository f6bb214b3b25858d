"""Turbomole: ``$nprhessian`` or ``$hessian (projected)`` and the last cycle of ``$grad``, from ``control``.

``aoforce`` projects translations and rotations out in mass-weighted coordinates; the gradient is needed to put them
back (:mod:`hint_plugins.datasets.codes.projection`).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from ase.units import Bohr, Hartree

from hint_plugins.datasets.codes.projection import unprojected
from hint_plugins.datasets.codes.run import NoHessian, Run, numbers_of, read_text, same_place
from hint_plugins.datasets.record import RecordError
from hint_plugins.structures.species import element


def read_turbomole(path: Path) -> Run:
    """Read the run of a ``control`` file.

    Raises
    ------
    NoHessian
        Without Hessian.
    RecordError
        Without gradient, gradient of another geometry, a group cut short.
    """
    groups = data_groups(path)
    if failed := next((name for name in groups if name.startswith("actual step")), ""):
        raise RecordError(f"the last program did not end normally (${failed})")
    plain, projected = groups.get("nprhessian"), groups.get("hessian (projected)")
    matrix = plain or projected
    if not matrix:
        raise NoHessian("no $nprhessian and no $hessian (projected)")
    if not groups.get("coord"):
        raise RecordError("no $coord")
    numbers, positions = _coordinates(groups["coord"])
    run = Run("Turbomole", numbers, positions, matrix_of(matrix, len(numbers)), method=_method(groups))
    run.taken = [path.parent / name for name in ("gradient", "hessian", "nprhessian", "coord") if (path.parent / name)]
    if grad := groups.get("grad"):
        energy, there_numbers, there, forces = last_cycle(grad)
        if wrong := same_place(numbers, positions, there_numbers, there):
            raise RecordError(f"the last cycle of $grad {wrong} than $coord")
        run.energy, run.forces = energy, forces
    if not plain:
        if run.forces is None:
            raise RecordError("$hessian (projected) needs a gradient to put the rotations back, and there is no $grad")
        if re.search(r"\bmass\s*=", "\n".join(groups.get("atoms", []))):
            raise RecordError("isotopes in $atoms: rotations were projected out with masses that are not read")
        run.hessian = unprojected(run.hessian, positions, run.forces, atomic_masses[numbers])
        run.notes.append("rotations, which aoforce had projected out, put back from the gradient")
    for output in sorted(path.parent.glob("*.out")):
        if match := re.search(r"TURBOMOLE (?:rev\. )?(V[\d.-]+)", read_text(output)):
            run.version = match[1]
            break
    return run


def data_groups(path: Path) -> dict[str, list[str]]:
    """Lines of each ``$group``, those of other files (``file=NAME``) included."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in read_text(path).splitlines():
        if not line.startswith("$"):
            lines.append(line)
            continue
        match = re.match(r"\$(.*?)\s*(?:file=(\S+).*)?$", line)
        assert match is not None
        name = re.sub(r"^(grad|coord|energy)\b.*", r"\1", match[1].strip())
        lines = found[name] = []
        if match[2] and (path.parent / match[2]).is_file() and path.name == "control":
            inner = data_groups(path.parent / match[2])
            found[name] = inner.get(name) or next((v for k, v in inner.items() if k.startswith(name)), [])
            lines = []
    return found


def matrix_of(lines: list[str], atoms: int) -> np.ndarray:
    """(3N, 3N) in eV/A^2 from rows of five numbers; indices before them have no decimal point."""
    values = numbers_of("the Hessian", [word for line in lines for word in line.split() if "." in word])
    if values.size != 9 * atoms**2:
        raise RecordError(f"a Hessian of {values.size} numbers where {atoms} atoms have {9 * atoms**2}: cut short?")
    return values.reshape(3 * atoms, 3 * atoms) * Hartree / Bohr**2


def last_cycle(lines: list[str]) -> tuple[float, list[int], np.ndarray, np.ndarray]:
    """Energy (eV), atomic numbers, positions (A) and forces (eV/A) of the last cycle of ``$grad``."""
    starts = [k for k, line in enumerate(lines) if "cycle" in line]
    if not starts:
        raise RecordError("no cycle in $grad")
    match = re.search(r"energy\s*=\s*(-?\d+\.\d+)", lines[starts[-1]])
    rows = [line for line in lines[starts[-1] + 1 :] if line.strip()]
    atoms = [row for row in rows if len(row.split()) >= 4]
    gradient = rows[len(atoms) : 2 * len(atoms)]
    if not match or len(gradient) != len(atoms) or not atoms:
        raise RecordError("the last cycle of $grad is cut short")
    numbers, positions = _coordinates(atoms)
    values = numbers_of("$grad", gradient, 3 * len(atoms)).reshape(-1, 3)
    return float(match[1]) * Hartree, numbers, positions, -values * Hartree / Bohr


def _coordinates(lines: list[str]) -> tuple[list[int], np.ndarray]:
    """Atomic numbers and positions (A) from rows of ``x y z symbol`` in bohr."""
    rows = [line.split() for line in lines if len(line.split()) >= 4]
    values = numbers_of("the coordinates", [word for row in rows for word in row[:3]]).reshape(-1, 3)
    return [atomic_numbers[element(row[3])[0]] for row in rows], values * Bohr


def _method(groups: dict[str, list[str]]) -> str:
    functional = re.search(r"functional\s+(\S+)", "\n".join(groups.get("dft", [])))
    name = functional[1] if functional else "DFT" if "dft" in groups else "HF"
    bases = sorted(set(re.findall(r"basis\s*=\s*\w+\s+(.*?)\s*\\?$", "\n".join(groups.get("atoms", [])), re.MULTILINE)))
    extras = [key for key in ("rij", "ri", "disp3", "disp4", "cosmo") if key in groups]
    return "/".join(x for x in (" ".join([name, *extras]), ", ".join(bases)) if x)
