"""Reactions of a file of end points, and their division into parts that share no molecule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from hint_plugins.errors import InputError
from hint_plugins.storage.store import read_structures
from hint_recipes.failures import SearchFailure
from hint_recipes.molecules.transition_states.bonds import bond_matrix
from hint_recipes.molecules.transition_states.reaction import Reaction, check_reaction, group_reactions

PARTS = ("test", "held_back", "valid", "train")
#: What may go to other parts than ``train``.
MOST = 0.6


def mini_reactions() -> list[Reaction]:
    """The reactions that this package ships, as end points."""
    from hint_plugins.datasets.minireactions import reactions

    return [Reaction(r.name, {"reactant": r.reactant, "product": r.product}) for r in reactions()]


def read_reactions(
    path: Path | None, max_atoms: int | None, elements: Sequence[str], limit: int | None
) -> tuple[list[Reaction], dict[str, str]]:
    """Reactions by name, and why others were left out.

    Parameters
    ----------
    path
        Structures with ``info["reaction"]`` and ``info["role"]``; None for the mini reactions of this package.
    max_atoms
        Larger reactions are left out.
    elements
        Reactions with other elements are left out.
    limit
        At most so many.

    Raises
    ------
    InputError
        If no reaction is left.
    """
    try:
        found = mini_reactions() if path is None else group_reactions(read_structures(path))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    kept, out = [], {}
    for reaction in sorted(found, key=lambda r: r.name):
        try:
            check_reaction(reaction)
        except SearchFailure as failure:
            out[reaction.name] = str(failure)
            continue
        others = set(reaction.reactant.symbols) - set(elements)
        if others:
            out[reaction.name] = f"holds {', '.join(sorted(others))}"
        elif max_atoms is not None and len(reaction.reactant) > max_atoms:
            out[reaction.name] = f"more than {max_atoms} atoms"
        else:
            kept.append(reaction)
    if not kept:
        raise InputError(f"{path or 'mini reactions'}: no reaction is left ({len(out)} were left out)")
    return kept[:limit], out


def fingerprint(atoms: Atoms) -> tuple:
    """The same for two geometries of one molecule: formula and spectrum of its bond graph."""
    matrix = bond_matrix(atoms).astype(float)
    np.fill_diagonal(matrix, atoms.numbers)
    return (atoms.get_chemical_formula(), *np.round(np.linalg.eigvalsh(matrix), 4))


def families(reactions: Sequence[Reaction]) -> list[list[str]]:
    """Names of reactions that hang together by a common reactant or product."""
    leader = list(range(len(reactions)))

    def find(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    first: dict[tuple, int] = {}
    for index, reaction in enumerate(reactions):
        for atoms in (reaction.reactant, reaction.product):
            leader[find(index)] = find(first.setdefault(fingerprint(atoms), index))
    groups: dict[int, list[str]] = {}
    for index, reaction in enumerate(reactions):
        groups.setdefault(find(index), []).append(reaction.name)
    return list(groups.values())


def split(reactions: Sequence[Reaction], wanted: dict[str, int], seed: int) -> dict[str, str]:
    """Name of each reaction to one of :data:`PARTS`; no two parts have a reactant or product in common.

    Families of reactions are dealt by seed, so a part may get a few more than ``wanted`` (by name, without ``train``).
    Where fewer reactions are there than these would leave for training, all parts shrink alike.
    """
    groups = families(reactions)
    if len(groups) < 4:
        raise InputError(
            f"{len(groups)} families of reactions are too few: training, validation, test and held back need one each"
        )
    shrink = min(1.0, MOST * len(reactions) / max(1, sum(wanted.values())))
    order = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    parts: dict[str, str] = {}
    for place, part in enumerate(PARTS[:-1]):
        left = len(PARTS) - 1 - place  # families that the parts after this one need
        count = 0
        target = max(1, round(shrink * wanted[part])) if wanted[part] else 0
        while count < target and len(order) > left:
            names = order.pop()
            count += len(names)
            parts |= dict.fromkeys(names, part)
    return parts | {name: "train" for names in order for name in names}
