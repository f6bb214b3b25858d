"""``.aselmdb``: ASE's database rows in LMDB, as MACE and fairchem read them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.labels.hessian_label import SUFFIXES
from hint_plugins.storage.extxyz import difference
from hint_plugins.storage.lmdb import open_lmdb
from hint_plugins.storage.records import OnBad, StoreError, UnwritableError, adopt_calculator, voigt

_TRANSACTION = 500
#: Arrays that a row keeps in fields of its own.
NATIVE = frozenset(("numbers", "positions", "tags", "masses", "momenta", "initial_charges", "initial_magmoms"))


class _Ids(set):
    """The backend looks every new id up in its list of ids; a set keeps that from growing quadratic."""

    append = set.add


@contextlib.contextmanager
def open_database(path: Path, readonly: bool) -> Iterator[Any]:
    """ASE's database on a file; whatever is wrong with the file is a :class:`StoreError` that names it."""
    try:
        import lmdb
        from ase_db_backends.aselmdb import LMDBDatabase
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
        where = path if readonly else f"cannot write in {path.parent} (is the disk full?)"
        raise StoreError(f"{where}: {error}") from error
    finally:
        database.close()


def read_aselmdb(path: Path, bad: OnBad) -> Iterator[tuple[int, Atoms]]:
    """Stream place and structure in the order of the ids; a damaged row is reported and left out."""
    with open_database(path, readonly=True) as database:
        for index, row_id in enumerate(database.ids):
            try:
                atoms = _from_row(database._get_row(row_id))
                if not len(atoms):
                    raise ValueError("no atoms")
            except Exception as error:  # a damaged record: zlib, JSON, missing keys ...
                bad(index, f"damaged record (id {row_id}): {type(error).__name__}: {error}")
                continue
            yield index, atoms


def _from_row(row: Any) -> Atoms:
    atoms = adopt_calculator(row.toatoms())
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
def write_aselmdb(temporary: Path, final: Path) -> Iterator[Callable[[Atoms], None]]:
    """Give a function that appends one structure to the new database ``temporary``."""
    temporary.unlink()
    try:
        with open_database(temporary, readonly=False) as database:
            database.ids = _Ids()
            database.txn = database.env.begin(write=True)
            pending = 0

            def write(atoms: Atoms) -> None:
                nonlocal pending
                try:
                    bare, data = _to_row(atoms)
                    row_id = database._write(bare, {}, data)
                except (AttributeError, KeyError, TypeError, ValueError) as error:  # ASE's encoder
                    raise UnwritableError(f"a database row cannot hold it: {type(error).__name__}: {error}") from error
                if lost := difference(atoms, _from_row(database._get_row(row_id))):
                    database.delete([row_id])
                    raise UnwritableError(f"a database row cannot hold {lost}")
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

    bare = atoms.copy()  # masses, tags, momenta, initial charges and moments, and constraints are the row's own
    bare.info.clear()
    for name in set(bare.arrays) - NATIVE:
        del bare.arrays[name]
    results: dict[str, Any] = {}
    data = dict(atoms.info)
    if "REF_energy" in data:
        results["energy"] = float(data.pop("REF_energy"))
    if "REF_forces" in atoms.arrays:
        results["forces"] = np.asarray(atoms.arrays["REF_forces"])
    if "REF_stress" in data:
        results["stress"] = voigt(data.pop("REF_stress"))
    if results:
        bare.calc = SinglePointCalculator(bare, **results)
    for suffix in SUFFIXES:
        if "REF_hessian" + suffix in data:
            data["hessian" + suffix] = np.asarray(data.pop("REF_hessian" + suffix)).reshape(-1)
    arrays = {name: values for name, values in atoms.arrays.items() if name not in NATIVE | {"REF_forces"}}
    if arrays:
        data["__arrays__"] = arrays
    return bare, data
