"""Structures as MACE reads them: labels are taken along, and what is wrong is named by file and place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mace.data import AtomicData, HDF5Dataset
from mace.data.lmdb_dataset import LMDBDataset

from hint_mace.data import STORED, check_taken, named_frames, read_into, require_numbers, take_labels
from hint_mace.energies import structure_of
from hint_mace.leaving import exit_with
from hint_plugins.labels.hessian_label import LabelError

if TYPE_CHECKING:
    from hint_mace.adapter import Adapter


def wrap_labels(adapter: Adapter) -> None:
    """Take labels from text files, databases and prepared files to MACE's structures."""
    row = ["structure"]
    prepared: list[str] = []

    def reading(original: Callable) -> Callable:
        def config_from_atoms(atoms: Any, *args: Any, **kwargs: Any) -> Any:
            source = atoms.info.setdefault("hint_source", f"{row[0]} ({atoms.get_chemical_formula()})")
            try:
                config = original(atoms, *args, **kwargs)
                require_numbers(config, source)
                adapter.energies.add(config, atoms, source)
                return read_into(config, atoms, adapter.manager)
            except LabelError as error:
                exit_with(error)
            except (TypeError, ValueError) as error:
                exit_with(LabelError(f"{source} cannot be read: {error}"))

        return config_from_atoms

    adapter.patches.function("config_from_atoms", reading, "mace.data.utils", "mace.data", "mace.data.lmdb_dataset")

    def with_row(original: Callable) -> Callable:
        def __getitem__(self: Any, index: int) -> Any:
            files = getattr(self.AseDB, "config", {}).get("src", "database")
            row[0] = f"{files if isinstance(files, str) else ' + '.join(map(str, files))}, structure {index}"
            try:
                return original(self, index)
            finally:
                row[0] = "structure"

        return __getitem__

    adapter.patches.method(LMDBDataset, "__getitem__", with_row)

    def with_place(original: Callable) -> Callable:
        def __getitem__(self: Any, index: int) -> Any:
            prepared.append(f"{self.file_path}, structure {index}")
            try:
                return original(self, index)
            finally:
                prepared.pop()

        return __getitem__

    adapter.patches.method(HDF5Dataset, "__getitem__", with_place)

    def named(original: Callable) -> Callable:
        def load_from_xyz(*args: Any, **kwargs: Any) -> Any:
            with named_frames():
                return original(*args, **kwargs)

        return load_from_xyz

    adapter.patches.function("load_from_xyz", named, "mace.data.utils", "mace.data")

    def with_labels(original: Callable) -> Callable:
        def from_config(cls: type, config: Any, *args: Any, **kwargs: Any) -> Any:
            labels = take_labels(config)
            if prepared:
                try:
                    require_numbers(config, prepared[-1])
                    adapter.energies.add(config, structure_of(config), prepared[-1])
                    labels = check_taken(config, labels, prepared[-1], adapter.manager)
                except LabelError as error:
                    exit_with(error)
            data = original(cls, config, *args, **kwargs)
            if labels:
                data.__dict__[STORED] = labels
            return data

        return from_config

    adapter.patches.method(AtomicData, "from_config", with_labels)
