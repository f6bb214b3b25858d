"""Gibbs energies against known values, an independent implementation, and exact limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength
from ase.thermochemistry import HarmonicThermo, IdealGasThermo
from ase.vibrations import Vibrations
from hypothesis import given, settings
from hypothesis import strategies as st

from hint_plugins.potential import Potential
from hint_recipes.molecules.thermochemistry.free_energy import free_energy, low_mode_entropy_change
from hint_recipes.molecules.thermochemistry.gibbs import gibbs_energies
from hint_recipes.molecules.thermochemistry.reactions import errors_against, reaction_free_energies
from hint_recipes.molecules.thermochemistry.settings import GibbsSettings
from hint_recipes.molecules.thermochemistry.symmetry import is_linear, symmetry_number

NUMBERS = {
    "H2O": 2, "NH3": 3, "CH4": 12, "C6H6": 12, "C2H6": 6, "CO2": 2, "C2H4": 4, "CH3OH": 1, "C2H2": 2, "C60": 60,
    "CH3Cl": 3, "H2O2": 2, "C3H4_D2d": 4, "BF3": 6, "CCl4": 12, "HCN": 1, "H2": 2, "C3H6_D3h": 6, "H": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_symmetry_number(name: str, noise: float) -> None:
    atoms = molecule(name)
    atoms.rattle(noise, rng=np.random.default_rng(1))
    atoms.rotate(37.0, (1, 2, 3))
    assert symmetry_number(atoms) == NUMBERS[name]


def test_symmetry_number_sees_isotopes_and_broken_symmetry() -> None:
    water = molecule("H2O")
    water.set_masses([15.999, 2.014, 1.008])
    assert symmetry_number(water) == 1
    bent = molecule("H2O")
    bent.positions[1, 1] += 0.1
    assert symmetry_number(bent) == 1


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["NH3", "C2H4", "CO2", "CH3Cl", "H2O2"]), st.integers(0, 2**31))
def test_symmetry_number_is_invariant(name: str, seed: int) -> None:
    """Rotation, translation, mirror image and the order of atoms change nothing."""
    random = np.random.default_rng(seed)
    atoms = molecule(name)[random.permutation(len(molecule(name)))]
    rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
    atoms.positions = atoms.positions @ rotation.T + random.normal(size=3)
    assert symmetry_number(atoms) == NUMBERS[name]
    assert is_linear(atoms) == (name == "CO2")


@pytest.fixture(scope="module")
def xtb() -> Potential:
    pytest.importorskip("tblite")
    return Potential.load("tblite:GFN2-xTB")


@pytest.fixture(scope="module")
def minima(xtb: Potential) -> list[dict]:
    structures = [molecule(name) for name in ("H2O", "CH3CH2OH", "CO2")]
    return gibbs_energies(xtb, structures, relax=True)


def test_known_gibbs_energies(minima: list[dict]) -> None:
    """GFN2-xTB, 298.15 K, 1 atm: values computed once with pyscf and with ASE."""
    assert [row["gibbs_correction"] for row in minima] == pytest.approx([0.0680, 1.4247, -0.2396], abs=1e-3)
    assert [row["symmetry_number"] for row in minima] == [2, 1, 2]
    assert [row["linear"] for row in minima] == [False, False, True]
    assert all(row["n_imaginary"] == 0 and row["fmax"] <= 1e-3 for row in minima)


@pytest.mark.parametrize("which", [0, 2])
def test_agrees_with_ase(minima: list[dict], which: int) -> None:
    row = minima[which]
    atoms = Atoms(molecule(("H2O", "CH3CH2OH", "CO2")[which]).numbers, row["positions"])
    thermo = IdealGasThermo(
        np.array(row["frequencies_cm1"]) * units.invcm,
        "linear" if row["linear"] else "nonlinear",
        potentialenergy=row["energy"],
        atoms=atoms,
        symmetrynumber=row["symmetry_number"],
        spin=0,
    )
    assert row["gibbs"] == pytest.approx(thermo.get_gibbs_energy(298.15, 101325.0, verbose=False), abs=2e-5)


def test_masses_of_the_atoms_are_used(xtb: Potential, minima: list[dict]) -> None:
    heavy = Atoms("OH2", minima[0]["positions"])
    heavy.set_masses([15.999, 2.014, 2.014])
    row = free_energy(heavy, 0.0, xtb.hessian(heavy))
    assert row["zpe"] / minima[0]["zpe"] == pytest.approx(0.73, abs=0.01)


def test_electrons_and_atoms() -> None:
    hydrogen = molecule("H")
    row = free_energy(hydrogen, 1.0, np.zeros((3, 3)))
    reference = IdealGasThermo([], "monatomic", potentialenergy=1.0, atoms=hydrogen, symmetrynumber=1, spin=0.5)
    assert row["gibbs"] == pytest.approx(reference.get_gibbs_energy(298.15, 101325.0, verbose=False), abs=1e-6)
    assert row["multiplicity"] == 2


def test_imaginary_modes_are_counted() -> None:
    water = molecule("H2O")
    random = np.random.default_rng(0).normal(size=(9, 9))
    hessian = random @ random.T
    row = free_energy(water, 0.0, hessian - 8 * np.eye(9))
    assert row["n_imaginary"] == sum(w < 0 for w in row["frequencies_cm1"]) > 0


def test_quasi_harmonic_limits() -> None:
    """High modes stay as they are; a low mode's entropy falls, and by Grimme's formula to that of a rotor."""
    atoms = molecule("CH3CH2OH")
    for kind in ("grimme", "truhlar"):
        damping = GibbsSettings(quasi_harmonic=kind, cutoff=100.0)
        assert abs(low_mode_entropy_change(np.array([3000.0]), atoms, damping)) < 1e-9
        assert low_mode_entropy_change(np.array([5.0]), atoms, damping) < -1e-5
    raised = low_mode_entropy_change(np.array([5.0]), atoms, GibbsSettings(quasi_harmonic="truhlar"))
    # harmonic entropy at high temperature is k (1 + ln kT/hv): the difference of 5 and 100 cm^-1 is -k ln 20
    assert raised == pytest.approx(-units.kB * np.log(20.0), rel=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pbc": True}, "periodic"),
        ({"hessian": np.zeros((3, 3))}, "shape"),
        ({"hessian": np.full((9, 9), np.nan)}, "finite"),
        ({"spin": 2}, "spin multiplicity 2"),
    ],
)
def test_bad_input(change: dict, message: str) -> None:
    water = molecule("H2O")
    water.pbc = change.get("pbc", False)
    if "spin" in change:
        water.info["spin"] = change["spin"]
    with pytest.raises((ValueError, RuntimeError), match=message):
        free_energy(water, 0.0, change.get("hessian", np.eye(9)))


def test_adsorbate_on_a_frozen_slab_is_harmonic(tmp_path: Path) -> None:
    """Against ASE's own vibrations of the free atom; its forces and Hessian alone count."""
    slab = fcc111("Cu", (2, 2, 2), vacuum=6.0)
    add_adsorbate(slab, "O", 1.1, "fcc")
    slab.pbc = True
    slab.set_constraint(FixAtoms(range(8)))
    potential = Potential.load("emt")
    before = potential.calls.forces
    settings = GibbsSettings(temperature=400.0)
    row, damped, refused = (
        gibbs_energies(potential, [slab], settings.model_copy(update={"quasi_harmonic": kind}), relax=True)[0]
        for kind in ("none", "truhlar", "grimme")
    )
    assert potential.calls.forces > before
    assert row["approximation"] == "harmonic"
    assert row["fmax"] < 1e-3
    assert len(row["frequencies_cm1"]) == 3
    slab.positions = row["positions"]
    slab.calc = EMT()
    vibrations = Vibrations(slab, indices=[8], name=str(tmp_path / "vib"), delta=0.005)
    vibrations.run()
    energies = vibrations.get_energies()
    np.testing.assert_allclose(row["frequencies_cm1"], energies.real / units.invcm, rtol=2e-3)
    reference = HarmonicThermo(energies.real, potentialenergy=row["energy"])
    assert row["gibbs"] == pytest.approx(reference.get_helmholtz_energy(400.0, verbose=False), abs=2e-4)
    assert row["zpe"] == pytest.approx(reference.get_ZPE_correction(), rel=2e-3)
    assert damped["gibbs"] >= row["gibbs"]
    assert "atoms are frozen: take truhlar or none" in refused["error"]


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="temperature: Input should be greater than 0"):
        GibbsSettings(temperature=-1.0)
    with pytest.raises(ValueError, match="quasi_harmonic"):
        GibbsSettings(quasi_harmonic="magic")  # type: ignore[arg-type]


