"""Labels of the two levels: parts of the cheap set, energies on one scale, shares of good Hessians."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from stages import DONE, SOME_FAILED, command

from hint_plugins.datasets.energies import AtomicEnergies
from hint_plugins.errors import InputError
from hint_plugins.labelling.differences import signs
from hint_plugins.labelling.record import REQUEST, strip_labels, structure_key
from hint_plugins.labels.hessian_label import SUFFIXES, HessianLabel
from hint_plugins.storage.store import read_structures, write_structures, writing


def label(directory: Path, source: Path, target: str, method: str, workers: int, *words: Any) -> dict[str, Any]:
    """``hint label`` of ``source`` into ``directory/target``; goes on where a killed call stood.

    Returns
    -------
    dict
        ``structures`` labelled, ``failed``, ``gradients`` and ``label_seconds`` that the labels took.
    """
    options = ("--engine", "xtb", "--method", method, "--workers", workers)
    statuses = (DONE, SOME_FAILED)
    command(directory, "hint", "label", source.resolve(), target, *options, *words, statuses=statuses)
    counts: Counter[str] = Counter()
    seconds = 0.0
    for atoms in read_structures(directory / target):
        counts["structures"] += 1
        counts["gradients"] += int(atoms.info["label_gradients"])
        seconds += float(atoms.info["label_seconds"])
    total = sum(1 for _ in read_structures(source))
    return {**counts, "failed": total - counts["structures"], "label_seconds": round(seconds, 1)}


def pick(structures: Iterable[Atoms], per_reaction: int, seed: int) -> list[Atoms]:
    """At most ``per_reaction`` structures of each reaction, drawn by seed, without labels."""
    groups: dict[str, list[Atoms]] = defaultdict(list)
    for atoms in structures:
        groups[atoms.info["reaction"]].append(atoms)
    rng = np.random.default_rng(seed)
    chosen = []
    for name in sorted(groups):
        frames = groups[name]
        for index in sorted(rng.permutation(len(frames))[:per_reaction]):
            strip_labels(frames[index])
            chosen.append(frames[index])
    return chosen


def within(labelled: Path, most: float) -> Iterator[Atoms]:
    """Structures at most ``most`` eV above the lowest of their reaction: interpolation makes some that nobody needs."""
    lowest: dict[str, float] = {}
    for atoms in read_structures(labelled):
        name, energy = atoms.info["reaction"], float(atoms.info["REF_energy"])
        lowest[name] = min(lowest.get(name, energy), energy)
    for atoms in read_structures(labelled):
        if float(atoms.info["REF_energy"]) - lowest[atoms.info["reaction"]] <= most:
            yield atoms


def divide(labelled: Path, directory: Path, most: float) -> dict[str, int]:
    """Cheap labels :func:`within` ``most`` eV by part: ``train.xyz``, ``valid.xyz``, and ``anchors.xyz``.

    The anchors, the end points of both as they are, give the constants between the two levels. Labels of test and
    held-back reactions are left out.
    """
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        write = {n: stack.enter_context(writing(directory / f"{n}.xyz")) for n in ("train", "valid", "anchors")}
        for atoms in within(labelled, most):
            part = atoms.info["part"]
            if part not in ("train", "valid"):
                continue
            names = [part]
            if atoms.info["role"] in ("reactant", "product") and not atoms.info["displaced"]:
                names.append("anchors")
            for name in names:
                write[name](atoms)
                counts[name] += 1
    if not (counts["train"] and counts["valid"]):
        raise InputError(f"{labelled}: no labelled structure for training or validation")
    return dict(counts)


def atomic_energies(path: Path) -> dict[int, float]:
    """Least-squares energies of the elements (eV) in the labels of ``path``, by atomic number."""
    found = AtomicEnergies(read_structures(path))
    return {z: float(found.values[z]) for z in sorted(found.seen)}


def share_name(share: float, stored: int | None = None) -> str:
    """Name of the training file with whole Hessians, or ``stored`` projections, on a share (per cent)."""
    return f"h{share:g}{f'-stored{stored}' if stored else ''}.xyz"


def write_share(labelled: Path, target: Path, share: float, seed: int, stored: int | None = None) -> dict[str, int]:
    """The labelled structures, Hessians left on a share of them only.

    Shares of one seed contain each other: the structures with a Hessian of 1 % are among those of 10 %.

    Parameters
    ----------
    labelled
        Structures with whole Hessians.
    target
        New file; kept if it is there.
    share
        Per cent of the structures, rounded, at least one; 0 for none.
    seed
        Fixes which.
    stored
        Replace each Hessian by its products with so many fixed Rademacher directions.
    """
    total = sum(1 for _ in read_structures(labelled))
    wanted = max(1, round(share / 100 * total)) if share else 0
    keep = set(np.random.default_rng([7, seed]).permutation(total)[:wanted].tolist())
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_structures(target, _with_share(read_structures(labelled), keep, stored, seed))
    return {"structures": total, "hessians": wanted}


def _with_share(structures: Iterator[Atoms], keep: set[int], stored: int | None, seed: int) -> Iterator[Atoms]:
    for index, atoms in enumerate(structures):
        if index not in keep:
            for suffix in SUFFIXES:
                atoms.info.pop("REF_hessian" + suffix, None)
        elif stored:
            label = HessianLabel.from_info(atoms.info, len(atoms))
            assert label is not None
            z = signs(stored, 3 * len(atoms), seed, structure_key(atoms, "projections"))
            HessianLabel.projections(z, z @ label.products, len(atoms)).to_info(atoms.info)
        yield atoms


def select(pool: Path, out: Path, selection: str, fraction: float, seed: int) -> int:
    """``hint select``: structures for good labels; returns how many.

    ``selection`` is a method of the command; ``energy-top`` and ``energy-bottom`` choose the end as well.
    """
    method, _, end = selection.partition("-")
    words: list[Any] = ["--method", method, "--fraction", fraction, "--hessian-fraction", 1, "--seed", seed, "--no-map"]
    words += ["--end", end] if end else []
    words += ["--overwrite"]  # a stage that was killed between the command and its record
    command(out, "hint", "select", pool.resolve(), "--out", ".", *words)
    return sum(1 for atoms in read_structures(out / "selected.xyz") if atoms.info[REQUEST] == "hessian")


def known_selections(names: Sequence[str]) -> None:
    """Refuse selections that :func:`select` does not know."""
    known = ("density", "random", "energy-top", "energy-bottom")
    for name in names:
        if name not in known:
            raise InputError(f"unknown selection {name!r}: choose {', '.join(known)}")
