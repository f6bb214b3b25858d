"""What a label maker is: something that gives energy and forces of one structure at nearby positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from ase import Atoms

from hint_plugins.errors import HintError
from hint_plugins.registries import registries, resolve

Scalar = str | int | float | bool


class EngineError(HintError, RuntimeError):
    """A label engine that cannot be set up, or cannot label a structure; the message says why."""


class Evaluation(NamedTuple):
    """One gradient evaluation.

    Attributes
    ----------
    energy
        eV.
    forces
        (N, 3) in eV/A.
    stress
        (6,) in eV/A^3, in ASE's order (xx, yy, zz, yz, xz, xy) and sign; None where there is none.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None = None


class Surface(Protocol):
    """The potential energy surface of one structure.

    A surface may have ``details``, a dictionary that is added to the label's provenance after the last evaluation.
    """

    def evaluate(self, positions: np.ndarray) -> Evaluation:
        """Energy, forces and, for crystals, stress.

        Parameters
        ----------
        positions
            (N, 3) in A.

        Raises
        ------
        EngineError
            When not converged.
        """
        ...

    def hessian(self) -> np.ndarray | None:
        """Analytic Hessian at the structure's own positions.

        Called after :meth:`evaluate` at these positions.

        Returns
        -------
        numpy.ndarray or None
            (3N, 3N) in eV/A^2, row ``3 i + a`` for coordinate a of atom i; None if the engine has none.
        """
        ...


class LabelEngine(Protocol):
    """Makes surfaces.

    Attributes
    ----------
    step, probe_step
        Default displacements (A) of a coordinate in central differences along one coordinate and along a dense
        direction.
    removes_net_force
        Optional; True for a code that subtracts the net force, so that the sum rule tells nothing about its forces.
    """

    step: float
    probe_step: float

    def provenance(self) -> dict[str, Scalar]:
        """What is needed to make the same label again: ``method``, ``code``, ``version`` and the settings."""
        ...

    def surface(self, atoms: Atoms) -> Surface:
        """The surface of a structure.

        Positions and cell in A, charge and spin as in
        :func:`hint_plugins.structures.charges.charge_and_multiplicity`.
        """
        ...


@dataclass(frozen=True)
class EngineSpec:
    """An engine by name and options, small enough to be sent to a worker.

    Attributes
    ----------
    name
        A registered name (:attr:`hint_plugins.registries.Registries.label_makers`) or ``module:class``.
    options
        Keyword arguments of the engine.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> LabelEngine:
        """Import and construct the engine.

        Raises
        ------
        EngineError
            Unknown name, missing library or wrong option.
        """
        known = registries().label_makers
        target = known.get(self.name, self.name)
        if not target.partition(":")[2]:
            raise EngineError(f"unknown engine {self.name!r}: choose {', '.join(sorted(known))} or module:class")
        try:
            factory: Callable[..., LabelEngine] = resolve(target)
            return factory(**self.options)
        except (ImportError, AttributeError) as error:
            raise EngineError(f"engine {self.name!r} cannot be loaded: {error}") from error
        except (TypeError, ValueError) as error:
            raise EngineError(f"engine {self.name!r} does not accept these options: {error}") from error