def test_reactions_and_errors() -> None:
    rows = [
        {"name": "a", "reaction": "r", "role": "reactant", "gibbs": 1.0, "energy": 0.5, "gibbs_correction": 0.5},
        {"name": "b", "reaction": "r", "role": "product", "gibbs": 0.25, "energy": 0.0, "gibbs_correction": 0.25},
        {"name": "c", "reaction": "r", "role": "product", "gibbs": 0.25, "energy": 0.0, "gibbs_correction": 0.25},
        {"name": "d", "reaction": "r", "role": "ts", "gibbs": 2.0, "energy": 1.5, "gibbs_correction": 0.5},
        {"name": "e", "reaction": "broken", "role": "reactant", "error": "no"},
    ]
    assert reaction_free_energies(rows) == [{"reaction": "r", "reaction_gibbs": -0.5, "activation_gibbs": 1.0}]
    reference = [row | {"gibbs": row["gibbs"] + 0.1 * (row["role"] == "ts")} if "gibbs" in row else row for row in rows]
    differences, maes = errors_against(rows, reference)
    assert len(differences) == 4
    assert maes["gibbs_mae_ts"] == pytest.approx(0.1)
    assert maes["gibbs_mae_minima"] == 0.0
    assert maes["activation_gibbs_mae_kcal_mol"] == pytest.approx(2.306, abs=1e-3)


