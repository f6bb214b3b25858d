"""One calculation of one code: what its files say, and the labelled structure that this becomes."""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.datasets.record import RecordError, labelled
from hint_plugins.labels.hessian_label import HessianLabel
from hint_plugins.structures.frozen import frozen

#: Positions of one geometry in two files of a run may differ by this (A): what 6 decimals lose.
SAME_PLACE = 5e-6
#: An output may hold so many bytes.
MAX_BYTES = 512 * 2**20


class NoHessian(RecordError):
    """A file of a code that holds no second derivatives: of no use here, but nothing is wrong with it."""


@dataclass
class Run:
    """Geometry, energy, gradient and Hessian of one calculation.

    Attributes
    ----------
    code, version, method
        Program, its version and the level of theory, as far as the files state them.
    numbers, positions
        (N,) atomic numbers; (N, 3) in A.
    hessian
        (3N, 3N) in eV/A^2, neither mass-weighted nor projected; (b, b) where ``known`` says of which coordinates.
    energy, forces
        eV; (N, 3) in eV/A. None where the files state none.
    charge, multiplicity
        None where the files state none.
    masses
        (N,) in u.
    cell, stress
        (3, 3) in A; (6,) in eV/A^3 with ASE's sign. None for molecules.
    known
        (N, 3) of bool: coordinates with second derivatives; None for all.
    held
        (N, 3) of bool: coordinates that the calculation kept frozen; the structure says so. None for none.
    notes
        What a user has to know about this record.
    taken
        Files beside the first that were read.
    extra
        Further entries of ``info``.
    """

    code: str
    numbers: Any
    positions: np.ndarray
    hessian: np.ndarray
    version: str = ""
    method: str = ""
    energy: float | None = None
    forces: np.ndarray | None = None
    charge: int | None = None
    multiplicity: int | None = None
    masses: np.ndarray | None = None
    cell: np.ndarray | None = None
    stress: np.ndarray | None = None
    known: np.ndarray | None = None
    held: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    taken: list[Path] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def structure(self, name: str, incomplete: bool = False) -> Atoms:
        """The labelled structure.

        Parameters
        ----------
        name
            Entry ``name`` of ``info``.
        incomplete
            Give a record without energy or forces, too.

        Raises
        ------
        RecordError
            Without energy or forces, or with arrays that do not fit.
        """
        self._leave_out_zeros()
        missing = [what for what, value in (("energy", self.energy), ("gradient", self.forces)) if value is None]
        if missing and not incomplete:
            raise RecordError(
                f"no {' and no '.join(missing)} of this geometry in its files: --set incomplete=true takes the record "
                "without"
            )
        info: dict[str, Any] = {"name": name, "label_code": self.code}
        for key, value in (
            ("label_version", self.version),
            ("label_method", self.method),
            ("label_notes", "; ".join(self.notes)),
        ):
            if value:
                info[key] = value
        if self.charge is not None:
            info["charge"] = int(self.charge)
        if self.multiplicity is not None:
            info["spin"] = int(self.multiplicity)
        atoms = labelled(
            self.numbers,
            self.positions,
            energy=self.energy,
            forces=self.forces,
            stress=self.stress,
            hessian=self.hessian if self.known is None else None,
            cell=self.cell,
            pbc=self.cell is not None,
            info=info | self.extra,
        )
        if self.known is not None:
            if not np.isfinite(self.hessian).all():
                raise RecordError("hessian holds a number that is not finite")
            HessianLabel.block(self.known, self.hessian, len(atoms)).to_info(atoms.info)
        if self.held is not None:
            atoms.set_constraint(frozen(~self.held))
        if self.masses is not None:
            atoms.set_masses(self.masses)
        return atoms

    def _leave_out_zeros(self) -> None:
        """Atoms whose rows and columns are all zero were left out by the calculation: the others are a block."""
        size = 3 * len(self.numbers)
        if self.known is not None or self.hessian.size != size * size:
            return
        blocks = self.hessian.reshape(-1, 3, size // 3, 3)
        there = blocks.any(axis=(1, 2, 3)) | blocks.any(axis=(0, 1, 3))
        if there.all() or not there.any():
            return
        known = np.repeat(there, 3)
        self.hessian = self.hessian.reshape(size, size)[np.ix_(known, known)]
        self.known = known.reshape(-1, 3)
        left_out = np.flatnonzero(~there)
        self.notes.append(
            f"atoms {', '.join(map(str, left_out[:5]))}{' ...' if len(left_out) > 5 else ''} have no second "
            "derivatives in the file: the Hessian is the block of the others"
        )


def read_text(path: Path) -> str:
    """The text of a plain or gzipped file.

    Raises
    ------
    RecordError
        If it cannot be read or unpacked, or is larger than :data:`MAX_BYTES`.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as handle:  # type: ignore[operator]
            content = handle.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError(f"{path.name} cannot be read: {error}") from error
    if len(content) > MAX_BYTES:
        raise RecordError(f"{path.name} holds more than {MAX_BYTES >> 20} MiB; such files are not read")
    return content.decode("utf-8", errors="replace")


def numbers_of(what: str, words: list[str] | str, count: int | None = None) -> np.ndarray:
    """``words`` as float64, Fortran's ``D`` exponents included.

    Raises
    ------
    RecordError
        If they are not ``count`` numbers.
    """
    text = words if isinstance(words, str) else " ".join(words)
    try:
        values = np.array(re.sub(r"(?<=[\d.])[dD](?=[+-]?\d)", "e", text).split(), dtype=np.float64)
    except ValueError as error:
        raise RecordError(f"{what}: {error}") from None
    if count is not None and values.size != count:
        raise RecordError(f"{what} has {values.size} numbers where {count} are expected: cut short or damaged")
    return values


def triangle(values: np.ndarray, size: int) -> np.ndarray:
    """(size, size) symmetric matrix from its lower triangle, row by row."""
    if values.size != size * (size + 1) // 2:
        raise RecordError(f"a triangle of {values.size} numbers does not belong to a matrix of {size} rows")
    matrix = np.zeros((size, size))
    matrix[np.tril_indices(size)] = values
    return matrix + np.tril(matrix, -1).T


def same_place(numbers: Any, positions: np.ndarray, other_numbers: Any, other_positions: np.ndarray) -> str:
    """Why another file's geometry is not this one; empty when it is. Positions in A."""
    if list(numbers) != list(other_numbers):
        return "has other elements or another order of atoms"
    apart = float(np.abs(np.asarray(positions) - np.asarray(other_positions)).max())
    return f"belongs to another geometry (up to {apart:.2g} A away)" if apart > SAME_PLACE else ""
