"""What a search for one transition state gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ase import Atoms

# fmt: off
#: Keys of a record.
FIELDS = (
    "name", "formula", "n_atoms", "path_converged", "ts_converged", "intended", "conformational", "reactant_energy",
    "barrier", "barrier_kcal_mol", "reaction_energy", "reaction_energy_kcal_mol", "imaginary_cm1", "n_imaginary",
    "frequencies_cm1", "irc_converged", "irc_reactant_energy", "irc_product_energy", "irc_reactant_rmsd",
    "irc_product_rmsd", "irc_reactant_conformer", "irc_product_conformer", "reactant_kept", "product_kept", "bonds",
    "ts_rmsd", "barrier_error", "reaction_energy_error", "n_hessians", "n_forces", "seconds", "cpu_seconds", "reason",
    "detail", "attempts",
)
# fmt: on


@dataclass
class SearchResult:
    """What became of one reaction; structures carry energies (eV) and forces (eV/A).

    Attributes
    ----------
    record
        Plain data with the keys :data:`FIELDS` (:func:`hint_recipes.molecules.transition_states.search.search`).
    path
        Images between the end points.
    ts
        Saddle.
    irc
        Reaction coordinate, from the reactant's side to the product's.
    ends
        Relaxed reactant and product.
    """

    record: dict[str, Any]
    path: list[Atoms]
    ts: Atoms | None = None
    irc: list[Atoms] | None = None
    ends: tuple[Atoms, ...] = ()
