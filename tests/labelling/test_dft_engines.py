"""PySCF and Quantum ESPRESSO engines, on the smallest systems there are."""

import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from helpers.label_engines import QuarticEngine

from hint_plugins.labelling.engine import EngineError, EngineSpec, Evaluation
from hint_plugins.labelling.make import make_label
from hint_plugins.labelling.record import LabelTask
from hint_plugins.labelling.symmetry import symmetric_hessian

HERE = Path(__file__).parent


def bent_water():
    atoms = molecule("H2O")
    atoms.positions += np.random.default_rng(0).normal(0, 0.05, (3, 3))
    return atoms


# --- PySCF ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hartree_fock():
    pytest.importorskip("pyscf")
    return EngineSpec("pyscf", {"method": "hf/sto-3g", "conv_tol": 1e-11}).build()


def test_pyscf_analytic_hessian_is_the_numerical_one(hartree_fock):
    atoms = bent_water()
    analytic = make_label(hartree_fock, atoms, LabelTask("full"))
    numerical = make_label(hartree_fock, atoms, LabelTask("full", analytic=False))
    assert analytic["provenance"]["derivative"] == "analytic"
    assert analytic["provenance"]["gradients"] == 1
    np.testing.assert_allclose(analytic["hessian"], numerical["hessian"], atol=5e-3)
    assert np.abs(analytic["hessian"]).max() > 30


def test_pyscf_forces_are_the_gradient_of_the_energy(hartree_fock):
    atoms = bent_water()
    surface = hartree_fock.surface(atoms)
    forces = surface.evaluate(atoms.positions).forces
    direction = np.random.default_rng(1).normal(size=(3, 3))
    coarse, fine = (
        -np.subtract(*(surface.evaluate(atoms.positions + s * h * direction).energy for s in (1, -1))) / (2 * h)
        for h in (2e-3, 1e-3)
    )
    assert (4 * fine - coarse) / 3 == pytest.approx((forces * direction).sum(), rel=1e-5)


def test_pyscf_default_level_and_open_shell():
    pytest.importorskip("pyscf")
    engine = EngineSpec("pyscf").build()
    assert engine.provenance()["method"] == "wb97x/6-31g*"
    record = make_label(engine, molecule("H2"), LabelTask("projections", num_probes=2))
    assert record["energy"] == pytest.approx(-31.86, abs=0.2)
    radical = EngineSpec("pyscf", {"method": "hf/sto-3g"}).build()
    assert make_label(radical, Atoms("H"), LabelTask("forces"))["energy"] == pytest.approx(-12.696, abs=1e-2)


def test_pyscf_density_fitting_is_close_and_recorded():
    pytest.importorskip("pyscf")
    atoms = bent_water()
    records = [
        make_label(EngineSpec("pyscf", {"method": "hf/6-31g", "density_fit": d}).build(), atoms, LabelTask("forces"))
        for d in (False, True)
    ]
    assert records[1]["provenance"]["density_fit"] is True
    assert records[0]["energy"] != records[1]["energy"]
    np.testing.assert_allclose(records[0]["forces"], records[1]["forces"], atol=0.02)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"method": "nonsense/6-31g"}, "does not know the functional"),
        ({"method": "wb97x"}, "FUNCTIONAL/BASIS"),
        ({"gpu": "maybe"}, "auto, yes or no"),
    ],
)
def test_wrong_pyscf_options(options, reason):
    pytest.importorskip("pyscf")
    with pytest.raises(EngineError, match=reason):
        EngineSpec("pyscf", options).build()


def test_pyscf_failures_are_named(hartree_fock):
    with pytest.raises(EngineError, match="periodic"):
        make_label(hartree_fock, bulk("Cu"), LabelTask("forces"))
    with pytest.raises(EngineError, match="basis 'no-such-basis'"):
        make_label(EngineSpec("pyscf", {"method": "hf/no-such-basis"}).build(), molecule("H2"), LabelTask())
    impatient = EngineSpec("pyscf", {"method": "hf/sto-3g", "max_cycle": 1}).build()
    with pytest.raises(EngineError, match="did not converge in 1 cycles"):
        make_label(impatient, bent_water(), LabelTask("forces"))


