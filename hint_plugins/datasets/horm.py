"""HORM: LMDB files of pickled torch_geometric records, read without running what a pickle asks for.

Cui et al., arXiv:2505.12447. omegaB97X/6-31G(d) energies, forces and Hessians of reactive C, H, N, O geometries.
Keys ``b"0"`` ... and ``b"length"``; a value holds ``pos`` (A), ``energy`` and ``ae`` (eV, total and of atomisation),
``forces`` (eV/A), ``hessian`` (flat, eV/A^2), ``charges`` (atomic numbers), ``natoms``, ``rxn``.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.datasets.record import RecordError, labelled
from hint_plugins.storage.lmdb import LMDBError, open_lmdb
from hint_plugins.storage.store import OnBad, StoreError

FIELDS = ("pos", "forces", "hessian", "charges")


class _Record:
    """Stands in for the classes of torch_geometric: keeps state, runs nothing."""

    def __init__(self, *_: object) -> None:
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _AllowList(pickle.Unpickler):
    """Unpickles tensors and plain containers; any other global in the stream is an error."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _storage
        if module.partition(".")[0] == "torch_geometric" or name in ("DataTensorAttr", "DataEdgeAttr"):
            return _Record
        raise RecordError(f"refused: the record asks for {module}.{name}, which no HORM record needs")


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *others: Any) -> Any:
    """A tensor of numbers that are stored; strides of 0 would make any size out of one number."""
    import torch

    if not isinstance(storage, torch.storage.TypedStorage):
        raise RecordError("damaged record: a tensor without its numbers")
    sizes, stored = [int(s) for s in size], storage._size()
    if len(sizes) > 8 or min(sizes, default=0) < 0 or math.prod(sizes) > stored:
        raise RecordError(f"a tensor says it has {math.prod(sizes)} numbers where {stored} are stored")
    return torch._utils._rebuild_tensor_v2(storage, offset, tuple(sizes), stride, *others)


def _storage(content: bytes) -> Any:
    import torch

    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def read_horm(path: Path, bad: OnBad, *, energy: str = "ae") -> Iterator[Atoms]:
    """Stream a HORM file.

    Parameters
    ----------
    path
        ``.lmdb`` file.
    bad
        Takes index and reason of records that cannot be used.
    energy
        ``ae`` or ``energy``. The total energy is stored in single precision, 1 meV coarse; ``ae`` is not.
    """
    with open_lmdb(path) as environment, environment.begin() as transaction:
        stored = transaction.get(b"length")
        if stored is None:
            raise StoreError(f"{path}: no key b'length': not a HORM file")
        try:
            length = _AllowList(io.BytesIO(bytes(stored))).load()
        except Exception as error:  # a damaged pickle fails in any way
            raise StoreError(f"{path}: key b'length' cannot be read: {type(error).__name__}: {error}") from error
        if type(length) is not int or length < 0:
            raise StoreError(f"{path}: key b'length' is no number of records: {str(length)[:40]}")
        entries = transaction.stat()["entries"] - 1
        for index in range(min(length, entries + 1)):
            try:
                content = transaction.get(str(index).encode())
                if content is None:
                    raise RecordError("missing")
                atoms = _atoms(_fields(bytes(content)), energy)
            except (RecordError, LMDBError) as error:
                bad(index, str(error))
            except (
                AttributeError,
                TypeError,
                ValueError,
                RuntimeError,
                MemoryError,
            ) as error:  # fields of another kind
                bad(index, f"not a HORM record: {type(error).__name__}: {error}")
            else:
                yield atoms
        if length > entries + 1:
            bad(entries + 1, f"missing, as all up to {length - 1}: the file holds {entries} records")
        more = entries - length if transaction.get(str(length).encode()) is not None else 0
        if more > 0:
            bad(length, f"key b'length' says {length} records, but the file holds {more} more, which are not read")


def _fields(content: bytes) -> dict[str, Any]:
    try:
        record = _AllowList(io.BytesIO(content)).load()
        store = record.state["_store"].state["_mapping"]
    except RecordError:
        raise
    except Exception as error:  # a damaged pickle fails in any way
        raise RecordError(f"damaged record: {type(error).__name__}: {error}") from error
    if not isinstance(store, dict):
        raise RecordError("damaged record: no fields")
    missing = [name for name in FIELDS if name not in store]
    if missing:
        raise RecordError(f"no field {missing[0]!r}: not a HORM record")
    return store


def _atoms(store: dict[str, Any], energy: str) -> Atoms:
    if energy not in store:
        raise RecordError(f"no field {energy!r}")
    info = {"level": "wB97X/6-31G(d)"}
    if "rxn" in store:
        info["reaction"] = str(int(store["rxn"]))
    return labelled(
        store["charges"].numpy(),
        store["pos"].numpy(),
        energy=float(store[energy]),
        forces=store["forces"].numpy(),
        hessian=store["hessian"].numpy(),
        info=info,
    )
