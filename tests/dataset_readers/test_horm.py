"""HORM files: read in full, and a pickle that wants to run something gets nowhere."""

import io
import os
import pickle

import numpy as np
import pytest
import torch

from hint_plugins.datasets.reading import read_dataset
from hint_plugins.storage.store import StoreError

lmdb = pytest.importorskip("lmdb")


def _class(name, module):
    """A class that pickles under another package's name, with the attribute layout of torch_geometric."""
    return type(name, (), {"__module__": module, "__qualname__": name})


def record(n=3, seed=0, **changes):
    rng = np.random.default_rng(seed)
    hessian = rng.normal(size=(3 * n, 3 * n))
    hessian += hessian.T
    hessian -= hessian.reshape(3 * n, n, 3).mean(axis=1)[:, None, :].repeat(n, 1).reshape(3 * n, 3 * n)
    fields = {
        "pos": torch.tensor(rng.normal(size=(n, 3)), dtype=torch.float32),
        "energy": torch.tensor(-100.0 * n),
        "ae": torch.tensor(-1.5 * n),
        "forces": torch.tensor(rng.normal(size=(n, 3)), dtype=torch.float32),
        "hessian": torch.tensor(hessian.ravel(), dtype=torch.float32),
        "charges": torch.tensor([8, 1, 1, 6, 7][:n], dtype=torch.int32),
        "natoms": torch.tensor(n),
        "rxn": torch.tensor(17),
    }
    fields.update(changes)
    return {name: value for name, value in fields.items() if value is not None}


def pickled(fields):
    """Bytes of a torch_geometric Data object, written without that library."""
    import sys
    import types

    names = ("torch_geometric", "torch_geometric.data", "torch_geometric.data.data", "torch_geometric.data.storage")
    for name in names:
        sys.modules.setdefault(name, types.ModuleType(name))
    data_class = _class("Data", "torch_geometric.data.data")
    store_class = _class("GlobalStorage", "torch_geometric.data.storage")
    sys.modules["torch_geometric.data.data"].Data = data_class
    sys.modules["torch_geometric.data.storage"].GlobalStorage = store_class
    data, store = data_class(), store_class()
    store._mapping, store._parent = fields, None
    data._store = store
    try:
        return pickle.dumps(data)
    finally:
        for name in names:
            sys.modules.pop(name, None)


def write(path, values, length=None):
    with lmdb.open(str(path), subdir=False, map_size=2**24) as environment, environment.begin(write=True) as txn:
        for index, value in enumerate(values):
            txn.put(str(index).encode(), value)
        if length is not False:
            txn.put(b"length", pickle.dumps(len(values) if length is None else length))
    return path