# --- symmetry ---------------------------------------------------------------------------------------------


def test_symmetric_hessian_is_the_whole_one_for_less():
    pytest.importorskip("phonopy")
    from ase.calculators.emt import EMT

    atoms = bulk("Cu", cubic=True).repeat(2)
    calls = 0

    def forces(positions):
        nonlocal calls
        calls += 1
        moved = atoms.copy()
        moved.positions = positions
        moved.calc = EMT()
        return moved.get_forces()

    found = symmetric_hessian(forces, atoms, 0.005)
    assert calls == 2
    record = make_label(EngineSpec("ase", {"calculator": "emt"}).build(), atoms, LabelTask("full", step=0.005))
    whole = np.reshape(record["hessian"], found.shape)
    np.testing.assert_allclose(found, whole, atol=1e-3 * np.abs(whole).max())
    task = LabelTask("full", step=0.005, symmetry=True)
    record = make_label(EngineSpec("ase", {"calculator": "emt"}).build(), atoms, task)
    assert record["provenance"]["gradients"] == 5  # undisplaced, displaced by symmetry, and a pair without symmetry
    assert "asymmetry" not in record["provenance"]
    assert record["provenance"]["noise"] < 1e-3 * np.abs(whole).max()


class NoisyEngine:
    """A spring lattice whose forces carry an error of fixed size, without net force, as a loose self-consistency."""

    step = probe_step = 0.01
    removes_net_force = True

    def __init__(self, error):
        self.error, self.rng = error, np.random.default_rng(0)

    def provenance(self):
        return {"method": "springs", "code": "tests", "version": "1"}

    def surface(self, atoms):
        self.origin = atoms.positions.copy()
        return self

    def evaluate(self, positions):
        moved = positions - self.origin
        forces = -5.0 * (moved - moved.mean(axis=0)) + self.rng.normal(0, self.error, moved.shape)
        return Evaluation(0.0, forces - forces.mean(axis=0))

    def hessian(self):
        return None


@pytest.mark.parametrize("error", [0.0, 1e-3])
def test_noise_of_the_forces_is_seen_where_symmetry_and_net_force_hide_it(error):
    """Forces that are off by 1 meV/A at displacements of 0.01 A leave a Hessian that is off by 0.1 eV/A^2."""
    pytest.importorskip("phonopy")
    atoms = bulk("Cu", cubic=True)
    provenance = make_label(NoisyEngine(error), atoms, LabelTask("full", symmetry=True))["provenance"]
    assert "sum_rule" not in provenance
    assert "asymmetry" not in provenance
    assert (provenance["noise"] > 0.01) == (error > 0)
    provenance = make_label(NoisyEngine(error), atoms, LabelTask("full"))["provenance"]
    assert (provenance["asymmetry"] > 0.01) == (error > 0)
    one = make_label(NoisyEngine(error), atoms, LabelTask("projections", num_probes=1))["provenance"]
    assert "asymmetry" not in one  # of one direction it is zero whatever the forces are


def test_symmetry_is_refused_where_it_does_not_belong():
    with pytest.raises(EngineError, match="for crystals"):
        make_label(QuarticEngine(), molecule("H2O"), LabelTask("full", symmetry=True))
    with pytest.raises(ValueError, match="belong to kind full"):
        LabelTask("projections", symmetry=True)


# --- Quantum ESPRESSO -------------------------------------------------------------------------------------

TEMPLATE = """&control
  calculation = 'relax', pseudo_dir = 'pseudo'
/
&system
  ibrav = 2, celldm(1) = 7.7, nat = 2, ntyp = 1, ecutwfc = 12, occupations = 'smearing', degauss = 0.02
/
&electrons
  conv_thr = 1.0d-8
/
ATOMIC_SPECIES
 H 1.008 H.upf
ATOMIC_POSITIONS crystal
 H 0 0 0
 H 0.5 0.5 0.5
K_POINTS automatic
 2 2 2 1 1 1
"""


@pytest.fixture
def template(tmp_path):
    (tmp_path / "pseudo").mkdir()
    (tmp_path / "pseudo" / "H.upf").write_text("a pseudopotential")
    path = tmp_path / "scf.in"
    path.write_text(TEMPLATE)
    return path


