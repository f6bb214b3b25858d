"""Structures with labels on disk: extended XYZ and ``.aselmdb`` behind one streaming reader and writer.

In memory a label always has the same names: ``info["REF_energy"]`` (eV), ``arrays["REF_forces"]`` (eV/A),
``info["REF_stress"]`` (6, eV/A^3) and ``info["REF_hessian*"]`` (eV/A^2). In an ``.aselmdb`` file energy,
forces and stress are the row's own, and the rest of ``info``, the Hessian as ``hessian*``, is in
``row.data``: the place where both MACE and fairchem find them.
"""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase import Atoms

from hint_plugins.labels.hessian_label import SUFFIXES

#: (index in the file, reason) of a record that cannot be used.
OnBad = Callable[[int, str], None]

XYZ_SUFFIXES = (".xyz", ".extxyz")
_TRANSACTION = 500


class StoreError(ValueError):
    """A file that cannot be read or written; the message names the file, the record and the reason."""


def raise_bad(path: Path) -> OnBad:
    """The strict policy: the first bad record is an error."""

    def stop(index: int, reason: str) -> None:
        raise StoreError(f"{path}, structure {index}: {reason}")

    return stop


def store_format(path: Path) -> str:
    """``extxyz`` or ``aselmdb``, from the name (``.gz`` allowed for extxyz).

    Raises
    ------
    StoreError
        For any other suffix.
    """
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(XYZ_SUFFIXES):
        return "extxyz"
    if name.endswith(".aselmdb"):
        return "aselmdb"
    raise StoreError(f"{path}: unknown kind of file; use .xyz, .extxyz, .extxyz.gz or .aselmdb")


def read_structures(path: Path | str, on_bad: OnBad | None = None) -> Iterator[Atoms]:
    """Stream the structures of a file.

    Parameters
    ----------
    path
        ``.xyz``, ``.extxyz`` (also ``.gz``) or ``.aselmdb``.
    on_bad
        Called with index and reason for a record that cannot be read, which is then left out.
        By default that is an error.

    Raises
    ------
    StoreError
        Missing file, unknown suffix, or a bad record under the default policy.
    """
    path = Path(path)
    kind = store_format(path)
    if not path.is_file():
        raise StoreError(f"{path}: no such file")
    bad = on_bad or raise_bad(path)
    return _read_extxyz(path, bad) if kind == "extxyz" else _read_aselmdb(path, bad)


def count_structures(path: Path | str) -> int:
    """Number of structures, without reading them."""
    path = Path(path)
    if store_format(path) == "aselmdb":
        with _database(path, readonly=True) as database:
            return len(database.ids)
    with _open_text(path) as handle:
        return sum(1 for _ in _frames(handle, lambda *_: None))


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[Callable[[Atoms], None]]:
    """Give a function that appends one structure; the file appears, whole, when the block ends without error.

    Raises
    ------
    StoreError
        If the disk is full or the file cannot be written; nothing is left behind.
    """
    from hint_plugins.cli.common import replacing

    path = Path(path)
    kind = store_format(path)
    try:
        with replacing(path) as temporary:
            opener = _write_extxyz if kind == "extxyz" else _write_aselmdb
            with opener(temporary, path) as write:
                yield write
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}; the earlier file is untouched") from error


def write_structures(path: Path | str, structures: Iterable[Atoms]) -> int:
    """Write all structures to ``path`` (whole or not at all) and return how many."""
    count = 0
    with writing(path) as write:
        for atoms in structures:
            write(atoms)
            count += 1
    return count


# --- extended XYZ -----------------------------------------------------------------------------------------


def _open_text(path: Path) -> IO[str]:
    return gzip.open(path, "rt") if path.suffix == ".gz" else path.open()


def _frames(handle: IO[str], bad: OnBad) -> Iterator[tuple[int, str]]:
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


def _read_extxyz(path: Path, bad: OnBad) -> Iterator[Atoms]:
    from ase.io.extxyz import read_xyz

    with _open_text(path) as handle:
        for index, text in _frames(handle, bad):
            try:
                atoms = next(read_xyz(io.StringIO(text), index=slice(0, 1)))
            except Exception as error:  # ASE raises many kinds for malformed text
                bad(index, f"not an extended XYZ frame: {type(error).__name__}: {error}")
                continue
            yield _adopt_calculator(atoms)


def _adopt_calculator(atoms: Atoms) -> Atoms:
    """Labels under ASE's plain names (``energy``, ``forces``, ``stress``) get ours, unless those exist."""
    results = dict(getattr(atoms.calc, "results", {}))
    atoms.calc = None
    if "energy" in results:
        atoms.info.setdefault("REF_energy", float(results["energy"]))
    if "forces" in results and "REF_forces" not in atoms.arrays:
        atoms.arrays["REF_forces"] = np.asarray(results["forces"])
    if "stress" in results:
        atoms.info.setdefault("REF_stress", np.asarray(results["stress"]))
    return atoms