def test_uneven_reactions_get_no_free_energy() -> None:
    """A side that lacks atoms or charge of the reactants is said, not subtracted."""
    row = {"reaction": "r", "gibbs": 1.0, "charge": 0}
    reactants = [row | {"role": "reactant", "formula": "H2"}, row | {"role": "reactant", "formula": "O"}]
    assert reaction_free_energies([*reactants, row | {"role": "product", "formula": "H2O"}])[0]["reaction_gibbs"] == -1
    for wrong in ({"formula": "HO"}, {"formula": "H2O", "charge": 1}):
        (found,) = reaction_free_energies([*reactants, row | {"role": "product"} | wrong])
        assert "reaction_gibbs" not in found
        assert "product structures do not add up" in found["error"]


def test_what_is_no_free_molecule_at_a_stationary_point_is_refused(xtb: Potential) -> None:
    bound, saddle, image = molecule("H2"), molecule("H2"), molecule("H2")
    bound.set_constraint(FixBondLength(0, 1))
    saddle.info["role"] = "saddle"
    image.info["role"] = "path"
    rows = gibbs_energies(xtb, [bound, saddle, image], relax=True)
    for row, text in zip(
        rows, ("FixBondLengths has no Hessian of free atoms", "role 'saddle'", "role 'path'"), strict=True
    ):
        assert text in row["error"]


def test_roles_are_read_in_any_case(xtb: Potential, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = molecule("H2O")
    atoms.info["role"] = " TS"
    monkeypatch.setattr(
        "hint_recipes.molecules.transition_states.stationary.find_saddle", lambda *_, **__: (atoms, False, 0)
    )
    (row,) = gibbs_energies(xtb, [atoms], relax=True)
    assert row["role"] == "ts"
    assert "did not reach" in row["error"]


def test_a_saddle_search_that_ends_elsewhere_is_an_error(xtb: Potential, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its activation free energy would be that of another point."""
    atoms = molecule("H2O")
    atoms.info["role"] = "ts"
    monkeypatch.setattr(
        "hint_recipes.molecules.transition_states.stationary.find_saddle", lambda *_, **__: (atoms, True, 0)
    )
    (row,) = gibbs_energies(xtb, [atoms], relax=True)
    assert "0 imaginary modes instead of one" in row["error"]


def test_one_bad_structure_does_not_stop_the_set(xtb: Potential) -> None:
    good, bad = molecule("H2"), molecule("H2")
    bad.positions[1] = np.nan
    rows = gibbs_energies(xtb, [bad, good])
    assert "error" in rows[0]
    assert rows[1]["symmetry_number"] == 2
