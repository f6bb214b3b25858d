"""Outputs of the codes that people run: one record a run, with energy, forces and Hessian of one geometry."""

from __future__ import annotations

import fnmatch
import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms

from hint_plugins.datasets.codes.run import NoHessian, Run, read_text
from hint_plugins.datasets.directories import files_below
from hint_plugins.datasets.record import RecordError
from hint_plugins.storage.store import OnBad, StoreError

#: So many characters at the start of a file tell which code wrote it.
HEAD = 2**16
_OUTPUTS = ("*.out", "*.log", "*.dat", "*.out.gz", "*.log.gz")


@dataclass(frozen=True)
class Kind:
    """A kind of file: what it is called in a tree of runs, how it begins, and what says that it holds a Hessian."""

    names: tuple[str, ...]
    signature: str
    marker: str
    reader: str  #: ``module:function`` below this package


#: Kinds of files, best first: where two belong to one run, the first is read.
KINDS = {
    "gaussian-fchk": Kind(
        ("*.fchk", "*.fch"),
        r"\n[A-Z][^\n]{39}   [IR](   N=|     ) *-?\d+\s*\n",
        "Cartesian Force Constants",
        "gaussian:read_fchk",
    ),
    "gaussian": Kind(
        _OUTPUTS,
        "Entering Gaussian System|Gaussian, Inc",
        "NImag=|Frequencies --",
        "gaussian_log:read_gaussian_log",
    ),
    "orca": Kind(("*.hess",), r"\$orca_hessian_file", r"\$hessian", "orca:read_orca"),
    "vasprun": Kind(("vasprun*.xml*",), "<modeling>", 'name="hessian"', "vasp:read_vasprun"),
    "outcar": Kind(("OUTCAR*",), r"^\s*vasp\.\d", "SECOND DERIVATIVES", "vasp:read_outcar"),
    "xtb": Kind(("hessian",), r"^\s*\$hessian *\n", r"\$hessian", "xtb:read_xtb"),
    "turbomole": Kind(("control",), r"^\$(title|symmetry|operating)", r"\$(npr)?hessian", "turbomole:read_turbomole"),
    "psi4": Kind(
        _OUTPUTS,
        "Psi4: An Open-Source",
        r"## Total Hessian|non-mass-weighted Hessian",
        "psi4:read_psi4",
    ),
    "qchem": Kind(
        _OUTPUTS,
        r"Q-Chem, Inc\.|Welcome to Q-Chem",
        r"Hessian of the SCF Energy|Final Hessian\.",
        "qchem:read_qchem",
    ),
    "nwchem": Kind(
        _OUTPUTS,
        r"Northwest Computational Chemistry Package|nwchem branch",
        "MASS-WEIGHTED NUCLEAR HESSIAN",
        "nwchem:read_nwchem",
    ),
    "cp2k": Kind(_OUTPUTS, r"CP2K\| version string", r"VIB\| Hessian in cartesian", "cp2k:read_cp2k"),
}


def kind_of(path: Path, named: bool = False) -> str:
    """Key of :data:`KINDS`; empty for other files. ``named``: only files that are called as such files are."""
    kinds = {key: kind for key, kind in KINDS.items() if _named(path, kind) or not named}
    if not kinds or not path.is_file():
        return ""
    try:
        head = _head(path)
    except (RecordError, OSError):
        return ""
    return next((key for key, kind in kinds.items() if re.search(kind.signature, head)), "")


def holds_hessian(path: Path) -> bool:
    """Whether a file of a known code says that it holds second derivatives."""
    kind = kind_of(path)
    try:
        return bool(kind) and re.search(KINDS[kind].marker, read_text(path)) is not None
    except RecordError:
        return False


def find_runs(directory: Path) -> list[tuple[Path, str]]:
    """Files of runs below a directory with their kinds; of two files of one run only the better."""
    found = []
    for path in files_below(directory, "*"):
        if not any(part.startswith(".") for part in path.relative_to(directory).parts) and (
            kind := kind_of(path, True)
        ):
            found.append((path, kind))
    keys = {_run_key(path, kind) for path, kind in found if kind in ("gaussian-fchk", "vasprun")}
    return [
        (path, kind) for path, kind in found if kind in ("gaussian-fchk", "vasprun") or _run_key(path, kind) not in keys
    ]


def read_codes(path: Path, bad: OnBad, *, incomplete: bool = False) -> Iterator[Atoms]:
    """Stream the run of one file, or all below a directory.

    Outputs without second derivatives are left out of a directory; how many is said once.

    Parameters
    ----------
    path
        File or directory.
    bad
        Takes index and reason of runs that cannot be used.
    incomplete
        Give records whose files state no energy or no gradient, too, without these labels.

    Raises
    ------
    StoreError
        If no file is of a known code.
    """
    return (atoms for _, atoms in numbered_runs(path, bad, incomplete=incomplete))


def numbered_runs(path: Path, bad: OnBad, *, incomplete: bool = False) -> Iterator[tuple[int, Atoms]]:
    """As :func:`read_codes`, each structure with the number of its run, counted from 0."""
    runs = find_runs(path) if path.is_dir() else [(path, kind_of(path))]
    if not runs or not runs[0][1]:
        raise StoreError(f"{path}: no output of {', '.join(KINDS)}")
    index, plain = 0, []
    for file, kind in runs:
        name = str(file.relative_to(path)) if path.is_dir() else file.name
        try:
            yield index, read_run(file, kind).structure(name, incomplete)
        except NoHessian as error:
            if path.is_dir():
                plain.append(name)
                continue
            bad(index, f"{name}: {error}")
        except (RecordError, OSError) as error:
            bad(index, f"{name}: {error}")
        index += 1
    if plain:
        print(f"hint: {path}: {len(plain)} outputs without Hessian are left out ({plain[0]} ...)", file=sys.stderr)


def read_run(path: Path, kind: str) -> Run:
    """What one file of a known kind and its siblings say.

    Raises
    ------
    RecordError
        If they cannot be used, with the reason.
    """
    module, _, function = KINDS[kind].reader.partition(":")
    reader = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    try:
        return reader(path)
    except RecordError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise RecordError(f"damaged, or of an unknown version: {type(error).__name__}: {error}") from error


def _named(path: Path, kind: Kind) -> bool:
    return any(fnmatch.fnmatchcase(path.name, pattern) for pattern in kind.names)


def _head(path: Path) -> str:
    if path.suffix == ".gz":
        return read_text(path)[:HEAD]
    with path.open("rb") as handle:
        return handle.read(HEAD).decode("utf-8", errors="replace")


def _run_key(path: Path, kind: str) -> tuple[Path, str]:
    """The same for two files of one run."""
    if kind in ("vasprun", "outcar"):
        return path.parent, "vasp" + re.sub(r"vasprun|\.xml|OUTCAR|\.gz", "", path.name)
    return path.parent, path.name.removesuffix(".gz").rpartition(".")[0]
