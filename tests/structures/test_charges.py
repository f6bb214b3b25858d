"""Charge and spin multiplicity under every name that files use, and what is done with them."""

import logging

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.io import read, write
from helpers.label_engines import QuarticEngine

from hint_plugins.labelling.ase_calculator import ASESurface
from hint_plugins.labelling.engine import EngineError, EngineSpec
from hint_plugins.labelling.make import make_label
from hint_plugins.labelling.record import LabelTask, bare, structure_key
from hint_plugins.potential import Potential
from hint_plugins.potential.ase import HintCalculator
from hint_plugins.potential.backends.calculators import CalculatorBackend
from hint_plugins.structures import charges
from hint_plugins.structures.charges import charge_and_multiplicity, is_charged_or_open_shell, stated


def hydroxide(**info):
    return Atoms("OH", [[0, 0, 0.1], [0, 0, 1.07]], info=info)


def columns(charges=None, magmoms=None):
    atoms = hydroxide()
    if charges is not None:
        atoms.set_initial_charges(charges)
    if magmoms is not None:
        atoms.set_initial_magnetic_moments(magmoms)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (hydroxide(charge=-1), (-1, 1)),
        (hydroxide(charge=-0.9999999), (-1, 1)),
        (hydroxide(charge="-1"), (-1, 1)),
        (hydroxide(charge=np.array([-1.0])), (-1, 1)),
        (hydroxide(total_charge=-1, total_spin=1), (-1, 1)),
        (hydroxide(total_charge=np.float32(-1), multiplicity=3), (-1, 3)),
        (hydroxide(Charge=-1, spin=0), (-1, 1)),
        (hydroxide(charge=-1, total_charge=-1.0000001), (-1, 1)),
        (hydroxide(charge=None), (0, 2)),
        (columns(charges=[-0.8, -0.2000001]), (-1, 1)),
        (columns(charges=[0, 0]), (0, 2)),
        (columns(charges=[-1, 0], magmoms=[1.0, 1.0]), (-1, 3)),
        (columns(charges=[-1, 0], magmoms=[-1.0, -1.0]), (-1, 3)),
        (columns(charges=[-1, 0], magmoms=[1.0, -1.0]), (-1, 1)),
        (columns(magmoms=[0.9999999, 0]), (0, 2)),
    ],
)
def test_every_form_is_read(atoms, expected):
    assert charge_and_multiplicity(atoms) == expected


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (hydroxide(charge=-0.5), r"'charge' is -0.5, .* whole numbers"),
        (hydroxide(charge="minus one"), "'charge' is 'minus one'"),
        (hydroxide(total_charge=np.nan), "'total_charge' is nan"),
        (hydroxide(charge=True), "'charge' is True"),
        (hydroxide(spin=0.5), "'spin' is 0.5"),
        (
            hydroxide(charge=-1, total_charge=1),
            "contradicts itself about its charge: charge says -1, total_charge says 1",
        ),
        (hydroxide(spin=2, multiplicity=4), r"multiplicity \(2S \+ 1\): spin says 2, multiplicity says 4"),
        (hydroxide(charge=-1, total_spin=2), r"do not fit 10 electrons \(read from charge, total_spin\)"),
        (columns(charges=[-0.3, -0.3]), "the sum of initial_charges is -0.6"),
        (columns(magmoms=[[0, 0, 1], [0, 0, 0]]), "vectors"),
        (columns(magmoms=[0.5, 0]), "the sum of initial_magmoms is 0.5"),
    ],
)
def test_what_cannot_be_meant_is_refused(atoms, reason):
    with pytest.raises(EngineError, match=reason):
        charge_and_multiplicity(atoms)


def test_a_column_and_a_key_that_differ_are_refused():
    atoms = columns(charges=[-1, 0])
    atoms.info["charge"] = 1
    with pytest.raises(EngineError, match="the sum of initial_charges says -1"):
        charge_and_multiplicity(atoms)


def test_start_moments_of_a_crystal_are_no_multiplicity():
    iron = bulk("Fe", cubic=True)
    iron.set_initial_magnetic_moments([2.3, 2.3])
    assert charge_and_multiplicity(iron) == (0, 1)
    assert stated(iron) == {}
    iron.info["spin"] = 5
    assert charge_and_multiplicity(iron) == (0, 5)


def test_an_odd_molecule_without_spin_is_named_once(caplog):
    charges._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            charge_and_multiplicity(hydroxide())
        charge_and_multiplicity(bulk("Cu"))
        charge_and_multiplicity(hydroxide(spin=2))
    assert [r.getMessage().split(":")[0] for r in caplog.records] == [
        "HO with charge 0 has an odd number of electrons and states no spin"
    ]


