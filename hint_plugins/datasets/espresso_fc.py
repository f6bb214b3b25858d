"""Force constants of Quantum ESPRESSO (ph.x and q2r.x): the Hessian of the supercell that the q-grid spans."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ase import Atoms

from hint_plugins.curvature.sum_rule import acoustic_sum_rule
from hint_plugins.datasets.q2r import read_q2r
from hint_plugins.datasets.record import RecordError, labelled
from hint_plugins.storage.store import OnBad


def read_espresso_fc(path: Path, bad: OnBad, *, asr: bool = False) -> Iterator[Atoms]:
    """Give the one supercell of a q2r.x file, with its Hessian and masses and no energy or forces.

    Parameters
    ----------
    path
        What q2r.x wrote: cell and atoms (alat), force constants (Ry/Bohr^2); of polar crystals the dipole-dipole part
        is added again.
    bad
        Takes index and reason if the force constants cannot be used.
    asr
        Symmetrise, and apply :func:`~hint_plugins.curvature.sum_rule.acoustic_sum_rule`. Use the same choice in every
        comparison.
    """
    try:
        content = read_q2r(path)
        hessian, supercell = content.hessian(), content.supercell
        atoms = labelled(
            supercell.numbers,
            supercell.positions,
            cell=supercell.cell.array,
            pbc=True,
            hessian=acoustic_sum_rule(0.5 * (hessian + hessian.T)) if asr else hessian,
            info={"name": path.stem, "role": "supercell", "asr": asr},
        )
        atoms.set_masses(supercell.get_masses())
        yield atoms
    except (RecordError, OSError, MemoryError) as error:
        bad(0, f"{path.name}: {error}")