def fake_pw(tmp_path, output, keep=None):
    """A program that answers like pw.x: prints a stored output, whatever the input."""
    program = tmp_path / "pw-fake"
    copy = f"cp espresso.pwi {keep}\n" if keep else ""
    program.write_text(f"#!/bin/sh\n{copy}cat {output}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


def box():
    return Atoms("H2", [[0, 0, 0], [0, 0, 0.8]], cell=[4, 4, 4], pbc=True)


def test_espresso_writes_and_reads(tmp_path, template):
    written = tmp_path / "written.pwi"
    command = fake_pw(tmp_path, HERE / "pw_h2.out", keep=written)
    engine = EngineSpec("espresso", {"template": str(template), "command": command}).build()
    record = make_label(engine, box(), LabelTask("forces"))
    text = written.read_text().lower()
    assert "ibrav=0" in text.replace(" ", "")
    assert "celldm" not in text
    assert "'scf'" in text
    assert "2 2 2  1 1 1" in text
    assert "ecutwfc          = 12" in text
    from ase.io import read

    stored = read(HERE / "pw_h2.out", format="espresso-out")
    assert record["energy"] == stored.get_potential_energy()
    np.testing.assert_array_equal(record["forces"], stored.get_forces())
    np.testing.assert_array_equal(record["stress"], stored.get_stress())
    provenance = record["provenance"]
    assert provenance["version"].startswith("6.7")
    assert provenance["ecutwfc"] == 12
    assert provenance["pseudopotentials"] == "H.upf"
    (tmp_path / "pseudo" / "H.upf").write_text("another")
    assert engine.provenance()["pseudopotentials_hash"] != provenance["pseudopotentials_hash"]


def test_surfaces_leave_the_structure_as_it_is(tmp_path, template):
    """Positions are those of the call, not of the call before it: the caller's structure does not move along."""
    espresso = {"template": str(template), "command": fake_pw(tmp_path, HERE / "pw_h2.out")}
    for engine in (EngineSpec("espresso", espresso), EngineSpec("ase", {"calculator": "emt"})):
        atoms = box()
        surface = engine.build().surface(atoms)
        surface.evaluate(atoms.positions + 0.01)
        assert (atoms.positions == box().positions).all()


def test_espresso_failures_are_named(tmp_path, template):
    (tmp_path / "bad.out").write_text(
        "     Program PWSCF v.6.7MaX starts\n     convergence NOT achieved after 100 iterations: stopping\n"
    )
    engine = EngineSpec(
        "espresso", {"template": str(template), "command": fake_pw(tmp_path, tmp_path / "bad.out")}
    ).build()
    with pytest.raises(EngineError, match=r"pw\.x did not converge"):
        make_label(engine, box(), LabelTask("forces"))
    (tmp_path / "bad.out").write_text("     Error in routine readpp (1):\n     file H.upf not readable\n")
    with pytest.raises(EngineError, match=r"pw.x: Error in routine readpp \(1\): file H.upf not readable"):
        make_label(engine, box(), LabelTask("forces"))
    program = tmp_path / "pw-fake"
    program.write_text("#!/bin/sh\necho Program PWSCF\necho no licence for this machine >&2\nexit 9\n")
    with pytest.raises(EngineError, match=r"pw\.x ended with status 9: no licence for this machine$"):
        make_label(engine, box(), LabelTask("forces"))
    with pytest.raises(EngineError, match="no pseudopotential for He"):
        make_label(engine, Atoms("He", cell=[4, 4, 4], pbc=True), LabelTask("forces"))
    with pytest.raises(EngineError, match="needs a cell"):
        make_label(engine, molecule("H2"), LabelTask("forces"))


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        (("H.upf", "He.upf"), {}, "no pseudopotential 'He.upf'"),
        (("automatic", "tpiba"), {}, "must be automatic or gamma"),
        (("ATOMIC_SPECIES", "SPECIES"), {}, "no ATOMIC_SPECIES"),
        (("", ""), {"command": "no-such-program"}, "not installed"),
        (("", ""), {"template": "/nowhere.in"}, "no such pw.x input"),
    ],
)
def test_wrong_espresso_options(tmp_path, template, change, options, reason):
    template.write_text(TEMPLATE.replace(*change))
    given = {"template": str(template), "command": fake_pw(tmp_path, HERE / "pw_h2.out"), **options}
    with pytest.raises(EngineError, match=reason):
        EngineSpec("espresso", given).build()


