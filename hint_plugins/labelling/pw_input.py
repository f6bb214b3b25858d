"""Input files of pw.x as templates: everything but cell, atoms and k-points is handed on as it stands, or refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hint_plugins.structures.species import element

#: Cards that are handed on word for word.
PASSED = ("HUBBARD", "OCCUPATIONS", "SOLVENTS", "ADDITIONAL_K_POINTS")
#: Cards that the engine reads, or whose content comes from the structure.
READ = ("ATOMIC_SPECIES", "ATOMIC_POSITIONS", "CELL_PARAMETERS", "K_POINTS")
#: Cards that belong to one arrangement of atoms or to motion, and are refused.
REFUSED = (
    "CONSTRAINTS", "ATOMIC_FORCES", "ATOMIC_VELOCITIES", "REF_CELL_PARAMETERS", "TOTAL_CHARGE", "AUTOPILOT", "KSOUT",
    "PLOT_WANNIER", "WANNIER_AC",
)  # fmt: skip
#: Variables of &SYSTEM whose last index counts species; of ``hubbard_occ`` it is the first.
BY_SPECIES = (
    "starting_magnetization", "starting_charge", "starting_ns_eigenvalue", "angle1", "angle2", "london_c6",
    "london_rvdw", "hubbard_u", "hubbard_um", "hubbard_j", "hubbard_j0", "hubbard_alpha", "hubbard_alpha_m",
    "hubbard_beta", "hubbard_occ",
)  # fmt: skip
#: Variables of &SYSTEM that the structure replaces.
GEOMETRY = (
    "ibrav", "nat", "ntyp", "a", "b", "c", "cosab", "cosac", "cosbc", "celldm", "space_group", "uniqueb",
    "origin_choice", "rhombohedral",
)  # fmt: skip

_QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")
_ASSIGNMENT = re.compile(r"([A-Za-z]\w*(?:\s*\([\d\s,]*\))?)\s*=\s*")


@dataclass(frozen=True)
class Species:
    """A row of ``ATOMIC_SPECIES``: label, mass (u) and file name as they stand, and the element."""

    label: str
    mass: str
    pseudopotential: str
    symbol: str


@dataclass(frozen=True)
class PwTemplate:
    """A pw.x input file, taken apart.

    Attributes
    ----------
    namelists
        Raw values by namelist and variable, both in lower case; indexed variables as ``name(i,j)``.
    species
        In the file's order, which the indexed variables follow.
    cards
        First line (without the name) and rows, by name.
    positions
        Species labels of ``ATOMIC_POSITIONS``.
    """

    namelists: dict[str, dict[str, str]]
    species: tuple[Species, ...]
    cards: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    positions: tuple[str, ...] = ()

    def value(self, namelist: str, name: str) -> str | None:
        """Raw value of a variable without its quotes; None if the file does not set it."""
        found = self.namelists.get(namelist, {}).get(name)
        return None if found is None else found.strip("'\" ")


def number(raw: str) -> float:
    """A Fortran number."""
    return float(raw.lower().replace("d", "e"))


def is_true(raw: str | None) -> bool:
    """A Fortran logical."""
    return raw is not None and raw.lower().lstrip(".").startswith("t")


def read_template(text: str) -> PwTemplate:
    """Take a pw.x input file apart.

    Raises
    ------
    ValueError
        For a card or a line that can neither be handed on nor replaced.
    """
    masked = _QUOTED.sub(lambda m: m[0][0] + "x" * (len(m[0]) - 2) + m[0][-1], text)
    comments = [(m.start(), m.end()) for m in re.finditer(r"![^\n]*", masked)]
    for start, end in reversed(comments):
        text, masked = text[:start] + text[end:], masked[:start] + masked[end:]
    namelists: dict[str, dict[str, str]] = {}
    outside, position = [], 0
    for block in re.finditer(r"^[ \t]*&(\w+)(.*?)/", masked, re.DOTALL | re.MULTILINE):
        outside.append(text[position : block.start()])
        position = block.end()
        name, body = block.group(1).lower(), slice(block.start(2), block.end(2))
        namelists[name] = _assignments(name, text[body], masked[body])
    outside.append(text[position:])
    rest = "\n".join(outside)
    if not re.search(r"^\s*ATOMIC_SPECIES", rest, re.IGNORECASE | re.MULTILINE):
        raise ValueError("the template has no ATOMIC_SPECIES with pseudopotentials")
    cards = _cards(rest)
    species = tuple(_species(row) for row in cards.pop("ATOMIC_SPECIES")[1])
    if not species:
        raise ValueError("the template has no ATOMIC_SPECIES with pseudopotentials")
    rows = [row.split() for row in cards.pop("ATOMIC_POSITIONS", ("", []))[1]]
    cell = cards.pop("CELL_PARAMETERS", ("", []))[1]
    stray = next((row for row in rows if len(row) < 4), None) or next((row.split() for row in cell[3:]), None)
    if stray:
        raise ValueError(f"the template's line {' '.join(stray)!r} belongs to no known card")
    return PwTemplate(namelists, species, cards, tuple(row[0] for row in rows))


def _assignments(namelist: str, body: str, masked: str) -> dict[str, str]:
    found = list(_ASSIGNMENT.finditer(masked))
    before = masked[: found[0].start()] if found else masked
    if before.strip(" \t\n,"):
        raise ValueError(f"&{namelist} of the template: {before.strip()!r} is no assignment")
    ends = [*(m.start() for m in found), len(body)][1:]
    return {
        re.sub(r"\s", "", m.group(1)).lower(): " ".join(body[m.end() : end].split()).rstrip(", ")
        for m, end in zip(found, ends, strict=True)
    }


def _cards(text: str) -> dict[str, tuple[str, list[str]]]:
    cards: dict[str, tuple[str, list[str]]] = {}
    rows: list[str] | None = None
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        head = re.match(r"[A-Za-z_]+", stripped)
        name = head.group(0).upper() if head else ""
        if name in REFUSED:
            raise ValueError(
                f"the template has the card {name}, which belongs to one arrangement of atoms or to motion and cannot "
                "be carried over: take it out"
            )
        if name in READ + PASSED:
            if name in cards:
                raise ValueError(f"the template has the card {name} twice")
            rows = []
            cards[name] = (stripped[len(name) :].strip(), rows)
        elif rows is None:
            raise ValueError(f"the template's line {stripped!r} belongs to no known card")
        else:
            rows.append(stripped)
    return cards


def _species(row: str) -> Species:
    parts = row.split()
    if len(parts) != 3:
        raise ValueError(f"the template's line {row!r} is no row of ATOMIC_SPECIES (label, mass, pseudopotential)")
    label, mass, file = parts
    return Species(label, mass, file, element(label)[0])


def namelist_text(namelists: Mapping[str, Mapping[str, str]]) -> str:
    """Namelists as pw.x reads them, in its order."""
    order = ("control", "system", "electrons", "fcp", "rism")
    lines = []
    for name in order:
        if name in namelists:
            lines += [f"&{name.upper()}", *(f"   {k:16} = {v}" for k, v in namelists[name].items()), "/"]
    return "\n".join(lines) + "\n"


def for_species(template: PwTemplate, kept: Sequence[str]) -> tuple[dict[str, str], dict[str, tuple[str, list[str]]]]:
    """&SYSTEM and the cards to be handed on when only the species ``kept`` occur, in the template's order.

    Raises
    ------
    ValueError
        If something refers to species in a way that cannot be cut down.
    """
    labels = [species.label for species in template.species]
    new_index = {labels.index(label) + 1: place + 1 for place, label in enumerate(kept)}
    whole = len(kept) == len(labels)
    system = {}
    for key, value in template.namelists.get("system", {}).items():
        name, _, index = key.partition("(")
        if name in GEOMETRY:
            continue
        if name == "hubbard_v":
            raise ValueError("the template has Hubbard_V between numbered atoms, which cannot be carried over")
        if name in BY_SPECIES and not whole:
            if not index:
                raise ValueError(
                    f"the template gives {name} without an index, and the structure has not all its species"
                )
            numbers = [int(i) for i in index.rstrip(")").split(",")]
            place = 0 if name == "hubbard_occ" else -1
            if numbers[place] not in new_index:
                continue
            numbers[place] = new_index[numbers[place]]
            key = f"{name}({','.join(map(str, numbers))})"
        system[key] = value
    cards = dict(template.cards)
    if "HUBBARD" in cards:
        option, rows = cards["HUBBARD"]
        if any(row.split()[0].upper() == "V" for row in rows):
            raise ValueError("the template's HUBBARD card has V between numbered atoms, which cannot be carried over")
        cards["HUBBARD"] = (option, [row for row in rows if _label_of(row, labels) in (None, *kept)])
    return system, cards


def _label_of(row: str, labels: Sequence[str]) -> str | None:
    """The species that a row of HUBBARD (``U Fe1-3d 4.0``) is about; labels may hold a ``-`` themselves."""
    manifold = [*row.split(), "", ""][1]
    return max((label for label in labels if manifold.startswith(f"{label}-")), key=len, default=None)


def valence(pseudopotential: str) -> float | None:
    """Number of valence electrons from the text of a UPF file; None if it does not say."""
    found = re.search(r"z_valence\s*=\s*[\"']?\s*([-+.\dEeDd]+)", pseudopotential, re.IGNORECASE)
    found = found or re.search(r"^\s*([-+.\dEeDd]+)\s+Z valence", pseudopotential, re.MULTILINE)
    return number(found.group(1)) if found else None


def starting_magnetization(
    moments: Mapping[str, Sequence[float]], valences: Mapping[str, float | None]
) -> dict[str, str]:
    """Starting magnetisation of every species from the moments (mu_B) of its atoms, a fraction of the valence.

    Raises
    ------
    ValueError
        If the atoms of a species differ, or the pseudopotential does not give its valence.
    """
    found = {}
    for label, values in moments.items():
        if not np.allclose(values, values[0], atol=1e-6):
            raise ValueError(
                f"the atoms of species {label} have different initial_magmoms ({min(values):g} to {max(values):g}): "
                f"the template needs a species for each, such as {label}1 and {label}2"
            )
        electrons = valences[label]
        if not electrons:
            raise ValueError(f"the pseudopotential of {label} does not give its valence, which initial_magmoms need")
        if abs(values[0]) > electrons:
            raise ValueError(f"initial_magmoms of {values[0]:g} exceed the {electrons:g} valence electrons of {label}")
        found[label] = f"{values[0] / electrons:.10g}"
    return found
