"""One label as plain data: what a worker sends back and a shard keeps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.labelling.engine import EngineError
from hint_plugins.labels.hessian_label import SUFFIXES, HessianLabel
from hint_plugins.structures.charges import raw_statements, stated
from hint_plugins.structures.frozen import frozen, frozen_components

#: ``full``, ``columns``, ``projections``, or ``forces`` for energy and forces alone.
KINDS = ("full", "columns", "projections", "forces")
#: A structure with ``info[REQUEST] == "forces"`` gets energy and forces only (``hint select`` sets it).
REQUEST = "label_request"


@dataclass(frozen=True)
class LabelTask:
    """What is wanted for every structure.

    Attributes
    ----------
    kind
        One of :data:`KINDS`.
    num_probes
        Directions of ``projections``, columns of ``columns``.
    seed
        Fixes, with the structure's key, which directions or columns.
    step
        Displacement in A; None takes the engine's own.
    analytic
        Use the engine's analytic Hessian where it has one (``full`` and ``columns``).
    symmetry
        ``full`` Hessians of crystals without frozen atoms from symmetry-distinct displacements only.
    whole
        ``full`` Hessians of structures with frozen atoms, too; otherwise these get the block of the free coordinates.
    """

    kind: str = "full"
    num_probes: int = 5
    seed: int = 0
    step: float | None = None
    analytic: bool = True
    symmetry: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}: choose {', '.join(KINDS)}")
        if self.num_probes < 1:
            raise ValueError(f"the number of probes or columns must be at least 1, got {self.num_probes}")
        if self.step is not None and not 0 < self.step < 0.5:
            raise ValueError(f"the step is a displacement in A between 0 and 0.5, got {self.step}")

        if self.symmetry and self.kind != "full":
            raise ValueError("symmetry-distinct displacements belong to kind full")

    def kind_for(self, atoms: Atoms) -> str:
        """The kind for one structure: ``forces`` if no more is asked for, ``block`` for ``full`` with frozen atoms."""
        if atoms.info.get(REQUEST) == "forces":
            return "forces"
        return "block" if self.kind == "full" and not self.whole and frozen_components(atoms).any() else self.kind


def structure_key(atoms: Atoms, kind: str) -> str:
    """Hexadecimal name of a structure and the kind of label wanted for it.

    Elements, positions, cell and periodicity count, to the last bit, and charge, multiplicity and initial magnetic
    moments, under whatever name they are given, and frozen atoms for a ``block``; nothing else does.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.asarray(atoms.numbers, dtype="<i4").tobytes())
    digest.update(np.asarray(atoms.positions, dtype="<f8").tobytes())
    digest.update(np.asarray(atoms.cell, dtype="<f8").tobytes())
    digest.update(np.asarray(atoms.pbc, dtype="u1").tobytes())
    try:
        given = stated(atoms)
        state = f"{given.get('charge', 0)}|{given.get('spin', 0)}"
    except EngineError as error:  # the engine will refuse it; until then it needs a name
        state = str(error)
    digest.update(f"{state}|{kind}".encode())
    if atoms.has("initial_magmoms") and np.any(moments := atoms.get_initial_magnetic_moments()):
        digest.update(np.asarray(moments, dtype="<f8").tobytes())
    if kind == "block":
        digest.update(frozen_components(atoms).tobytes())
    return digest.hexdigest()


def bare(atoms: Atoms) -> Atoms:
    """The structure without labels or calculator: what a worker needs."""
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if (held := frozen_components(atoms)).any():
        plain.set_constraint(frozen(~held))
    for name, value in raw_statements(atoms).items():
        if name in atoms.arrays:
            plain.set_array(name, value)
        else:
            plain.info[name] = value
    if REQUEST in atoms.info:
        plain.info[REQUEST] = atoms.info[REQUEST]
    return plain


def strip_labels(atoms: Atoms) -> None:
    """Remove every ``REF_*`` and ``label_*`` entry and the calculator, so that levels of theory never mix."""
    atoms.calc = None
    for store in (atoms.info, atoms.arrays):
        for name in [n for n in store if n.startswith(("REF_", "label_")) and n != REQUEST]:
            del store[name]


def attach(record: Mapping[str, Any], atoms: Atoms) -> None:
    """Put the label of a finished record onto its structure, with its provenance under ``label_*``."""
    strip_labels(atoms)
    n = len(atoms)
    atoms.info["REF_energy"] = float(record["energy"])
    atoms.arrays["REF_forces"] = np.asarray(record["forces"], dtype=float).reshape(n, 3)
    if record.get("stress") is not None:
        atoms.info["REF_stress"] = np.asarray(record["stress"], dtype=float)
    label = {
        f"REF_hessian{suffix}": np.asarray(record["hessian" + suffix])
        for suffix in SUFFIXES
        if record.get("hessian" + suffix) is not None
    }
    found = HessianLabel.from_info(label, n)
    if found is not None:
        found.to_info(atoms.info)
    for name, value in record["provenance"].items():
        atoms.info[f"label_{name}"] = value