def test_what_a_structure_states_survives_in_canonical_form():
    assert stated(hydroxide(total_charge=-0.9999999, total_spin=1)) == {"charge": -1, "spin": 1}
    assert stated(columns(charges=[-1, 0])) == {"charge": -1}
    assert stated(hydroxide()) == {}


def test_key_and_worker_copy_know_every_form():
    forms = [hydroxide(charge=-1), hydroxide(total_charge=-0.9999999), columns(charges=[-1, 0]), hydroxide(charge="-1")]
    keys = {structure_key(atoms, "full") for atoms in forms}
    assert len(keys) == 1
    assert structure_key(hydroxide(), "full") not in keys
    assert structure_key(columns(magmoms=[2, -1]), "full") != structure_key(hydroxide(spin=2), "full")
    for atoms in forms:
        assert charge_and_multiplicity(bare(atoms)) == (-1, 1)
    wrong = hydroxide(charge=-1, total_charge=1)
    assert structure_key(wrong, "full") not in keys
    with pytest.raises(EngineError, match="contradicts itself"):
        make_label(QuarticEngine(), bare(wrong), LabelTask("forces"))


def test_the_label_records_charge_and_multiplicity():
    record = make_label(QuarticEngine(), hydroxide(total_charge=-1), LabelTask("forces"))
    assert (record["provenance"]["charge"], record["provenance"]["multiplicity"]) == (-1, 1)
    crystal = bulk("Cu", cubic=True)
    assert "multiplicity" not in make_label(QuarticEngine(), crystal, LabelTask("forces"))["provenance"]


@pytest.mark.parametrize("form", ["key", "float", "column"])
def test_xtb_energies_of_ions(form, tmp_path):
    """GFN2-xTB of tblite, called directly with charge -1: -127.39315 eV (the neutral radical is at -120.50)."""
    pytest.importorskip("tblite")
    atoms = {
        "key": hydroxide(total_charge=-1),
        "float": hydroxide(charge=-0.9999999),
        "column": columns(charges=[-1.0, 0.0]),
    }[form]
    write(tmp_path / "in.xyz", atoms, format="extxyz")
    atoms = read(tmp_path / "in.xyz")
    record = make_label(EngineSpec("xtb").build(), atoms, LabelTask("forces"))
    assert record["energy"] == pytest.approx(-127.39314, abs=1e-4)
    assert Potential.load("tblite:GFN2-xTB").evaluate([atoms]).energies[0] == pytest.approx(-127.39314, abs=1e-4)


class Counting(Calculator):
    """Energy = sum of the initial charges + 100 times the sum of the initial moments + info charge and spin."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=None, system_changes=()):
        super().calculate(atoms, properties, system_changes)
        energy = atoms.get_initial_charges().sum() + 100 * atoms.get_initial_magnetic_moments().sum()
        energy += 1e4 * atoms.info.get("charge", 0) + 1e6 * atoms.info.get("spin", 0)
        self.results = {"energy": energy, "forces": np.zeros((len(atoms), 3))}


@pytest.mark.parametrize("atoms", [hydroxide(total_charge=-1, multiplicity=3), columns([-1, 0], [1, 1])])
def test_calculators_are_told_in_every_form(atoms):
    expected = -1 + 200 - 1e4 + 3e6
    assert ASESurface(Counting(), atoms).evaluate(atoms.positions).energy == pytest.approx(expected)
    backend = CalculatorBackend(Counting, "counting")
    assert backend.evaluate([atoms]).energies[0] == pytest.approx(expected)
    assert backend.evaluate([molecule("H2O")]).energies[0] == 0.0


def test_the_ase_calculator_notices_a_change_of_any_form():
    atoms = hydroxide(total_charge=-1, total_spin=1)
    atoms.calc = HintCalculator(Potential(CalculatorBackend(Counting, "counting")))
    first = atoms.get_potential_energy()
    atoms.info["total_spin"] = 3
    assert atoms.get_potential_energy() != first


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (hydroxide(charge=-1), True),
        (hydroxide(), True),
        (molecule("H2O"), False),
        (Atoms("O2", [[0, 0, 0], [0, 0, 1.2]], info={"spin": 3}), True),
        (bulk("Cu"), False),
        (hydroxide(charge="?"), True),
    ],
)
def test_a_model_blind_to_charge_says_so_once(atoms, expected, caplog):
    assert is_charged_or_open_shell(atoms) is expected
    potential = Potential.load("lj")
    with caplog.at_level(logging.WARNING):
        potential.evaluate([atoms, atoms])
        potential.evaluate([atoms])
    assert sum("reads positions and elements only" in r.getMessage() for r in caplog.records) == int(expected)
