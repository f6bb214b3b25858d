"""Hessian-QM9: a Hugging Face ``DatasetDict`` on disk, vacuum and three solvents.

Williams et al., Sci. Data 12 (2025), omegaB97X/6-31G*, CC0. A directory ``SPLIT/data-*.arrow`` for each of ``vacuum``,
``thf``, ``toluene``, ``water``; columns ``atomic_numbers``, ``positions`` (A), ``energy`` (eV), ``forces`` (eV/A),
``hessian`` (eV/A^2; (N, 3, N, 3) or (N, N, 3, 3)), ``label``. Written from the published description; not yet tried
on a real file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ase import Atoms

from hint_plugins.datasets.record import RecordError, labelled, square_hessian
from hint_plugins.storage.store import OnBad, StoreError

SPLITS = ("vacuum", "thf", "toluene", "water")
COLUMNS = ("atomic_numbers", "positions", "energy", "forces", "hessian")


def read_hessian_qm9(path: Path, bad: OnBad, *, split: str = "vacuum") -> Iterator[Atoms]:
    """Stream one split of the directory that ``load_from_disk`` reads.

    Parameters
    ----------
    path
        Directory with the splits, or of one split.
    bad
        Takes index and reason of records that cannot be used.
    split
        One of :data:`SPLITS`; only used if ``path`` holds several.
    """
    try:
        import pyarrow
        from pyarrow import ipc
    except ImportError as error:
        raise StoreError(f"{path}: needs `pip install pyarrow` ({error})") from error
    directory = path / split if (path / split).is_dir() else path
    files = sorted(directory.glob("*.arrow"))
    if not files:
        raise StoreError(f"{directory}: no *.arrow files (expected the splits {', '.join(SPLITS)})")
    index = 0
    for file in files:
        try:
            with pyarrow.memory_map(str(file)) as source, ipc.open_stream(source) as stream:
                missing = [c for c in COLUMNS if c not in stream.schema.names]
                if missing:
                    raise StoreError(f"{file}: no column {missing[0]!r}: not Hessian-QM9")
                for batch in stream:
                    batch.validate(full=True)  # wrong offsets in a damaged file would be followed otherwise
                    for row in batch.to_pylist():
                        atoms = _atoms(row, index, bad)
                        index += 1
                        if atoms is not None:
                            yield atoms
        except (pyarrow.ArrowInvalid, OSError) as error:
            bad(index, f"{file.name} is damaged or cut short: {error}")
            index += 1
    if not index:
        raise StoreError(f"{directory}: no records in its *.arrow files")


def _atoms(row: dict[str, Any], index: int, bad: OnBad) -> Atoms | None:
    try:
        n = len(row["atomic_numbers"] or [])
        return labelled(
            row["atomic_numbers"],
            row["positions"],
            energy=row["energy"],
            forces=row["forces"],
            hessian=square_hessian(row["hessian"], n),
            info={"name": str(row.get("label", index)), "level": "wB97X/6-31G*"},
        )
    except (RecordError, TypeError, ValueError) as error:
        bad(index, f"{row.get('label')}: {error}")
        return None
