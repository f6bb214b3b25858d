"""What every engine of ``hint label`` must do. Subclass :class:`LabelEngineSuite` and pytest runs it on your engine.

    from hint_plugins.testing.label_engine import LabelEngineSuite

    class TestMine(LabelEngineSuite):
        def make(self):
            return MyEngine()

Derivatives are compared with central differences; the tolerances are those of a code that converges its energies well
and may be widened for one that does not.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import molecule

from hint_plugins.labelling.engine import LabelEngine


class LabelEngineSuite:
    """Tests of one engine; see the module's docstring."""

    #: Largest difference of forces from differences of the energy, eV/A.
    force_tolerance = 1e-3
    #: Largest difference of an analytic Hessian from differences of forces, eV/A^2.
    hessian_tolerance = 1e-2
    #: Largest change of forces when the same positions are evaluated again, eV/A.
    repeat_tolerance = 1e-4
    #: Displacement of the differences, A.
    step = 1e-3

    def make(self) -> LabelEngine:
        """The engine."""
        raise NotImplementedError

    def structure(self) -> Atoms:
        """A structure that the engine can label, of a few atoms and away from its minimum."""
        atoms = molecule("H2O")
        atoms.positions += 0.05 * np.random.default_rng(0).standard_normal((len(atoms), 3))
        return atoms

    def test_forces_are_minus_the_gradient(self):
        atoms = self.structure()
        surface = self.make().surface(atoms.copy())
        start = atoms.positions
        found = surface.evaluate(start.copy())
        assert np.shape(found.forces) == (len(atoms), 3)
        direction = np.random.default_rng(1).standard_normal((len(atoms), 3))
        direction /= np.abs(direction).max()
        ahead, behind = (surface.evaluate(start + sign * self.step * direction).energy for sign in (1, -1))
        slope = (ahead - behind) / (2 * self.step)
        assert abs(slope + np.sum(found.forces * direction)) < self.force_tolerance * np.abs(direction).sum()

    def test_the_structure_stays_as_it_is(self):
        """Differences are counted from the structure: an engine that moves it makes them wrong."""
        atoms = self.structure()
        before = atoms.copy()
        surface = self.make().surface(atoms)
        given = before.positions + 0.02
        kept = given.copy()
        surface.evaluate(given)
        np.testing.assert_array_equal(given, kept)
        np.testing.assert_array_equal(atoms.positions, before.positions)
        np.testing.assert_array_equal(atoms.cell.array, before.cell.array)

    def test_results_do_not_depend_on_what_was_evaluated_before(self):
        atoms = self.structure()
        surface = self.make().surface(atoms.copy())
        first = np.array(surface.evaluate(atoms.positions.copy()).forces)
        surface.evaluate(atoms.positions + 0.03 * np.eye(len(atoms), 3))
        again = np.array(surface.evaluate(atoms.positions.copy()).forces)
        assert np.abs(first - again).max() < self.repeat_tolerance

    def test_the_analytic_hessian_is_that_of_the_forces(self):
        """Row 3 i + a is minus the derivative of all forces by coordinate a of atom i."""
        atoms = self.structure()
        surface = self.make().surface(atoms.copy())
        start = atoms.positions
        surface.evaluate(start.copy())
        found = surface.hessian()
        if found is None:
            return
        assert np.shape(found) == (3 * len(atoms), 3 * len(atoms))
        for row in range(3 * len(atoms)):
            shift = np.zeros(3 * len(atoms))
            shift[row] = self.step
            behind, ahead = (surface.evaluate(start + sign * shift.reshape(-1, 3)).forces for sign in (-1, 1))
            expected = (np.array(behind) - np.array(ahead)).reshape(-1) / (2 * self.step)
            assert np.abs(found[row] - expected).max() < self.hessian_tolerance, f"row {row}"

    def test_labels_say_who_made_them(self):
        provenance = self.make().provenance()
        assert {"method", "code", "version"} <= provenance.keys()
        assert all(isinstance(value, str | int | float | bool) for value in provenance.values())

    def test_steps_are_displacements(self):
        engine = self.make()
        assert 0 < engine.step < 0.5
        assert 0 < engine.probe_step < 0.5
