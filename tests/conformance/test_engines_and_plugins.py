"""This package's own engines and plugins pass the suites that it ships."""

import pytest
from ase.build import bulk
from helpers.label_engines import QuarticEngine

from hint_plugins.curvature import engines
from hint_plugins.labelling.ase_calculator import ASEEngine
from hint_plugins.models.alphanet.plugin import AlphaNetPlugin
from hint_plugins.registries import BuiltIn
from hint_plugins.testing.hvp_engine import HvpEngineSuite
from hint_plugins.testing.label_engine import LabelEngineSuite
from hint_plugins.testing.plugin import PluginSuite
from hint_plugins.training.hint import HintPlugin


class TestReverse(HvpEngineSuite):
    engine = staticmethod(engines.reverse)


class TestReplicate(HvpEngineSuite):
    engine = staticmethod(engines.replicate)


class TestVmap(HvpEngineSuite):
    engine = staticmethod(engines.vmap)


class TestFiniteDifference(HvpEngineSuite):
    engine = staticmethod(engines.finite_difference)


class TestOneSided(HvpEngineSuite):
    engine = staticmethod(engines.finite_difference_one_sided)
    tolerance = 1e-4
    gradient_tolerance = 1e-3


class TestQuartic(LabelEngineSuite):
    def make(self):
        return QuarticEngine(analytic=True)


class TestASE(LabelEngineSuite):
    def make(self):
        return ASEEngine(calculator="emt")

    def structure(self):
        crystal = bulk("Cu", cubic=True)
        crystal.rattle(0.05, seed=0)
        return crystal


class TestXTB(LabelEngineSuite):
    def make(self):
        pytest.importorskip("tblite")
        from hint_plugins.labelling.xtb import XTBEngine

        return XTBEngine()


class TestHint(PluginSuite):
    def make(self):
        return HintPlugin()


class TestAlphaNet(PluginSuite):
    def make(self):
        return AlphaNetPlugin()


class TestBuiltIn(PluginSuite):
    def make(self):
        return BuiltIn()


def test_an_engine_that_moves_the_structure_fails():
    """The suite can fail: the fault that once halved the Hessians of crystals."""

    class Moving(QuarticEngine):
        def surface(self, atoms):
            surface = super().surface(atoms)
            evaluate = surface.evaluate

            def moved(positions):
                atoms.positions[:] = positions
                return evaluate(positions)

            surface.evaluate = moved
            return surface

    class Suite(LabelEngineSuite):
        def make(self):
            return Moving()

    with pytest.raises(AssertionError):
        Suite().test_the_structure_stays_as_it_is()


def test_an_engine_with_the_wrong_sign_fails():
    class Suite(HvpEngineSuite):
        engine = staticmethod(lambda view, probes, create_graph=True: -engines.reverse(view, probes, create_graph))

    with pytest.raises(AssertionError):
        Suite().test_products_equal_differences_of_forces()
