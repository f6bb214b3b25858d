"""A structure in the words of a pw.x template: species of its atoms, charge and spin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from hint_plugins.labelling.pw_input import PwTemplate, Species, is_true, number, starting_magnetization, valence
from hint_plugins.structures.charges import stated

#: Variables of &SYSTEM that belong to the number of atoms or the cell of the template.
EXTENSIVE = (
    "nbnd",
    "tot_charge",
    "tot_magnetization",
    "nr1",
    "nr2",
    "nr3",
    "nr1s",
    "nr2s",
    "nr3s",
    "nr1b",
    "nr2b",
    "nr3b",
)


def species_labels(template: PwTemplate, atoms: Atoms, moments: np.ndarray) -> list[str]:
    """The label of the species of every atom.

    Raises
    ------
    ValueError
        If the template has several species of an element and nothing says which atom is which.
    """
    symbols = atoms.get_chemical_symbols()
    by_symbol: dict[str, list[Species]] = defaultdict(list)
    for species in template.species:
        by_symbol[species.symbol].append(species)
    several = [symbol for symbol in dict.fromkeys(symbols) if len(by_symbol[symbol]) > 1]
    if not several:
        return [by_symbol[symbol][0].label for symbol in symbols]
    known = {species.label: species.symbol for species in template.species}
    if [known.get(label) for label in template.positions] == symbols:
        return list(template.positions)
    names = [species.label for species in template.species]
    start = [template.value("system", f"starting_magnetization({i + 1})") for i in range(len(names))]
    sign = {label: np.sign(number(value or "0")) for label, value in zip(names, start, strict=True)}
    found = []
    for symbol, moment in zip(symbols, moments if moments.ndim == 1 else np.zeros(len(atoms)), strict=True):
        fitting = [
            s.label for s in by_symbol[symbol] if len(by_symbol[symbol]) == 1 or sign[s.label] == np.sign(moment)
        ]
        if len(fitting) != 1:
            raise ValueError(
                f"the template has several species of {symbol} ({', '.join(s.label for s in by_symbol[symbol])}), and "
                "neither its ATOMIC_POSITIONS (elements in the structure's order) nor the signs of initial_magmoms say "
                "which atom is which"
            )
        found.append(fitting[0])
    return found


def set_charge_and_multiplicity(system: dict[str, str], template: PwTemplate, atoms: Atoms) -> None:
    """Put the charge and multiplicity that the structure states into ``&SYSTEM``.

    Raises
    ------
    ValueError
        If the template says otherwise, or holds variables that belong to another number of atoms.
    """
    given = stated(atoms)
    for name, key, value in (
        ("charge", "tot_charge", given.get("charge")),
        ("spin", "tot_magnetization", given["spin"] - 1 if "spin" in given else None),
    ):
        if value is None:
            continue
        if key in system and abs(number(system[key]) - value) > 1e-6:
            raise ValueError(f"the structure's {name} asks for {key} = {value}, and the template has {system[key]}")
        if key == "tot_magnetization" and template.value("system", "nspin") != "2":
            if value:
                raise ValueError(f"the structure has multiplicity {value + 1}, and the template is not nspin = 2")
        elif value or key in system or key == "tot_magnetization":
            system[key] = str(value)
    size = template.value("system", "nat")
    tied = [key for key in system if key in EXTENSIVE and system[key] == template.namelists["system"].get(key)]
    if tied and size is not None and int(number(size)) != len(atoms):
        raise ValueError(
            f"the template's {', '.join(tied)} belong to its own {size} atoms, and the structure has {len(atoms)}"
        )


def set_moments(
    system: dict[str, str],
    template: PwTemplate,
    moments: np.ndarray,
    labels: Sequence[str],
    pseudopotentials: Mapping[str, Path],
) -> None:
    """Replace the template's ``starting_magnetization`` where the structure has initial moments.

    Parameters
    ----------
    system
        Variables of ``&SYSTEM``, changed in place.
    template
        Says whether the calculation is magnetic.
    moments
        (N,) Bohr magnetons.
    labels
        Species of every atom.
    pseudopotentials
        File of each species that is used, in the order of the input.

    Raises
    ------
    ValueError
        If the template is not magnetic, or the moments are vectors.
    """
    if not np.any(moments):
        return
    if template.value("system", "nspin") != "2" and not is_true(template.value("system", "noncolin")):
        raise ValueError("the structure has initial_magmoms, and the template is neither nspin = 2 nor noncolin")
    if moments.ndim > 1:
        raise ValueError("initial_magmoms as vectors cannot be handed to pw.x; give angle1 and angle2 in the template")
    by_label: dict[str, list[float]] = defaultdict(list)
    for label, moment in zip(labels, moments, strict=True):
        by_label[label].append(float(moment))
    texts = {label: path.read_text(errors="replace") for label, path in pseudopotentials.items()}
    start = starting_magnetization(by_label, {label: valence(text) for label, text in texts.items()})
    for key in [key for key in system if key.startswith("starting_magnetization")]:
        del system[key]
    system |= {f"starting_magnetization({i})": start[label] for i, label in enumerate(pseudopotentials, start=1)}
