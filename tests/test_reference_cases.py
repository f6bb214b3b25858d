"""Files from the field whose right values are known from elsewhere: own formulas, ASE, tblite or phonopy directly."""

import json
import lzma
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.data import atomic_masses, atomic_numbers
from ase.io import read, write
from ase.units import Bohr, Rydberg, kcal, mol
from typer.testing import CliRunner

from hint_plugins.cli.main import app
from hint_plugins.storage.store import read_structures

XTB = "tblite:GFN2-xTB"
MESH = (2, 2, 2)
CM1 = 521.4709  # (eV/A^2/u)^(1/2) in cm^-1


def run(*words, status=0) -> str:
    """Output of a ``hint`` command; a refusal comes as its sentence."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        assert type(result.exception).__name__ == "InputError", result.exception
        assert status == 2, result.exception
        return str(result.exception)
    assert result.exit_code == status, result.output
    return result.output


def summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


def xtb_energy(atoms: Atoms, charge: int = 0) -> float:
    from tblite.ase import TBLite

    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    bare.calc = TBLite(method="GFN2-xTB", charge=charge, verbosity=0)
    return bare.get_potential_energy()


# charge and spin


def ammonium() -> Atoms:
    corners = np.array([[0, 0, 0], [1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]])
    return Atoms("NH4", 0.59 * corners)


def hydroxide() -> Atoms:
    return Atoms("OH", [[0, 0, 0.0], [0, 0, 0.96]])


def charges(values):
    def put(atoms: Atoms) -> None:
        atoms.set_initial_charges(values)

    return put


@pytest.mark.parametrize(
    ("atoms", "charge", "put"),
    [
        (ammonium(), 1, {"charge": 1}),
        (ammonium(), 1, {"total_charge": 1, "total_spin": 1}),
        (ammonium(), 1, {"total_charge": 1.0, "multiplicity": 1}),
        (ammonium(), 1, charges([0.2] * 5)),
        (hydroxide(), -1, {"charge": -0.9999999}),
        (hydroxide(), -1, {"total_charge": -1}),
        (hydroxide(), -1, charges([-1.0, 0.0])),
    ],
)
def test_charge_under_every_name(tmp_path, atoms, charge, put):
    atoms = atoms.copy()
    put(atoms) if callable(put) else atoms.info.update(put)
    write(tmp_path / "ion.xyz", atoms, format="extxyz")
    run("label", tmp_path / "ion.xyz", tmp_path / "out.xyz", "--kind", "forces", "--workers", 1)
    labelled = read(tmp_path / "out.xyz")
    assert labelled.info["REF_energy"] == pytest.approx(xtb_energy(atoms, charge), abs=1e-4)


def test_charges_that_contradict_each_other_are_refused(tmp_path):
    atoms = ammonium()
    atoms.info |= {"charge": 1, "total_charge": 0}
    write(tmp_path / "ion.xyz", atoms, format="extxyz")
    result = CliRunner().invoke(app, ["label", str(tmp_path / "ion.xyz"), str(tmp_path / "out.xyz"), "--workers", "1"])
    assert result.exit_code != 0
    text = result.output + str(result.exception)
    assert "total_charge" in text
    assert "charge" in text.replace("total_charge", "")


# periodicity


@pytest.mark.parametrize("pbc", [(True, True, False), (True, False, False)])
def test_a_layer_is_no_crystal(tmp_path, pbc):
    """tblite knows three periodic directions or none; the third length is a placeholder."""
    layer = molecule("H2O", cell=[8.0, 8.0, 2.0], pbc=pbc)
    write(tmp_path / "layer.xyz", layer, format="extxyz")
    words = ["label", tmp_path / "layer.xyz", tmp_path / "out.xyz", "--kind", "forces", "--workers", 1]
    result = CliRunner().invoke(app, [str(word) for word in words])
    text = result.output + str(result.exception)
    assert result.exit_code != 0
    assert "pbc" in text
    assert not (tmp_path / "out.xyz").exists() or not (tmp_path / "out.xyz").read_text().strip()


# transition states


def test_inversion_of_ammonia(tmp_path):
    """Both ends have the same bonds; symmetry keeps the planar molecule planar, so BFGS finds the saddle too."""
    from ase.optimize import BFGS
    from tblite.ase import TBLite

    angles = 2 * np.pi * np.arange(3) / 3
    ring = np.stack([0.95 * np.cos(angles), 0.95 * np.sin(angles)], axis=1)
    ends, energies = [], []
    for height in (0.0, 0.35, -0.35):
        atoms = Atoms("NH3", [[0, 0, height], *([x, y, 0] for x, y in ring)])
        work = atoms.copy()
        work.calc = TBLite(method="GFN2-xTB", accuracy=0.01, verbosity=0)
        BFGS(work, logfile=None).run(fmax=0.001, steps=200)
        energies.append(work.get_potential_energy())
        ends.append(atoms)
    for atoms, role in zip(ends[1:], ("reactant", "product"), strict=True):
        atoms.info |= {"reaction": "inversion", "role": role}
    write(tmp_path / "ends.extxyz", ends[1:])
    out = tmp_path / "out"
    run("ts", tmp_path / "ends.extxyz", "--model", XTB, "--out", out, "--workers", 1)
    record = summary(out)["reactions"][0]
    assert record["intended"]
    assert record["n_imaginary"] == 1
    assert record["barrier_kcal_mol"] == pytest.approx((energies[0] - energies[1]) / (kcal / mol), abs=0.05)
    saddle = read(out / "reactions" / "inversion" / "ts.extxyz")
    assert abs(np.linalg.svd(saddle.positions - saddle.positions.mean(axis=0))[1][2]) < 0.02, "not planar"


# labels under other names and in other forms


def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True) * (1, 1, 1)
    atoms.set_cell(atoms.cell.array * np.array([1.02, 1.0, 0.99]), scale_atoms=True)
    atoms.rattle(0.08, seed=3)
    atoms.calc = EMT()
    bare = atoms.copy()
    bare.info["REF_energy"] = atoms.get_potential_energy()
    bare.arrays["REF_forces"] = atoms.get_forces()
    bare.info["expected"] = atoms.get_stress()
    return bare


@pytest.mark.parametrize("form", ["virials", "3x3", "voigt"])
def test_stress_in_every_form(tmp_path, form):
    atoms = copper()
    expected = atoms.info.pop("expected")
    xx, yy, zz, yz, xz, xy = expected
    matrix = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if form == "virials":
        atoms.info["REF_virials"] = -atoms.get_volume() * matrix
    else:
        atoms.info["REF_stress"] = matrix if form == "3x3" else expected
    write(tmp_path / "in.xyz", atoms, format="extxyz")
    run("convert", tmp_path / "in.xyz", tmp_path / "out.aselmdb")
    found = next(iter(read_structures(tmp_path / "out.aselmdb")))
    stress = np.ravel(found.info["REF_stress"])
    np.testing.assert_allclose(stress, expected, atol=1e-8)


def test_labels_under_other_names_arrive_or_are_missed(tmp_path):
    water = molecule("H2O")
    water.info["dft_energy"] = -14.22
    water.arrays["dft_forces"] = np.array([[0, 0, 0.1], [0, 0.05, -0.05], [0, -0.05, -0.05]])
    write(tmp_path / "in.xyz", water, format="extxyz")
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "in.xyz"), str(tmp_path / "plain.aselmdb")])
    assert "known label" in result.output + str(result.exception)
    words = ["--energy-key", "dft_energy", "--forces-key", "dft_forces"]
    run("convert", tmp_path / "in.xyz", tmp_path / "out.aselmdb", *words)
    found = next(iter(read_structures(tmp_path / "out.aselmdb")))
    assert found.info["REF_energy"] == pytest.approx(-14.22)
    np.testing.assert_allclose(found.arrays["REF_forces"], water.arrays["dft_forces"])


def test_energies_of_rgd1_belong_to_the_transition_state_only(tmp_path):
    """Its reactants and products are not those geometries whose energies the file gives."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "RGD1_CHNO.h5", "w") as file:
        group = file.create_group("MR_1_0")
        atoms = molecule("CH3OH")
        group["elements"] = atoms.numbers
        for k, (key, energy) in enumerate((("R", -115.1), ("TS", -115.0), ("P", -115.2))):
            group[f"{key}G"] = atoms.positions + 0.01 * k
            group[f"{key}_E"] = energy
    run("convert", "--format", "rgd1", tmp_path / "RGD1_CHNO.h5", tmp_path / "out.xyz")
    found = {atoms.info["role"]: atoms.info.get("REF_energy") for atoms in read_structures(tmp_path / "out.xyz")}
    assert found == {"reactant": None, "ts": pytest.approx(-115.0 * 27.211386, rel=1e-6), "product": None}


