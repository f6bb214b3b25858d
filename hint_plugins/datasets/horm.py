"""HORM: LMDB files of pickled torch_geometric records, read without running what a pickle asks for.

Cui et al., arXiv:2505.12447. omegaB97X/6-31G(d) energies, forces and Hessians of reactive C, H, N, O geometries.
Keys ``b"0"`` ... and ``b"length"``; a value holds ``pos`` (A), ``energy`` and ``ae`` (eV, total and of atomisation),
``forces`` (eV/A), ``hessian`` (flat, eV/A^2), ``charges`` (atomic numbers), ``natoms``, ``rxn``.
"""

from __future__ import annotations

import collections
import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.datasets.record import RecordError, labelled
from hint_plugins.labels.lmdb import LMDBError, open_lmdb
from hint_plugins.labels.store import OnBad, StoreError

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
            import torch

            return torch._utils._rebuild_tensor_v2
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _storage
        if module.partition(".")[0] == "torch_geometric" or name in ("DataTensorAttr", "DataEdgeAttr"):
            return _Record
        raise RecordError(f"refused: the record asks for {module}.{name}, which no HORM record needs")


def _storage(content: bytes) -> Any:
    import torch

    return torch.load(io.BytesIO(content), weights_only=True)


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
            length = int(_AllowList(io.BytesIO(bytes(stored))).load())
        except (pickle.UnpicklingError, RecordError, TypeError, ValueError, EOFError) as error:
            raise StoreError(f"{path}: key b'length' cannot be read: {error}") from error
        for index in range(length):
            try:
                content = transaction.get(str(index).encode())
                if content is None:
                    raise RecordError("missing")
                atoms = _atoms(_fields(bytes(content)), energy)
            except (RecordError, LMDBError) as error:
                bad(index, str(error))
            except (AttributeError, TypeError, ValueError, RuntimeError) as error:  # fields of another kind
                bad(index, f"not a HORM record: {type(error).__name__}: {error}")
            else:
                yield atoms


def _fields(content: bytes) -> dict[str, Any]:
    try:
        record = _AllowList(io.BytesIO(content)).load()
        store = record.state["_store"].state["_mapping"]
    except RecordError:
        raise
    except Exception as error:  # a damaged pickle fails in any way
        raise RecordError(f"damaged record: {type(error).__name__}: {error}") from error
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
