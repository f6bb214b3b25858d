"""Labels on their way through MACE: from the structure file to the batch.

MACE's collate function drops or breaks on fields that not every structure has, so labels never enter it: they hang
on each data object under a name that it skips, and what is drawn from them goes beside the batch
(:mod:`hint_mace.packed`). The batch that MACE sees is the stock one.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import ase.io
import numpy as np
import pluggy
import torch
from ase import Atoms
from mace.data import AtomicData, Configuration
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from hint_mace.packed import DRAWN, Drawn, LabelledBatch
from hint_mace.patching import patched
from hint_plugins.labels.hessian_label import LabelError

#: Prefix of label arrays among the properties of MACE's configurations (and its HDF5 files).
PREFIX = "hint."
#: Attribute of a structure that MACE's collate function skips, since it begins and ends with two underscores.
STORED = "__hint_labels__"
#: Reference values of a structure that are numbers.
NUMBERS = ("energy", "forces", "stress", "virials", "dipole", "charges", "polarizability")
#: What a structure is and is trained on, for the digest of a data set.
CONTENT = ("node_attrs", "positions", "cell", "pbc", "head", "energy", "forces", "stress", "virials", "weight")


@contextlib.contextmanager
def named_frames() -> Iterator[None]:
    """Within, ``ase.io.read`` notes file and frame on every structure, so that errors can name them."""
    read = ase.io.read

    def named(filename: Any, *args: Any, **kwargs: Any) -> Any:
        result = read(filename, *args, **kwargs)
        frames = result if isinstance(result, list) else [result]
        for number, atoms in enumerate(frames):
            atoms.info["hint_source"] = f"{filename}, frame {number}"
        return result

    with patched(ase.io, "read", named):
        yield


def read_into(config: Configuration, atoms: Atoms, manager: pluggy.PluginManager) -> Configuration:
    """Store the labels that the plugins read from ``atoms`` among the properties of ``config``.

    MACE asks every configuration for a weight of each property that the first one has, so missing weights are 0.
    """
    config.property_weights = defaultdict(float, config.property_weights)
    forces = config.properties.get("forces") if config.property_weights.get("forces", 1.0) > 0 else None
    for labels in manager.hook.read_labels(atoms=atoms, forces=None if forces is None else np.asarray(forces)):
        for name, values in (labels or {}).items():
            config.properties[PREFIX + name] = np.asarray(values)
            config.property_weights[PREFIX + name] = 1.0
    return config


def require_numbers(config: Configuration, source: str) -> None:
    """Refuse positions, cells and reference values that are not finite numbers: one of them spoils every weight.

    Raises
    ------
    LabelError
        Naming the structure and the quantity.
    """
    weights = config.property_weights
    labels = {name: config.properties.get(name) for name in NUMBERS if weights.get(name, 1.0) > 0}
    for name, values in {"positions": config.positions, "cell": config.cell, **labels}.items():
        if values is None:
            continue
        try:
            finite = bool(np.isfinite(np.asarray(values, dtype=np.float64)).all())
        except (TypeError, ValueError):
            finite = False
        if not finite:
            raise LabelError(f"{source}: {name} is not all finite numbers; mend or remove the structure (hint check)")


def take_labels(config: Configuration) -> dict[str, np.ndarray]:
    """Remove the label arrays from the properties of ``config`` and give them."""
    names = [name for name in config.properties if name.startswith(PREFIX)]
    return {name.removeprefix(PREFIX): np.asarray(config.properties.pop(name)) for name in names}


def check_taken(
    config: Configuration, labels: dict[str, np.ndarray], source: str, manager: pluggy.PluginManager
) -> dict[str, np.ndarray]:
    """Labels of a prepared file, judged again by the plugins: files change between two commands.

    Parameters
    ----------
    config
        The structure.
    labels
        Its label arrays.
    source
        File and structure, for messages.
    manager
        The plugins.

    Returns
    -------
    dict
        The labels that hold; empty when a plugin drops them.

    Raises
    ------
    LabelError
        If a label does not hold.
    """
    if not labels:
        return labels
    atoms = Atoms(config.atomic_numbers, config.positions, cell=config.cell, pbc=config.pbc)
    atoms.info["hint_source"] = source
    forces = config.properties.get("forces") if config.property_weights.get("forces", 1.0) > 0 else None
    answers = manager.hook.check_labels(
        labels=labels, atoms=atoms, forces=None if forces is None else np.asarray(forces)
    )
    return {} if False in answers else labels


def stored_labels(data: AtomicData) -> dict[str, np.ndarray]:
    """Label arrays of one structure; empty when it has none."""
    return data.__dict__.get(STORED, {})


class LabelledDataset(Dataset):
    """MACE's data set; every item comes with the index that names its probes.

    Attributes
    ----------
    sizes
        Atoms of each structure, once :meth:`survey` has seen them.
    """

    def __init__(self, base: Sequence[AtomicData]) -> None:
        self.base = base
        self.sizes: list[int] = []

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> tuple[int, AtomicData]:
        return index, self.base[index]

    def survey(self, progress: bool = True) -> tuple[list[bool], str]:
        """For each structure, whether it carries labels; and a digest of all structures and labels in their order.

        Reads the data set once. The digest is that of single precision, whatever the precision of the run.
        """
        lazy = not _in_memory(self.base)
        flags, digest = [], hashlib.blake2b(digest_size=8)
        self.sizes = []
        for index in tqdm(range(len(self)), "looking for labels", disable=not (progress and lazy), leave=False):
            data = self.base[index]
            labels = stored_labels(data)
            flags.append(bool(labels))
            self.sizes.append(int(data.num_nodes))
            for name in CONTENT:
                digest.update(_bytes(getattr(data, name, None)))
            for name in sorted(labels):
                digest.update(name.encode() + _bytes(labels[name]))
        return flags, digest.hexdigest()


def _bytes(values: Any) -> bytes:
    if values is None:
        return b"-"
    array = np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values)
    return np.ascontiguousarray(array.astype(np.float32) if array.dtype.kind == "f" else array).tobytes()


def _in_memory(data: Any) -> bool:
    parts = getattr(data, "datasets", [data])
    return all(isinstance(part, list) or (part is not data and _in_memory(part)) for part in parts)


class Collate:
    """Makes the stock batch, with freshly drawn labels beside it.

    Parameters
    ----------
    manager
        The plugins that draw.
    epoch
        Epoch of the draw, which may be changed between epochs. None gives the fixed draw of validation, where the
        stored labels (whole Hessians) go with the batch too.
    """

    def __init__(self, manager: pluggy.PluginManager, epoch: int | None = None) -> None:
        self.manager, self.epoch = manager, epoch

    def __call__(self, items: Sequence[tuple[int, AtomicData]]) -> LabelledBatch:
        batch = LabelledBatch.from_data_list([data for _, data in items])
        batch.__dict__[DRAWN] = self.draw(items)
        return batch

    def labelled(self, items: Iterable[tuple[int, AtomicData]]) -> LabelledBatch | None:
        """Batch of the labelled structures among ``items`` alone; None when there is none."""
        chosen = [item for item in items if stored_labels(item[1])]
        return self(chosen) if chosen else None

    def draw(self, items: Sequence[tuple[int, AtomicData]]) -> Drawn | None:
        """Labels of the labelled structures among ``items``; None when there is none."""
        chosen = [k for k, (_, data) in enumerate(items) if stored_labels(data)]
        if not chosen:
            return None
        drawn: dict[str, list[np.ndarray]] = {}
        for number, data in (items[k] for k in chosen):
            for labels in self.manager.hook.draw_labels(
                labels=stored_labels(data), num_atoms=data.num_nodes, epoch=self.epoch, index=number
            ):
                for name, values in (labels or {}).items():
                    drawn.setdefault(name, []).append(values)
        for name, parts in drawn.items():
            if len(parts) != len(chosen):
                raise ValueError(f"label {name!r} was drawn for {len(parts)} of {len(chosen)} labelled structures")
        sizes = [int(data.num_nodes) for _, data in items]
        ends, own = np.cumsum(sizes), np.array([sizes[k] for k in chosen])
        index = {
            "batch": np.repeat(np.arange(len(chosen)), own),
            "ptr": np.concatenate([[0], np.cumsum(own)]),
            "atoms": np.concatenate([np.arange(ends[k] - sizes[k], ends[k]) for k in chosen]),
            "structures": np.array(chosen),
            "elements": np.concatenate([items[k][1].node_attrs.argmax(dim=1).numpy() for k in chosen]),
            "num_atoms": own.astype(np.float64),
        }
        return Drawn.pack(
            chosen,
            own.tolist(),
            {name: np.concatenate(parts) for name, parts in drawn.items()},
            index,
            items[0][1].positions.dtype,
            [stored_labels(items[k][1]) for k in chosen] if self.epoch is None else (),
        )


def labelled_loader(loader: DataLoader, collate: Callable[[Any], Any], **settings: Any) -> DataLoader:
    """A loader like ``loader`` whose batches ``collate`` makes.

    Parameters
    ----------
    loader
        MACE's.
    collate
        A :class:`Collate`, or its method ``labelled``.
    **settings
        ``batch_sampler``, or ``batch_size`` and ``sampler``, in place of the loader's own.
    """
    dataset = loader.dataset
    base = dataset if isinstance(dataset, LabelledDataset) else LabelledDataset(cast(Sequence, dataset))
    return DataLoader(
        base,
        collate_fn=collate,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        **settings,
    )
