"""Extended XYZ, frame by frame, so that a damaged frame costs no other."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, dict2constraint

from hint_plugins.storage.comment import mend_empty_values, plain_info
from hint_plugins.storage.records import OnBad, UnwritableError, adopt_calculator, same_values
from hint_plugins.structures.frozen import frozen_components
from hint_plugins.structures.isotopes import ISOTOPES

#: Constraints that the column ``move_mask`` cannot say, as ``info`` entry.
CONSTRAINTS = "constraints"
_COUNT = re.compile(r"\s*[+-]?\d+\s*")


def open_text(path: Path) -> IO[str]:
    """Text of a plain or gzipped file; bytes that are no UTF-8 are kept as they are, for :func:`parse` to refuse."""
    opener = gzip.open if path.suffix == ".gz" else open
    return opener(path, "rt", encoding="utf-8", errors="surrogateescape")  # type: ignore[return-value]


def frames(handle: IO[str], bad: OnBad) -> Iterator[tuple[int, str]]:
    """Cut a file into frames by their declared number of atoms.

    After a frame whose number of atoms is wrong, reading goes on at the next line that holds a number alone.
    """
    index = 0
    try:
        line = _filled(handle)
        while line:
            if not _COUNT.fullmatch(line):
                bad(index, f"no number of atoms but {line.strip()[:40]!r}")
                line = _next_count(handle)
            elif (count := int(line)) < 0:
                bad(index, f"declares {count} atoms")
                line = _next_count(handle)
            else:
                block, line, reason = _block(handle, line, count)
                if reason:
                    bad(index, reason)
                else:
                    yield index, block
            index += 1
    except (OSError, EOFError, zlib.error) as error:  # gzip's kinds
        bad(index, f"damaged or truncated file ({error}); no structure from here on can be read, copy the file again")


def _block(handle: IO[str], head: str, count: int) -> tuple[str, str, str]:
    """Text of a frame, the line that follows it, and what is wrong with it."""
    lines = [handle.readline()]
    line = handle.readline() if lines[0] else ""
    while line and len(lines) <= count and not _COUNT.fullmatch(line):
        lines.append(line)
        line = handle.readline()
    got = len(lines) - 1
    if got < count or not lines[0]:
        if line:
            return "", line, f"declares {count} atoms, but the next structure begins after {got}"
        return "", "", f"the file ends inside this structure (truncated: {count} atoms declared, {got} there)"
    if line and not line.strip():
        line = _filled(handle)
    elif line and not _COUNT.fullmatch(line) and count and len(line.split()) == len(lines[-1].split()):
        return "", _next_count(handle), f"declares {count} atoms, but more follow ({line.strip()[:40]!r})"
    if not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return head + "".join(lines), line, ""


def _filled(handle: IO[str]) -> str:
    """The next line that is not blank; empty at the end."""
    while (line := handle.readline()) and not line.strip():
        pass
    return line


def _next_count(handle: IO[str]) -> str:
    """The next line that holds a number alone; empty at the end."""
    while (line := handle.readline()) and not _COUNT.fullmatch(line):
        pass
    return line


def read_extxyz(path: Path, bad: OnBad) -> Iterator[tuple[int, Atoms]]:
    """Stream place and structure; a malformed frame is reported and left out."""
    with open_text(path) as handle:
        for index, text in frames(handle, bad):
            try:
                atoms = parse(text)
            except Exception as error:  # ASE raises many kinds for malformed text
                bad(index, f"not an extended XYZ frame: {type(error).__name__}: {error}")
                continue
            yield index, atoms


def parse(text: str) -> Atoms:
    """The structure of one frame."""
    from ase.io.extxyz import read_xyz

    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("the text is not UTF-8") from None
    head, comment, body = text.split("\n", 2)
    _check_columns(comment, body)
    body, isotopes = _isotopes(comment, body)
    atoms = next(read_xyz(io.StringIO(f"{head}\n{mend_empty_values(comment)}\n{body}"), index=slice(0, 1)))
    if not len(atoms):
        raise ValueError("no atoms")
    if isotopes and not atoms.has("masses"):
        masses = atoms.get_masses()
        masses[list(isotopes)] = list(isotopes.values())
        atoms.set_masses(masses)
    others = atoms.info.pop(CONSTRAINTS, None)
    if others is not None:
        try:
            more = [dict2constraint(entry) for entry in others]
        except Exception as error:
            raise ValueError(f"{CONSTRAINTS}={others!r} are no constraints: {error}") from error
        atoms.set_constraint([*atoms.constraints, *more])
    return adopt_calculator(atoms)


def _isotopes(comment: str, body: str) -> tuple[str, dict[int, float]]:
    """The lines of the atoms with ``H`` for ``D`` and ``T``, which ASE does not know, and the masses (u) of these."""
    if not re.search(r"(^|\s)[DT](\s|$)", body):
        return body, {}
    declared = re.search(r"\bProperties=\"?([^\s\"]+)", comment)
    fields = declared[1].split(":") if declared else ["species", "S", "1"]
    names, counts = fields[::3], [int(count) for count in fields[2::3]]
    if "species" not in names:
        return body, {}
    column = sum(counts[: names.index("species")])
    lines, masses = body.split("\n"), {}
    for number, line in enumerate(lines):
        words = line.split()
        if len(words) > column and words[column] in ISOTOPES:
            masses[number] = ISOTOPES[words[column]]
            words[column] = "H"
            lines[number] = " ".join(words)
    return "\n".join(lines), masses


def _check_columns(comment: str, body: str) -> None:
    """Columns beyond those that the frame declares would be left out in silence."""
    declared = re.search(r"\bProperties=\"?([^\s\"]+)", comment)
    if not declared:
        return
    columns = sum(int(count) for count in declared[1].split(":")[2::3])
    for number, line in enumerate(body.rstrip("\n").split("\n")):
        if len(line.split()) != columns:
            raise ValueError(f"atom {number} has {len(line.split())} columns, Properties declares {columns}")


@contextlib.contextmanager
def write_extxyz(temporary: Path, final: Path) -> Iterator[Callable[[Atoms], None]]:
    """Give a function that appends one structure to ``temporary``, gzipped if ``final`` says so."""
    opener = gzip.open if final.suffix == ".gz" else open
    with opener(temporary, "wt", encoding="utf-8", newline="\n") as handle:

        def write(atoms: Atoms) -> None:
            handle.write(formatted(atoms))  # type: ignore[arg-type]

        yield write


def formatted(atoms: Atoms) -> str:
    """Text of one frame, read back and found to say the same.

    Raises
    ------
    UnwritableError
        If the format cannot hold some part of the structure.
    """
    from ase.io.extxyz import write_xyz

    work = atoms.copy()
    others = [c.todict() for c in atoms.constraints if not isinstance(c, (FixAtoms, FixCartesian))]
    columns = ["symbols", "positions"] + (["move_mask"] if frozen_components(atoms).any() else [])
    columns += [name for name in atoms.arrays if name not in ("numbers", "positions")]
    out = io.StringIO()
    try:
        work.info = plain_info(work.info | ({CONSTRAINTS: others} if others else {}))
        write_xyz(out, [work], columns=columns, write_results=False)
        text = out.getvalue()
        back = parse(text)
    except Exception as error:  # whatever ASE makes of odd names and shapes
        raise UnwritableError(f"extended XYZ cannot hold it: {type(error).__name__}: {error}") from error
    if lost := difference(atoms, back):
        raise UnwritableError(f"extended XYZ cannot hold {lost}")
    return text


def difference(one: Atoms, other: Atoms) -> str:
    """What differs between a structure and its copy from a file; empty when nothing does."""
    if not np.array_equal(one.numbers, other.numbers):
        return "the elements"
    for name in ("positions", "cell", "pbc"):
        if not same_values(np.asarray(getattr(one, name)), np.asarray(getattr(other, name)), atol=1e-7):
            return f"the {name}"
    if not np.array_equal(frozen_components(one), frozen_components(other)):
        return "the constraints"
    for what in ("arrays", "info"):
        mine, theirs = getattr(one, what), getattr(other, what)
        for name in [*mine, *(set(theirs) - set(mine))]:
            if name not in mine or name not in theirs or not same_values(mine[name], theirs[name], atol=1e-7):
                return f"{what}[{name!r}] = {str(mine.get(name))[:60]!r}"
    return ""
