"""Formatted checkpoint files (``.fchk``) of Gaussian: geometry, energy, gradient and force constants of one frame.

All arrays of the file are in the frame of ``Current cartesian coordinates``. Only the fields that are needed are
parsed: the readers of iodata and cclib ask for basis set and orbitals, which a file of an external potential lacks.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from ase.units import Bohr, Hartree

from hint_plugins.datasets.codes.qchem import complete_fchk
from hint_plugins.datasets.codes.run import NoHessian, Run, read_text, triangle
from hint_plugins.datasets.record import RecordError

_FIELD = re.compile(r"^([A-Z][^\n]{39})   ([IRCLH])(?:   N=\s*(\d+)|\s+(\S+))\s*$")
#: Width of a number and numbers a line.
_WIDTHS = {"R": (16, 5), "I": (12, 6), "C": (12, 5), "L": (1, 72), "H": (9, 9)}
_WANTED = {
    "Charge", "Multiplicity", "Total Energy", "Job Status", "Gaussian Version", "Atomic numbers",
    "Current cartesian coordinates", "Real atomic weights", "Cartesian Gradient", "Cartesian Force Constants",
    "Translation vectors",
}  # fmt: skip


def read_fchk(path: Path) -> Run:
    """Read a formatted checkpoint file of a frequency calculation.

    Raises
    ------
    NoHessian
        Without force constants.
    RecordError
        Force constants of another job than a frequency calculation (an optimisation carries estimates along), a
        crystal, a file cut short.
    """
    lines = read_text(path).splitlines()
    if len(lines) < 3:
        raise RecordError("no formatted checkpoint file")
    job, method, basis = lines[1][:10].strip(), lines[1][10:40].strip(), lines[1][40:].strip()
    fields = _fields(lines)
    if "Cartesian Force Constants" not in fields:
        raise NoHessian("no Cartesian Force Constants")
    if job.upper() != "FREQ":
        raise RecordError(f"a job of type {job}: its force constants are estimates; only those of Freq are read")
    if "Translation vectors" in fields:
        raise RecordError("a periodic calculation, whose force constants are not read")
    if int(fields.get("Job Status", 1)) != 1:  # type: ignore[call-overload]
        raise RecordError(f"the job did not complete (Job Status {fields['Job Status']})")
    for name in ("Atomic numbers", "Current cartesian coordinates"):
        if name not in fields:
            raise RecordError(f"no {name}")
    numbers = np.asarray(fields["Atomic numbers"]).astype(int)
    n = len(numbers)
    gradient, energy = fields.get("Cartesian Gradient"), fields.get("Total Energy")
    run = Run(
        code="Gaussian" if "Gaussian Version" in fields else "Gaussian's format",
        version=str(fields.get("Gaussian Version", "")),
        method="/".join(x for x in (method, basis) if x),
        numbers=numbers,
        positions=np.asarray(fields["Current cartesian coordinates"]).reshape(n, 3) * Bohr,
        hessian=triangle(np.asarray(fields["Cartesian Force Constants"]), 3 * n) * Hartree / Bohr**2,
        energy=None if energy is None else float(energy) * Hartree,  # type: ignore[arg-type]
        forces=None if gradient is None else -np.asarray(gradient).reshape(n, 3) * Hartree / Bohr,
        charge=int(fields["Charge"]) if "Charge" in fields else None,  # type: ignore[call-overload]
        multiplicity=int(fields["Multiplicity"]) if "Multiplicity" in fields else None,  # type: ignore[call-overload]
        masses=np.asarray(fields["Real atomic weights"]) if "Real atomic weights" in fields else None,
    )
    if energy is None:
        complete_fchk(run, path)
    return run


def _fields(lines: list[str]) -> dict[str, str | np.ndarray]:
    found: dict[str, str | np.ndarray] = {}
    place = 2
    while place < len(lines):
        match = _FIELD.match(lines[place])
        place += 1
        if not match:
            continue
        name, kind = match[1].strip(), match[2]
        if match[3] is None:
            if name in _WANTED:
                found[name] = match[4]
            continue
        count, (width, each) = int(match[3]), _WIDTHS[kind]
        end = place + -(-count // each)
        if name in _WANTED:
            text = [line[k : k + width] for line in lines[place:end] for k in range(0, len(line.rstrip()), width)]
            if len(text) != count and kind != "C":
                raise RecordError(f"the file ends inside {name}: {len(text)} of {count} numbers")
            try:
                found[name] = "".join(text).strip() if kind == "C" else np.array(text, dtype=np.float64)
            except ValueError as error:
                raise RecordError(f"{name}: {error}") from None
        place = end
    return found
