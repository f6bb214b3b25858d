"""Extended XYZ, frame by frame, so that a damaged frame costs no other."""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ase import Atoms

from hint_plugins.labels.records import OnBad, adopt_calculator


def open_text(path: Path) -> IO[str]:
    """Text of a plain or gzipped file."""
    return gzip.open(path, "rt") if path.suffix == ".gz" else path.open()


def frames(handle: IO[str], bad: OnBad) -> Iterator[tuple[int, str]]:
    """Cut a file into frames by their declared number of atoms."""
    index = 0
    try:
        while line := handle.readline():
            if not line.strip():
                continue
            try:
                count = int(line)
            except ValueError:
                bad(
                    index,
                    f"no number of atoms but {line.strip()[:40]!r}; the rest of the file is not read",
                )
                return
            block = [handle.readline() for _ in range(count + 1)]
            if not block[-1]:
                got = sum(map(bool, block)) - 1
                bad(
                    index,
                    f"the file ends inside this structure (truncated: {count} atoms declared, {got} there)",
                )
                return
            if not block[-1].endswith("\n"):
                block[-1] += "\n"
            yield index, line + "".join(block)
            index += 1
    except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        bad(index, f"damaged or truncated file: {error}")


def read_extxyz(path: Path, bad: OnBad) -> Iterator[Atoms]:
    """Stream the frames; a malformed one is reported and left out, a file that ends too early is reported."""
    from ase.io.extxyz import read_xyz

    with open_text(path) as handle:
        for index, text in frames(handle, bad):
            try:
                atoms = next(read_xyz(io.StringIO(text), index=slice(0, 1)))
            except Exception as error:  # ASE raises many kinds for malformed text
                bad(index, f"not an extended XYZ frame: {type(error).__name__}: {error}")
                continue
            yield adopt_calculator(atoms)


@contextlib.contextmanager
def write_extxyz(temporary: Path, final: Path) -> Iterator[Callable[[Atoms], None]]:
    """Give a function that appends one structure to ``temporary``, gzipped if ``final`` says so."""
    from ase.io.extxyz import write_xyz

    opener = gzip.open if final.suffix == ".gz" else open
    with opener(temporary, "wt") as handle:
        yield lambda atoms: write_xyz(handle, [atoms], write_results=False)
