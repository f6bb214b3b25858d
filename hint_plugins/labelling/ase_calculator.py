"""Label engine: any ASE calculator."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError

from hint_plugins.datasets.record import square_hessian
from hint_plugins.labelling.engine import EngineError, Evaluation, Scalar
from hint_plugins.labelling.periodicity import is_partial
from hint_plugins.structures.charges import tell_calculator

logger = logging.getLogger(__name__)


class ASEEngine:
    """Energies, forces and stress of an ASE calculator; its Hessian where it has ``get_hessian``.

    Parameters
    ----------
    calculator
        A name that :func:`ase.calculators.calculator.get_calculator_class` knows (``emt``), or
        ``module:factory``, called with ``options`` to give a calculator.
    step
        Displacement (A) of finite differences along one coordinate; 0.3 of it a coordinate along a dense direction.
    **options
        Keyword arguments of the calculator.
    """

    def __init__(self, calculator: str, step: float = 0.005, **options: Any) -> None:
        self.calculator = calculator
        self.options = options
        self.step = step
        self.probe_step = 0.3 * step
        self.factory = _factory(calculator)

    def provenance(self) -> dict[str, Scalar]:
        package = getattr(self.factory, "__module__", "").partition(".")[0]
        settings = {k: v if isinstance(v, str | int | float | bool) else repr(v) for k, v in self.options.items()}
        return {"method": self.calculator, "code": package, "version": _version(package), **settings}

    def surface(self, atoms: Atoms) -> ASESurface:
        return ASESurface(self.factory(**self.options), atoms)


class ASESurface:
    """One structure with one calculator; units and shapes are those of :class:`hint_plugins.labelling.engine.Surface`.

    ``get_hessian(atoms)`` of a calculator may give (3N, 3N), (3N, N, 3), (N, 3, N, 3) or (N, N, 3, 3), in eV/A^2.
    """

    def __init__(self, calculator: Calculator, atoms: Atoms) -> None:
        self.atoms = atoms.copy()
        tell_calculator(self.atoms)
        if is_partial(atoms):
            logger.warning(
                "%s is periodic in some directions only, which some calculators repeat in all three; make sure that %s "
                "does not",
                atoms.symbols,
                type(calculator).__name__,
            )
        self.atoms.calc = calculator
        self.origin = atoms.positions.copy()

    def evaluate(self, positions: np.ndarray) -> Evaluation:
        self.atoms.positions = positions
        try:
            energy = self.atoms.get_potential_energy()
            forces = self.atoms.get_forces(apply_constraint=False)
        except Exception as error:  # calculators raise what they like
            raise EngineError(f"{type(error).__name__}: {error}") from error
        stress = None
        if self.atoms.pbc.all():
            try:
                stress = self.atoms.get_stress(apply_constraint=False)
            except (PropertyNotImplementedError, NotImplementedError):
                stress = None
        return Evaluation(float(energy), np.array(forces), stress)

    def hessian(self) -> np.ndarray | None:
        get_hessian = getattr(self.atoms.calc, "get_hessian", None)
        if get_hessian is None:
            return None
        self.atoms.positions = self.origin
        dim = 3 * len(self.atoms)
        values = np.asarray(get_hessian(self.atoms))
        if values.size != dim * dim:
            raise EngineError(f"get_hessian gave shape {values.shape} for {len(self.atoms)} atoms")
        return square_hessian(values, len(self.atoms))


def _factory(spec: str) -> Callable[..., Calculator]:
    module, _, attribute = spec.partition(":")
    if attribute:
        return getattr(importlib.import_module(module), attribute)
    from ase.calculators.calculator import get_calculator_class, names

    if spec not in names:
        raise ValueError(f"unknown ASE calculator {spec!r}: give a name ASE knows or module:factory")
    return get_calculator_class(spec)


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except (PackageNotFoundError, ValueError):
        return "unknown"