@contextlib.contextmanager
def _write_extxyz(temporary: Path, final: Path) -> Iterator[Callable[[Atoms], None]]:
    from ase.io.extxyz import write_xyz

    opener = gzip.open if final.suffix == ".gz" else open
    with opener(temporary, "wt") as handle:
        yield lambda atoms: write_xyz(handle, [atoms], write_results=False)


# --- .aselmdb ---------------------------------------------------------------------------------------------


class _Ids(set):
    """The backend looks every new id up in its list of ids; a set keeps that from growing quadratic."""

    append = set.add


@contextlib.contextmanager
def _database(path: Path, readonly: bool) -> Iterator[Any]:
    try:
        import lmdb
        from ase_db_backends.aselmdb import LMDBDatabase

        from hint_plugins.labels.lmdb import open_lmdb
    except ImportError as error:
        raise StoreError(f"{path}: .aselmdb needs `pip install hint-plugins[datasets]` ({error})") from error
    if readonly:
        with open_lmdb(path):
            pass
    try:
        database = LMDBDatabase(path, use_lock_file=False, readonly=readonly)
    except lmdb.Error as error:
        raise StoreError(f"{path}: {error}") from error
    except Exception as error:  # the header is JSON inside zlib inside LMDB
        raise StoreError(f"{path}: not an ASE database: {type(error).__name__}: {error}") from error
    try:
        yield database
    except lmdb.Error as error:
        raise StoreError(f"{path}: {error}") from error
    finally:
        database.close()


def _read_aselmdb(path: Path, bad: OnBad) -> Iterator[Atoms]:
    with _database(path, readonly=True) as database:
        for index, row_id in enumerate(database.ids):
            try:
                atoms = _from_row(database._get_row(row_id))
            except Exception as error:  # a damaged record: zlib, JSON, missing keys ...
                bad(index, f"damaged record (id {row_id}): {type(error).__name__}: {error}")
                continue
            yield atoms


def _from_row(row: Any) -> Atoms:
    atoms = _adopt_calculator(row.toatoms())
    for store in (row.key_value_pairs or {}, row.data or {}):
        for name, value in store.items():
            if name == "__arrays__":
                for array, content in value.items():
                    atoms.set_array(array, np.asarray(content))
            elif name == "__info__":
                atoms.info.update(value)
            else:
                atoms.info[name] = value
    for suffix in SUFFIXES:
        value = atoms.info.pop("hessian" + suffix, None)
        if value is not None:
            atoms.info["REF_hessian" + suffix] = np.asarray(value).reshape(-1)
    return atoms


@contextlib.contextmanager
def _write_aselmdb(temporary: Path, final: Path) -> Iterator[Callable[[Atoms], None]]:
    temporary.unlink()
    try:
        with _database(temporary, readonly=False) as database:
            database.ids = _Ids()
            database.txn = database.env.begin(write=True)
            pending = 0

            def write(atoms: Atoms) -> None:
                nonlocal pending
                bare, data = _to_row(atoms)
                database._write(bare, {}, data)
                pending += 1
                if pending % _TRANSACTION == 0:
                    database.txn.commit()
                    database.txn = database.env.begin(write=True)

            try:
                yield write
                database.txn.commit()
            except BaseException:
                database.txn.abort()
                raise
            finally:
                del database.txn
            database.env.sync(True)
    finally:
        Path(f"{temporary}-lock").unlink(missing_ok=True)


def _to_row(atoms: Atoms) -> tuple[Atoms, dict[str, Any]]:
    """Split a structure into what ASE keeps in a row and the ``data`` that goes with it."""
    from ase.calculators.singlepoint import SinglePointCalculator

    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, tags=atoms.get_tags())
    results: dict[str, Any] = {}
    data = dict(atoms.info)
    if "REF_energy" in data:
        results["energy"] = float(data.pop("REF_energy"))
    if "REF_forces" in atoms.arrays:
        results["forces"] = np.asarray(atoms.arrays["REF_forces"])
    if "REF_stress" in data:
        results["stress"] = np.asarray(data.pop("REF_stress"), dtype=float).reshape(-1)
    if results:
        bare.calc = SinglePointCalculator(bare, **results)
    for suffix in SUFFIXES:
        if "REF_hessian" + suffix in data:
            data["hessian" + suffix] = np.asarray(data.pop("REF_hessian" + suffix)).reshape(-1)
    arrays = {k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions", "tags", "REF_forces")}
    if arrays:
        data["__arrays__"] = arrays
    return bare, data