# crystals


def springs(cell: Atoms, supercell: Atoms, k: float) -> np.ndarray:
    """(n, N, 3, 3) eV/A^2 between the atoms of ``cell`` and those of ``supercell`` (whose first image of atom i of the
    cell has its position): isotropic springs to all neighbours of the other kind at the shortest distance."""
    constants = np.zeros((len(cell), len(supercell), 3, 3))
    for i, (symbol, position) in enumerate(zip(cell.symbols, cell.positions, strict=True)):
        own = int(np.argmin([np.linalg.norm(p - position) for p in supercell.positions]))
        shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 3) @ supercell.cell.array
        far = np.linalg.norm(supercell.positions[None] + shifts[:, None] - position, axis=2)
        near = (far < 1.05 * np.min(far[far > 0.1])) & (far > 0.1)
        for j in range(len(supercell)):
            if supercell.symbols[j] != symbol:
                constants[i, j] -= k * near[:, j].sum() * np.eye(3)
        constants[i, own] -= constants[i].sum(axis=0)
    return constants


def optic(k: float, *masses: float) -> float:
    """Optical mode at Gamma of a rocksalt crystal of such springs, cm^-1: six springs, reduced mass."""
    return CM1 * np.sqrt(6 * k * sum(1 / m for m in masses))


