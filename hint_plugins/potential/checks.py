"""What a potential checks: structures before a calculation, results after it, and which structure an error is of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from hint_plugins.potential.backends.protocol import Backend, PotentialError
from hint_plugins.structures.charges import is_charged_or_open_shell

log = logging.getLogger(__name__)


class StructureChecks:
    """Finds structures that a backend cannot evaluate, before it tries.

    Parameters
    ----------
    backend
        See :class:`hint_plugins.potential.backends.Backend`.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._blind = not getattr(backend, "sees_charge", True)

    def why_not(self, atoms: Atoms) -> str | None:
        """Why this structure cannot be evaluated (what is seen without trying); None when nothing is wrong."""
        if len(atoms) == 0:
            return "it has no atoms"
        bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
        if len(bad):
            return f"the position of atom {bad[0]} is not finite: {atoms.positions[bad[0]]}"
        known = self.backend.elements
        unknown = sorted(set(atoms.numbers.tolist()) - known) if known is not None else []
        if known is not None and unknown:
            symbols = ", ".join(chemical_symbols[z] for z in sorted(known))
            return (
                f"{self.backend.name} does not know {', '.join(chemical_symbols[z] for z in unknown)} "
                f"(atom {int(np.flatnonzero(atoms.numbers == unknown[0])[0])}); it knows {symbols}"
            )
        return None

    def checked(self, structures: Iterable[Atoms] | Atoms) -> list[Atoms]:
        """All of ``structures`` as a list.

        Raises
        ------
        TypeError
            If one is no ``ase.Atoms``.
        PotentialError
            If one cannot be evaluated; the message names it by its index.
        """
        if isinstance(structures, Atoms):
            structures = [structures]
        items = list(structures)
        for index, atoms in enumerate(items):
            if not isinstance(atoms, Atoms):
                raise TypeError(f"structure {index}: expected ase.Atoms, got {type(atoms).__name__}")
            reason = self.why_not(atoms)
            if reason is not None:
                raise PotentialError(f"structure {index} ({atoms.get_chemical_formula()}): {reason}")
            self._warn_if_blind(atoms, index)
        return items

    def _warn_if_blind(self, atoms: Atoms, index: int) -> None:
        """Say once that the model cannot tell an ion or a radical from the neutral closed shell."""
        if self._blind and is_charged_or_open_shell(atoms):
            self._blind = False
            log.warning(
                "%s reads positions and elements only: charge and spin of structure %d (%s), and of others like it, do "
                "not enter its energy",
                self.backend.name,
                index,
                atoms.get_chemical_formula(),
            )


def with_index(function: Callable[[list[Atoms]], Any], structures: list[Atoms], chosen: list[int]) -> Any:
    """Run a backend on part of the list; an error names the structure's place in the whole list."""
    try:
        return function([structures[k] for k in chosen])
    except ValueError as error:
        half = len(chosen) // 2
        for part in (chosen[:half], chosen[half:]) if half else ():  # to the culprit, whatever the backend says
            with_index(function, structures, part)
        text = str(error).removeprefix("structure 0").lstrip(": ")
        formula = structures[chosen[0]].get_chemical_formula()
        text = text.removeprefix(f"({formula}): ")
        raise PotentialError(f"structure {chosen[0]} ({formula}): {text}") from error


def require_finite(what: str, values: Iterable[np.ndarray]) -> None:
    """Refuse results with numbers that are not finite.

    Raises
    ------
    ValueError
        If there is one.
    """
    if not all(np.isfinite(part).all() for part in values):
        raise ValueError(f"the potential's {what} is not all finite numbers (a model that diverged in training?)")
