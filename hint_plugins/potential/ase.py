"""ASE calculator on any potential, with Hessians."""

from __future__ import annotations

from typing import Any

from hint_plugins.potential.calculator import PotentialCalculator
from hint_plugins.potential.potential import Potential


class HintCalculator(PotentialCalculator):
    """Energy, forces, stress and Hessian of any potential for ASE.

    Parameters
    ----------
    potential
        The potential, or what :meth:`Potential.load` understands.

    Examples
    --------
    >>> atoms.calc = HintCalculator("tblite:GFN2-xTB")
    >>> atoms.calc.get_hessian(atoms).shape
    (9, 9)
    """

    def __init__(self, potential: Any, **kwargs: Any) -> None:
        super().__init__(Potential.load(potential), **kwargs)
