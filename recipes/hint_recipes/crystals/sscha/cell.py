"""The cell of a variable-cell SSCHA run: where it starts, and how it moves between populations.

The steps are those of python-sscha's optimiser, whose memory lives in the state of the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from hint_plugins.errors import InputError
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.inputs import relax
from hint_recipes.crystals.sscha.ensemble import require_sscha
from hint_recipes.crystals.sscha.settings import SschaSettings
from hint_recipes.crystals.sscha.state import GPA, State

if TYPE_CHECKING:
    from hint_plugins.potential import Potential

#: Largest strain component of one cell step.
MAX_STRAIN = 0.05
#: Stress (eV/A^3) that counts as none even where the statistical error vanishes.
NO_STRESS = 1e-3 * GPA


def require_stress(potential: Potential, crystal: Atoms) -> None:
    """Refuse before anything is computed a model that gives no stresses.

    Raises
    ------
    InputError
        With the model's own reason, where it has one.
    """
    from hint_plugins.potential import PotentialError

    reason = ""
    try:
        stresses = potential.evaluate([crystal], stress=True).stresses
        known = stresses is not None and np.isfinite(np.asarray(stresses, dtype=float)).all()
    except PotentialError as error:
        known, reason = False, f" ({error})"
    if not known:
        raise InputError(f"the model gives no stresses{reason}: leave out --relax-cell and --stress, or take another")


def static_start(potential: Potential, crystal: Atoms, settings: SschaSettings) -> Atoms:
    """The crystal from which a run starts: relaxed at the target pressure, without vibrations, where the cell is free.

    Parameters
    ----------
    potential
        The model.
    crystal
        Unit cell with its masses.
    settings
        With a fixed cell or volume the crystal is returned as it is; with fixed positions only the cell changes.

    Returns
    -------
    Atoms
        ``crystal`` itself, with a message, where the relaxation fails.
    """
    from hint_plugins.potential import PotentialError

    if not settings.relax_cell or settings.fix_volume:
        return crystal
    try:
        relaxed = relax(potential, crystal, cell=True, pressure=settings.pressure)
    except (InputError, PotentialError):
        print(f"hint: no static minimum found at {settings.pressure:g} GPa: the SSCHA starts from the cell as given")
        return crystal
    return relaxed if settings.relax_positions else _in_cell(crystal, relaxed.cell.array)


def move(state: State) -> None:
    """Bring the auxiliary matrix into the cell that the last population chose, if it chose one."""
    if state.next_cell is not None:
        crystal = _in_cell(state.constants.primitive, np.array(state.next_cell))
        state.constants = ForceConstants(crystal, state.constants.multiples, state.constants.hessian)
        state.next_cell = None


def choose_cell(state: State, stress: np.ndarray, error: np.ndarray, settings: SschaSettings) -> bool:
    """Compare the stress with the target and choose the next population's cell.

    Parameters
    ----------
    state
        Its cell stays as it is (free energy and stress belong to it): the choice is left in ``next_cell``.
    stress, error
        ``(3, 3)``, eV/A^3, positive under compression.
    settings
        Target pressure, bulk modulus for the first step, fixed volume.

    Returns
    -------
    bool
        Whether the stress meets the target within its statistical error; then no cell is chosen.
    """
    target = np.trace(stress) / 3 if settings.fix_volume else settings.pressure * GPA
    excess = stress - target * np.eye(3)
    if (np.abs(excess) <= error + NO_STRESS).all():
        return True
    cell = state.constants.primitive.cell.array.copy()
    optimiser = require_sscha().Optimizer.UC_OPTIMIZER(cell)
    optimiser.alpha = 1 / (3 * settings.bulk_modulus * GPA * abs(np.linalg.det(cell)))
    for name, value in state.cell_optimiser.items():
        setattr(optimiser, name, np.array(value) if isinstance(value, list) else value)
    clear = np.abs(excess) > 5 * error + NO_STRESS
    optimiser.use_line_step = bool(clear.any())  # near the target noise would set the step length
    wanted = cell.copy()
    with np.errstate(all="ignore"):
        optimiser.UpdateCell(wanted, excess, verbose=False)
    if not np.isfinite(wanted).all():
        raise InputError("the next step of the cell is not finite: the stress or the bulk modulus is out of range")
    strain = np.linalg.solve(cell, wanted) - np.eye(3)
    if (largest := np.abs(strain).max()) > MAX_STRAIN:
        strain *= MAX_STRAIN / largest
        optimiser.alpha *= MAX_STRAIN / largest
    wanted = cell @ (np.eye(3) + strain)
    if settings.fix_volume:
        wanted *= np.cbrt(np.linalg.det(cell) / np.linalg.det(wanted))
    state.next_cell = wanted.tolist()
    state.cell_optimiser = {name: _plain(value) for name, value in vars(optimiser).items()}
    return False


def _in_cell(crystal: Atoms, cell: np.ndarray) -> Atoms:
    moved = crystal.copy()
    moved.set_cell(cell, scale_atoms=True)
    return moved


def _plain(value: Any) -> Any:
    """What JSON can hold: lists for arrays, Python's numbers for NumPy's."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