def test_records_of_a_machine_with_a_gpu(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        content = pickled(record(3))
    assert b"cuda:0" in content
    (atoms,) = read_dataset(write(tmp_path / "a.lmdb", [content]))
    np.testing.assert_array_equal(atoms.positions, record(3)["pos"].double().numpy())


def test_fields_units_and_order(tmp_path):
    fields = [record(3), record(5, seed=1)]
    path = write(tmp_path / "a.lmdb", [pickled(f) for f in fields])
    for atoms, f in zip(read_dataset(path), fields, strict=True):
        assert atoms.numbers.tolist() == f["charges"].tolist()
        np.testing.assert_array_equal(atoms.positions, f["pos"].double().numpy())
        np.testing.assert_array_equal(atoms.arrays["REF_forces"], f["forces"].double().numpy())
        np.testing.assert_array_equal(atoms.info["REF_hessian"], f["hessian"].double().numpy())
        assert atoms.info["REF_energy"] == f["ae"].item()
    (first, _) = read_dataset(path, energy="energy")
    assert first.info["REF_energy"] == -300.0


class Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def evil_storage(marker):
    """A tensor whose storage bytes carry a second, malicious pickle."""
    inner = io.BytesIO()
    pickle.dump(Evil(os.system, f"touch {marker}"), inner)
    return Evil(torch.storage._load_from_bytes, inner.getvalue())


@pytest.mark.parametrize("kind", ["system", "eval", "storage", "getattr", "field"])
def test_malicious_pickle_runs_nothing(tmp_path, kind):
    marker = tmp_path / "pwned"
    value = {
        "system": Evil(os.system, f"touch {marker}"),
        "eval": Evil(eval, f"open({str(marker)!r}, 'w')"),
        "storage": evil_storage(marker),
        "getattr": Evil(getattr, "text", "upper"),
        "field": None,
    }[kind]
    content = pickle.dumps(value)
    if kind == "field":
        content = pickled(record(pos=Evil(os.system, f"touch {marker}")))
    path = write(tmp_path / "evil.lmdb", [pickled(record()), content])
    found = []
    frames = list(read_dataset(path, bad=lambda i, reason: found.append((i, reason))))
    assert not marker.exists()
    assert len(frames) == 1
    assert found[0][0] == 1
    assert "refused" in found[0][1] or "damaged" in found[0][1]


def test_malicious_length(tmp_path):
    marker = tmp_path / "pwned"
    path = write(tmp_path / "a.lmdb", [], length=Evil(os.system, f"touch {marker}"))
    with pytest.raises(StoreError, match="length"):
        list(read_dataset(path))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hessian": torch.zeros(80)}, "80 numbers where 81"),
        ({"hessian": None}, "no field 'hessian'"),
        ({"pos": torch.full((3, 3), float("nan"))}, "positions holds a number that is not finite"),
        ({"charges": torch.tensor([8, 1, 200])}, "unknown element with atomic number 200"),
        ({"ae": None}, "no field 'ae'"),
        ({"pos": [[0.0, 0.0, 0.0]] * 3}, "not a HORM record: AttributeError"),
        ({"rxn": "abc"}, "not a HORM record: ValueError"),
        ({"ae": torch.zeros(2)}, "not a HORM record"),
        ({"forces": torch.zeros(3, 3, requires_grad=True)}, "not a HORM record: RuntimeError"),
    ],
)
def test_bad_records_are_named(tmp_path, changes, reason):
    path = write(tmp_path / "a.lmdb", [pickled(record()), pickled(record(**changes)), pickled(record())])
    found = []
    assert len(list(read_dataset(path, bad=lambda i, r: found.append((i, r))))) == 2
    assert found[0][0] == 1
    assert reason in found[0][1]
    with pytest.raises(StoreError, match="structure 1"):
        list(read_dataset(path))


def test_torn_and_missing_records(tmp_path):
    good = pickled(record())
    path = write(tmp_path / "a.lmdb", [good, good[:100], good], length=4)
    found = []
    assert len(list(read_dataset(path, bad=lambda i, r: found.append(i)))) == 2
    assert found == [1, 3]


def test_not_horm(tmp_path):
    path = write(tmp_path / "a.lmdb", [], length=False)
    with pytest.raises(StoreError, match="not a HORM file"):
        list(read_dataset(path))
    (tmp_path / "b.lmdb").write_bytes(b"x" * 10_000)
    with pytest.raises(StoreError, match="not an LMDB file"):
        list(read_dataset(tmp_path / "b.lmdb"))


def huge(count):
    """A tensor of ``count`` numbers out of one stored number, by strides of 0."""
    return torch.zeros(1, dtype=torch.float64).as_strided((count,), (0,))


def test_a_tensor_of_more_numbers_than_are_stored(tmp_path):
    path = write(tmp_path / "a.lmdb", [pickled(record(hessian=huge(10**12))), pickled(record())])
    found = []
    assert len(list(read_dataset(path, bad=lambda i, r: found.append((i, r))))) == 1
    assert found == [(0, "a tensor says it has 1000000000000 numbers where 1 are stored")]


@pytest.mark.parametrize("length", [-1, 3.7, "many", None, True])
def test_length_must_be_a_number(tmp_path, length):
    path = tmp_path / "a.lmdb"
    with lmdb.open(str(path), subdir=False, map_size=2**24) as environment, environment.begin(write=True) as txn:
        txn.put(b"length", pickle.dumps(length))
    with pytest.raises(StoreError, match="no number of records"):
        list(read_dataset(path))


@pytest.mark.parametrize("length", [10**15, 1])
def test_length_contradicts_the_records(tmp_path, length):
    path = write(tmp_path / "a.lmdb", [pickled(record()), pickled(record())], length=length)
    found = []
    frames = list(read_dataset(path, bad=lambda i, r: found.append((i, r))))
    assert len(frames) == min(length, 2)
    assert "the file holds 2 records" in found[-1][1] or "holds 1 more" in found[-1][1]