def mass(symbol: str) -> float:
    return float(atomic_masses[atomic_numbers[symbol]])


def q2r_file(path: Path, crystal: Atoms, labels: list[str], masses: list[float], k: float) -> None:
    """Force constants as q2r.x writes them, 2 x 2 x 2, without a dipole part; lengths in alat = |a1|, Rydberg units."""
    alat = np.linalg.norm(crystal.cell[0])
    supercell = crystal * (2, 2, 2)
    constants = springs(crystal, supercell, k) / (Rydberg / Bohr**2)
    inside = np.tile(crystal.get_scaled_positions(wrap=False), (8, 1))
    cells = np.rint(supercell.positions @ np.linalg.inv(crystal.cell.array) - inside)
    lines = [f"  2    2   0  {alat / Bohr:.7f}" + 5 * "  0.0000000"]
    lines += ["  " + "".join(f"{x:15.9f}" for x in vector / alat) for vector in crystal.cell]
    lines += [f"           {n + 1}  '{labels[n]:4s}'  {masses[n] * 911.4442431:20.10f}" for n in range(2)]
    lines += [f"    {n}    {n}" + "".join(f"{x:18.10f}" for x in p / alat) for n, p in enumerate(crystal.positions, 1)]
    lines += [" F", "   2   2   2"]
    for i in range(3):
        for j in range(3):
            for a in range(2):
                for b in range(2):
                    lines.append(f"{i + 1:4d}{j + 1:4d}{a + 1:4d}{b + 1:4d}")
                    for z in range(2):
                        for y in range(2):
                            for x in range(2):
                                # the file counts the cell of the first atom from that of the second
                                at = next(n for n in range(16) if n % 2 == b and (-cells[n] % 2 == (x, y, z)).all())
                                lines.append(f"{x + 1:4d}{y + 1:4d}{z + 1:4d}{constants[a, at, i, j]:20.11E}")
    path.write_text("\n".join(lines) + "\n")


def test_masses_of_a_q2r_file_are_read(tmp_path):
    from hint_recipes.crystals.phonons.harmonic import read_force_constants

    crystal = bulk("NaCl", "rocksalt", a=5.6)
    for sodium in (mass("Na"), 2 * mass("Na")):
        q2r_file(tmp_path / "nacl.fc", crystal, ["Na", "Cl"], [sodium, mass("Cl")], 1.5)
        constants = read_force_constants(tmp_path / "nacl.fc", crystal, file_masses=True)
        assert constants.primitive.get_masses()[0] == pytest.approx(sodium, rel=1e-4)
        assert constants.frequencies()[0].max() == pytest.approx(optic(1.5, sodium, mass("Cl")), abs=0.05)


