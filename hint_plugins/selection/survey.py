"""One pass over a data set of any size: what is needed to choose from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from hint_plugins.errors import HintError

#: Opens the stream of structures from its beginning.
Stream = Callable[[], Iterator[Atoms]]


class SelectionError(HintError, ValueError):
    """A selection that cannot be made, and why."""


@dataclass
class Survey:
    """What one pass learned.

    Attributes
    ----------
    formulas
        Hill formula of each structure.
    num_atoms
        (S,) atoms of each structure.
    energies
        (S,) ``REF_energy`` in eV; NaN where there is none.
    numbers
        Atomic numbers that occur, ascending.
    sample
        A uniform random sample of structures.
    """

    formulas: list[str]
    num_atoms: np.ndarray
    energies: np.ndarray
    numbers: list[int]
    sample: list[Atoms]

    def __len__(self) -> int:
        return len(self.formulas)


def survey(structures: Iterable[Atoms], rng: np.random.Generator, sample_size: int = 2000) -> Survey:
    """Walk through the structures once; memory grows by some bytes a structure only.

    Raises
    ------
    SelectionError
        If there are none.
    """
    formulas: list[str] = []
    known: dict[str, str] = {}
    num_atoms, energies = [], []
    elements: set[int] = set()
    sample: list[Atoms] = []
    for index, atoms in enumerate(structures):
        formula = atoms.get_chemical_formula()
        formulas.append(known.setdefault(formula, formula))
        num_atoms.append(len(atoms))
        energies.append(float(atoms.info.get("REF_energy", np.nan)))
        elements.update(atoms.numbers.tolist())
        if len(sample) < sample_size:
            sample.append(_bare(atoms))
        elif (slot := int(rng.integers(index + 1))) < sample_size:
            sample[slot] = _bare(atoms)
    if not formulas:
        raise SelectionError("there are no structures to choose from")
    return Survey(formulas, np.array(num_atoms), np.array(energies), sorted(elements), sample)


def _bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def draw(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` distinct indices drawn one after the other with probabilities proportional to ``weights``.

    Structures of weight zero come last. (Efraimidis and Spirakis, Inf. Process. Lett. 97, 181 (2006).)

    Returns
    -------
    numpy.ndarray
        Indices in ascending order.
    """
    if not 0 < count <= len(weights):
        raise SelectionError(f"cannot take {count} of {len(weights)} structures")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise SelectionError("weights must be finite and not negative")
    with np.errstate(divide="ignore"):
        keys = np.log(weights) + rng.gumbel(size=len(weights))
    keys[weights == 0] = -1e300 + rng.uniform(size=int((weights == 0).sum()))
    return np.sort(np.argpartition(-keys, count - 1)[:count])


def how_many(total: int, fraction: float, what: str) -> int:
    """Number of structures in a fraction of ``total``, at least one."""
    if not 0 < fraction <= 1:
        raise SelectionError(f"{what} must be above 0 and at most 1, got {fraction}")
    return max(1, round(fraction * total))
