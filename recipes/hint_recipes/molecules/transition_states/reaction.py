"""Reactions: end points (and, where known, transition states) read from a file and checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import find_mic

from hint_plugins.labelling.engine import EngineError
from hint_plugins.labels.hessian_label import LabelError
from hint_plugins.structures.charges import charge_and_multiplicity, raw_info, stated
from hint_plugins.structures.copies import bare
from hint_plugins.structures.frozen import free_components
from hint_recipes.failures import SearchFailure
from hint_recipes.molecules.transition_states.ends import rmsd, same_bonds

ROLES = ("reactant", "product", "ts")
#: End points with the same bonds must differ by this much, A (``ends.rmsd``).
SAME_INPUT = 0.1


@dataclass
class Reaction:
    """Frames of one reaction by role; ``energies`` are those that rode along (eV), by role."""

    name: str
    frames: dict[str, Atoms] = field(default_factory=dict)
    energies: dict[str, float] = field(default_factory=dict)
    doubled: list[str] = field(default_factory=list)

    @property
    def reactant(self) -> Atoms:
        return self.frames["reactant"]

    @property
    def product(self) -> Atoms:
        return self.frames["product"]


def group_reactions(frames: Iterable[Atoms]) -> list[Reaction]:
    """Frames grouped by ``info["reaction"]`` and ``info["role"]``, in the order of first appearance.

    Images of a path (role "path") are no end points and left out.

    Raises
    ------
    ValueError
        If a frame lacks either key or has an unknown role: which frame, and what it has. If there is no reaction.
    """
    reactions: dict[str, Reaction] = {}
    for index, frame in enumerate(frames):
        role = str(frame.info.get("role", "")).strip().lower()
        if role == "path":
            continue
        if "reaction" not in frame.info or role not in ROLES:
            raise ValueError(
                f"frame {index} needs info 'reaction' and 'role' ({', '.join(ROLES)}); it has "
                f"{ {k: frame.info[k] for k in ('reaction', 'role') if k in frame.info} }"
            )
        reaction = reactions.setdefault(name := str(frame.info["reaction"]), Reaction(name))
        if role in reaction.frames:
            reaction.doubled.append(role)
            continue
        atoms = bare(frame)
        try:
            said = stated(frame)
        except EngineError as error:
            raise ValueError(f"frame {index}: {error}") from error
        for name in raw_info(frame):
            del atoms.info[name]
        atoms.info |= {**said, "role": role}
        reaction.frames[role] = atoms
        energy = _energy(frame)
        if energy is not None:
            reaction.energies[role] = energy
    if not reactions:
        raise ValueError("there is no reaction: no structure has the role reactant, product or ts")
    return list(reactions.values())


def _energy(frame: Atoms) -> float | None:
    if frame.calc is not None and "energy" in frame.calc.results:
        return float(frame.calc.results["energy"])
    for key in ("REF_energy", "energy"):
        if key in frame.info:
            return float(frame.info[key])
    return None


def check_reaction(reaction: Reaction, *, closest: float = 0.5) -> None:
    """Refuse end points that no search can work with.

    Parameters
    ----------
    reaction
        To be checked.
    closest
        Atoms nearer than this fraction of the sum of their covalent radii overlap.

    Raises
    ------
    SearchFailure
        With the reason.
    """
    for role in ("reactant", "product"):
        if role not in reaction.frames:
            raise SearchFailure("missing_end_point", f"no {role}")
        if role in reaction.doubled:
            raise SearchFailure("missing_end_point", f"more than one {role}")
    for role, atoms in reaction.frames.items():
        if not np.isfinite(atoms.positions).all():
            raise SearchFailure("not_finite", role)
        if not np.array_equal(atoms.numbers, reaction.reactant.numbers):
            raise SearchFailure(
                "different_atoms",
                f"reactant {reaction.reactant.get_chemical_formula('reduce')}, "
                f"{role} {atoms.get_chemical_formula('reduce')}",
            )
        _check_surroundings(reaction.reactant, atoms, role)
        radii = covalent_radii[atoms.numbers]
        ratios = atoms.get_all_distances(mic=bool(atoms.pbc.any())) / (radii[:, None] + radii[None])
        np.fill_diagonal(ratios, np.inf)
        if len(atoms) > 1 and ratios.min() < closest:
            i, j = np.unravel_index(ratios.argmin(), ratios.shape)
            raise SearchFailure(
                "overlapping_atoms", f"atoms {i} and {j} of the {role}, {atoms.get_distance(i, j):.3f} A apart"
            )
    ends = reaction.reactant, reaction.product
    if same_bonds(*ends) and (apart := rmsd(*ends)) < SAME_INPUT:
        raise SearchFailure("same_molecule", f"{apart:.3f} A apart (root mean square, {SAME_INPUT} A at least)")


def _check_surroundings(reactant: Atoms, atoms: Atoms, role: str) -> None:
    """Refuse another charge, spin, cell or set of frozen atoms than the reactant's."""
    if not (
        np.array_equal(reactant.pbc, atoms.pbc) and (not atoms.pbc.any() or np.allclose(reactant.cell, atoms.cell))
    ):
        raise SearchFailure("different_atoms", f"the {role} has another cell or periodicity than the reactant")
    (charge, spin), (other, multiplicity) = charge_and_multiplicity(reactant), charge_and_multiplicity(atoms)
    if (charge, spin) != (other, multiplicity):
        raise SearchFailure(
            "different_charge",
            f"reactant: charge {charge}, spin multiplicity {spin}; {role}: {other}, {multiplicity}",
        )
    if role == "ts":  # a reference: only its geometry is used
        return
    try:
        free, also = free_components(reactant), free_components(atoms)
    except LabelError as error:
        raise SearchFailure("frozen_atoms", str(error)) from error
    if not np.array_equal(free, also):
        raise SearchFailure("frozen_atoms", f"the {role} has other frozen atoms than the reactant")
    apart = find_mic(atoms.positions - reactant.positions, atoms.cell, atoms.pbc)[0]
    if np.abs(apart[~free]).max(initial=0.0) > 1e-3:
        raise SearchFailure("frozen_atoms", f"frozen atoms of the {role} are at other places than in the reactant")