@pytest.mark.parametrize(
    ("labels", "symbols"),
    [(["Mg1", "O_s"], "MgO"), (["Na_i", "Cl-2"], "NaCl"), (["Co1", "N_a"], "CoN"), (["Sn2", "Te1"], "SnTe")],
)
def test_labels_of_species(tmp_path, labels, symbols):
    """pw.x allows a chemical symbol followed by digits, or by an underscore or hyphen and anything."""
    crystal = bulk(symbols, "rocksalt", a=5.0)
    masses = [mass(symbol) for symbol in crystal.symbols]
    q2r_file(tmp_path / "labels.fc", crystal, labels, masses, 1.5)
    run("convert", tmp_path / "labels.fc", tmp_path / "out.xyz")
    found = next(iter(read_structures(tmp_path / "out.xyz")))
    assert set(found.symbols) == set(crystal.symbols)
    write(tmp_path / "cell.extxyz", crystal)
    words = ["--reference", tmp_path / "labels.fc", "--out", tmp_path / "phonons", "--mesh"]
    run("phonons", tmp_path / "cell.extxyz", *words, *MESH)
    gamma = summary(tmp_path / "phonons")["sources"]["reference"]["frequencies_gamma_cm1"]
    np.testing.assert_allclose(np.sort(gamma)[-3:], optic(1.5, *masses), atol=0.05)


@pytest.fixture
def potassium_bromide(tmp_path) -> Path:
    """Files of phonopy for KBr in its conventional cell, with the primitive cell of two atoms."""
    phonopy = pytest.importorskip("phonopy")
    from phonopy.structure.atoms import PhonopyAtoms

    crystal = bulk("KBr", "rocksalt", a=6.6, cubic=True)
    write(tmp_path / "conventional.extxyz", crystal)
    write(tmp_path / "primitive.extxyz", bulk("KBr", "rocksalt", a=6.6))
    unit = PhonopyAtoms(crystal.symbols, cell=crystal.cell.array, positions=crystal.positions)
    phonon = phonopy.Phonopy(unit, np.eye(3, dtype=int), primitive_matrix="F")
    whole = springs(crystal, crystal, 0.24)
    first = phonon.primitive.p2s_map
    phonon.force_constants = whole[first]
    phonon.save(tmp_path / "compact.yaml", settings={"force_constants": True})
    text = (tmp_path / "compact.yaml").read_text()
    (tmp_path / "compact.yaml.xz").write_bytes(lzma.compress(text.encode()))
    (tmp_path / "old.yaml").write_text(text.replace("angstrom", "Angstrom"))
    phonon.generate_displacements(distance=0.01)
    phonon.forces = [
        -np.einsum("ijab,jb->ia", whole, moved.positions - unit.positions)
        for moved in phonon.supercells_with_displacements
    ]
    charges = np.array([[np.eye(3)], [-np.eye(3)]]).reshape(2, 3, 3)
    phonon.nac_params = {"born": charges, "dielectric": 2.4 * np.eye(3), "factor": 14.399652}
    parts = ("force_sets", "displacements", "born_effective_charge", "dielectric_constant")
    phonon.save(tmp_path / "params.yaml", settings=dict.fromkeys(parts, True))
    return tmp_path


@pytest.mark.parametrize("file", ["compact.yaml", "compact.yaml.xz", "params.yaml", "old.yaml"])
def test_phonopy_files(potassium_bromide, monkeypatch, file):
    """Three modes at Gamma are the optical ones, for the conventional cell, with 24 modes, and for the primitive one;
    force sets of the working directory belong to another crystal."""
    here = potassium_bromide
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / "FORCE_SETS").write_text("1\n1\n\n1\n 0.01 0.0 0.0\n 9.0 9.0 9.0\n")
    monkeypatch.chdir(here / "elsewhere")
    wanted = optic(0.24, mass("K"), mass("Br"))
    for cell in ("conventional", "primitive"):
        run("phonons", here / f"{cell}.extxyz", "--reference", here / file, "--out", here / cell, "--mesh", *MESH)
        gamma = np.sort(np.array(summary(here / cell)["sources"]["reference"]["frequencies_gamma_cm1"]))
        assert len(gamma) in ((24,) if cell == "conventional" else (6, 24))
        if file != "params.yaml":
            assert np.sum(np.abs(gamma - wanted) < 0.05) == 3
        else:  # at q = 0 itself, without a direction, or with the longitudinal one above
            assert np.sum(np.abs(gamma - wanted) < 0.05) >= 2


@pytest.mark.parametrize("file", ["compact.yaml", "compact.yaml.xz", "old.yaml"])
def test_phonopy_files_become_labels(potassium_bromide, file):
    here = potassium_bromide
    run("convert", "--format", "phonopy", here / file, here / "out.xyz")
    found = list(read_structures(here / "out.xyz"))
    assert len(found) == 1
    assert found[0].info["REF_hessian"][0] == pytest.approx(6 * 0.24, abs=1e-6)