def test_pw_labels_say_how_well_their_forces_converged(tmp_path, template):
    """pw.x prints an SCF correction of 7e-6 Ry/bohr for this run: 1.8e-4 eV/A."""
    engine = EngineSpec(
        "espresso", {"template": str(template), "command": fake_pw(tmp_path, HERE / "pw_h2.out")}
    ).build()
    provenance = make_label(engine, box(), LabelTask("columns", num_probes=2))["provenance"]
    assert provenance["scf_force_correction_eV_per_A"] == pytest.approx(7e-6 * 13.605693 / 0.529177, rel=1e-4)
    assert provenance["conv_thr_Ry"] == 1e-8
    assert provenance["charge"] == 0
    assert "sum_rule" not in provenance


# --- periodic in some directions only ---------------------------------------------------------------------


def layer(pbc):
    """Water molecules on a square lattice; the third cell vector is a placeholder."""
    positions = [[0, 0, 0.119262], [0, 0.763239, -0.477047], [0, -0.763239, -0.477047]]
    return Atoms("OH2", positions, cell=[8, 8, 2], pbc=pbc)


@pytest.mark.parametrize("pbc", [(True, True, False), (False, True, False)])
def test_partly_periodic_structures_are_refused_or_get_their_vacuum(pbc, tmp_path, template, caplog):
    """GFN2-xTB by tblite with 40 A of vacuum: -137.9454 eV, repeated every 2 A -132.89 eV."""
    pytest.importorskip("tblite")
    from hint_plugins.potential import Potential

    flags = " ".join("FT"[f] for f in pbc)
    with pytest.raises(EngineError, match=f"pbc is '{flags}', and tblite repeats it in all three"):
        make_label(EngineSpec("xtb").build(), layer(pbc), LabelTask("forces"))
    with pytest.raises(ValueError, match="in some directions only, and tblite"):
        Potential.load("tblite:GFN2-xTB").evaluate([layer(pbc)])
    engine = EngineSpec("xtb", {"vacuum": 39.403691}).build()
    record = make_label(engine, layer(pbc), LabelTask("forces"))
    assert record["stress"] is None
    assert record["provenance"]["vacuum_A"] == 39.403691
    assert "of vacuum: " in caplog.text
    if pbc[0]:
        wide = layer(True)
        wide.cell[2, 2] = 40
        expected = make_label(EngineSpec("xtb").build(), wide, LabelTask("forces"))["energy"]
        assert record["energy"] == pytest.approx(expected, abs=1e-3)
        assert expected == pytest.approx(-137.9454, abs=1e-3)


PSEUDO = Path(os.environ.get("ESPRESSO_PSEUDO", "/usr/share/espresso/pseudo"))


HYDROGEN = sorted(PSEUDO.glob("H[._]*.[uU][pP][fF]"))


@pytest.mark.skipif(not (shutil.which("pw.x") and HYDROGEN), reason="needs pw.x and a pseudopotential of H")
def test_real_pw(template):
    template.write_text(TEMPLATE.replace("H.upf", HYDROGEN[0].name).replace("2 2 2 1 1 1", "1 1 1 0 0 0"))
    engine = EngineSpec("espresso", {"template": str(template), "pseudo_dir": str(PSEUDO)}).build()
    atoms = box()
    record = make_label(engine, atoms, LabelTask("columns", num_probes=1, seed=2))
    assert record["provenance"]["gradients"] == 3
    surface = engine.surface(atoms)
    direction = np.array([[0, 0, -1.0], [0, 0, 1.0]])
    coarse, fine = (
        -np.subtract(*(surface.evaluate(atoms.positions + s * h * direction).energy for s in (1, -1))) / (2 * h)
        for h in (0.02, 0.01)
    )
    slope = (np.array(record["forces"]) * direction).sum()
    # 12 Ry leave some 0.01 eV/A of force error
    assert (4 * fine - coarse) / 3 == pytest.approx(slope, abs=0.03)
    assert abs(slope) > 0.3