def test_alpha2f_of_lambda_x_is_in_thz(tmp_path):
    """Its header says so; expected are own trapezoid sums and the Allen-Dynes formula."""
    thz, kelvin = 4.135667696, 0.08617333262
    frequency = np.linspace(0, 12, 601)
    low = 0.3 * np.exp(-((frequency - 2) ** 2))
    peaks = [low + h * np.exp(-(((frequency - 6) / w) ** 2)) for h, w in ((0.5, 1.0), (0.6, 1.5))]
    columns = [np.where(frequency > 0.3, np.round(peak, 5), 0.0) for peak in peaks]
    rows = "\n".join(f"{f:8.4f}" + "".join(f"{c[i]:10.5f}" for c in columns) for i, f in enumerate(frequency))
    (tmp_path / "alpha2F.dat").write_text("# E(THz)     0.010     0.020\n" + rows + "\n")
    for number, values in enumerate(columns, 1):
        out = tmp_path / f"out{number}"
        run("tc", tmp_path / "alpha2F.dat", "--column", number, "--mu-star", 0.1, "--out", out)
        w, a = frequency[1:] * thz, values[1:]
        coupling = 2 * np.trapezoid(a / w, w)
        log = np.exp(2 / coupling * np.trapezoid(a / w * np.log(w), w)) / kelvin
        second = np.sqrt(2 / coupling * np.trapezoid(a * w, w)) / kelvin
        lambda1, lambda2 = 2.46 * (1 + 3.8 * 0.1), 1.82 * (1 + 6.3 * 0.1) * second / log
        f1 = (1 + (coupling / lambda1) ** 1.5) ** (1 / 3)
        f2 = 1 + (second / log - 1) * coupling**2 / (coupling**2 + lambda2**2)
        tc = f1 * f2 * log / 1.2 * np.exp(-1.04 * (1 + coupling) / (coupling - 0.1 * (1 + 0.62 * coupling)))
        found = summary(out)
        assert found["lambda"] == pytest.approx(coupling, rel=1e-3)
        assert found["omega_log_K"] == pytest.approx(log, rel=1e-3)
        assert found["tc_K"]["0.1"] == pytest.approx(tc, rel=2e-3)


PW = """#!/bin/sh
while [ $# -gt 0 ]; do case $1 in -in|-i|-inp) cp "$2" {kept};; esac; shift; done
echo "     Program PWSCF v.7.3 starts"; exit 1
"""
TEMPLATE = """&CONTROL
  calculation='scf', pseudo_dir='{pseudo}'
/
&SYSTEM
  ibrav=0, nat=2, ntyp=2, ecutwfc=60, occupations='smearing', smearing='mv', degauss=0.01,
  nspin=2, starting_magnetization(1)=0.0, starting_magnetization(2)=0.6
/
&ELECTRONS
  conv_thr=1d-10
/
ATOMIC_SPECIES
 O  15.999 O.upf
 Fe 55.845 Fe.upf
K_POINTS automatic
 4 4 4 0 0 0
"""


def test_magnetic_template_reaches_pw(tmp_path, monkeypatch):
    """The starting magnetisation stays with its species; pw.x is a stand-in that keeps its input."""
    kept, pseudo = tmp_path / "seen.in", tmp_path / "pseudo"
    pseudo.mkdir()
    for symbol in ("O", "Fe"):
        (pseudo / f"{symbol}.upf").write_text("<UPF/>\n")
    (tmp_path / "pw.x").write_text(PW.format(kept=kept))
    (tmp_path / "pw.x").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "feo.in").write_text(TEMPLATE.format(pseudo=pseudo))
    write(tmp_path / "feo.extxyz", bulk("FeO", "rocksalt", a=4.3))
    words = ["--engine", "espresso", "--set", f"template={tmp_path / 'feo.in'}", "--kind", "forces", "--workers", 1]
    run("label", tmp_path / "feo.extxyz", tmp_path / "out.xyz", *words, status=1)
    text = kept.read_text()
    block = text[text.index("ATOMIC_SPECIES") :].splitlines()[1:3]
    species = [line.split()[0] for line in block]
    iron = next(n for n, name in enumerate(species, 1) if name.startswith("Fe"))
    values = dict(re.findall(r"starting_magnetization\((\d)\)\s*=\s*([-\d.eEdD+]+)", text))
    assert float(values[str(iron)].lower().replace("d", "e")) == 0.6
