"""Files of Gaussian, ORCA, VASP, xtb, Psi4, Q-Chem, NWChem, Turbomole and CP2K in their layouts, and their traps."""

import numpy as np
import pytest
from ase.units import Bohr, Hartree
from helpers import code_files as cf

from hint_plugins.datasets.reading import detect_format, read_dataset
from hint_plugins.labels.hessian_label import HessianLabel
from hint_plugins.labels.structure_check import check_structure
from hint_plugins.storage.store import StoreError
from hint_plugins.structures.frozen import free_components

H = cf.full() * Hartree / Bohr**2
FORCES = -cf.GRADIENT * Hartree / Bohr
MOVED = cf.POSITIONS + np.array([[0.0, 0.0, 1e-3], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def collect(path, **options):
    found = []
    frames = list(read_dataset(path, bad=lambda i, r: found.append((i, r)), **options))
    return frames, found


def only(path, **options):
    frames, found = collect(path, **options)
    assert not found, found
    (atoms,) = frames
    return atoms


def refused(path, **options):
    frames, ((index, reason),) = collect(path, **options)
    assert not frames
    assert index == 0
    return reason


def block_of_water(atoms, known, hessian=H, digits=5e-7):
    """The label is the block of these atoms of ``hessian``, and stands the checks."""
    label = HessianLabel.from_info(atoms.info, 3)
    assert label.kind == "block"
    index = [3 * k + a for k in known for a in range(3)]
    assert label.directions.tolist() == index
    np.testing.assert_allclose(label.products, hessian[np.ix_(index, index)], rtol=0, atol=digits)
    assert check_structure(atoms)["reason"] == ""


def same_water(atoms, digits=5e-7, coordinates=1e-6):
    """Energy, forces, Hessian and geometry are the calculation's, in eV and A, to the digits of a file."""
    assert atoms.numbers.tolist() == cf.NUMBERS
    np.testing.assert_allclose(atoms.positions, cf.POSITIONS, rtol=0, atol=coordinates)
    assert atoms.info["REF_energy"] == pytest.approx(cf.ENERGY * Hartree, abs=1e-6)
    np.testing.assert_allclose(atoms.arrays["REF_forces"], FORCES, rtol=0, atol=3e-5)
    np.testing.assert_allclose(np.reshape(atoms.info["REF_hessian"], (9, 9)), H, rtol=0, atol=digits)
    assert check_structure(atoms)["reason"] == ""


def gaussian_fchk(d):
    return cf.fchk(d / "water.fchk")


def gaussian_log(d):
    return cf.gaussian_log(d / "water.log")


def orca_engrad(d):
    cf.engrad(d / "water.engrad")
    return cf.orca(d / "water.hess")


def orca_output(d):
    cf.orca_output(d / "water.out")
    return cf.orca(d / "water.hess")


def qchem(d):
    return cf.qchem(d / "water.out", [("force", cf.POSITIONS, cf.ENERGY), ("freq", cf.POSITIONS, cf.ENERGY)])


#: Writer, code, version, method, and the error (eV/A^2) that the digits of the layout leave in the Hessian.
LAYOUTS = [
    (gaussian_fchk, "Gaussian", "ES64L-G16RevA.03", "RHF/STO-3G", 2e-6),
    (gaussian_log, "Gaussian", "ES64L-G16RevA.03", "RHF/STO-3G", 6e-7),
    (orca_engrad, "ORCA", None, None, 1e-7),
    (orca_output, "ORCA", "5.0.4", "HF STO-3G EnGrad Freq", 1e-7),
    (cf.xtb, "xtb", "6.5.1", "GFN2-xTB", 5e-7),
    (cf.turbomole, "Turbomole", None, "HF/STO-3G", 5e-7),
    (lambda d: cf.turbomole(d, plain=True), "Turbomole", None, "HF/STO-3G", 1e-7),
    (lambda d: cf.psi4(d / "out.dat"), "Psi4", "1.7", "HF/STO-3G", 1e-8),
    (qchem, "Q-Chem", "5.1.2", "hf/sto-3g", 6e-6),
    (lambda d: cf.nwchem(d / "water.out"), "NWChem", "7.0.2", "HF", 1e-7),
    (cf.cp2k, "CP2K", "2023.1", "QUICKSTEP", 2e-6),
]


@pytest.mark.parametrize(("write", "code", "version", "method", "digits"), LAYOUTS)
def test_one_run(tmp_path, write, code, version, method, digits):
    path = write(tmp_path)
    assert detect_format(path) == "codes"
    atoms = only(path)
    same_water(atoms, digits)
    assert atoms.info["label_code"] == code
    assert atoms.info.get("label_version") == version
    assert atoms.info.get("label_method") == method
    assert atoms.info["name"] == path.name


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout[1])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.8])
def test_a_file_cut_short_gives_nothing_or_what_it_holds_whole(tmp_path, layout, part):
    """Cut anywhere: refused with a reason, or (the cut came behind all labels) read as the whole file is."""
    path = layout[0](tmp_path)
    text = path.read_text()
    path.write_text(text[: int(part * len(text))])
    frames, found = [], []
    try:
        frames, found = collect(path)
    except StoreError as error:
        found = [(0, str(error))]
    for atoms in frames:
        same_water(atoms, layout[-1])
    assert len(frames) + len(found) == 1


def test_cclib_reads_the_same_hessian_of_qchem(tmp_path):
    """Real files of all codes are compared by ``scripts/check_code_files.py``."""
    cclib = pytest.importorskip("cclib")
    path = cf.qchem(tmp_path / "water.out")
    theirs = np.array(cclib.parser.QChem(str(path)).parse().hessian)
    ours = only(path, incomplete=True)
    np.testing.assert_allclose(np.reshape(ours.info["REF_hessian"], (9, 9)), theirs * Hartree / Bohr**2, atol=1e-10)


# --- wrong frame, unit, mass-weighting: the checks of every label see them ------------------------------------


@pytest.mark.parametrize(
    ("triangle", "positions"),
    [
        (cf.TRIANGLE, cf.POSITIONS @ TURN.T),  # standard orientation of one, input orientation of the other
        (cf.TRIANGLE, cf.POSITIONS[[1, 0, 2]]),  # another order of atoms
        ((cf.full() / np.sqrt(np.outer(*2 * [np.repeat(cf.MASSES, 3)])))[np.tril_indices(9)], cf.POSITIONS),
        (cf.TRIANGLE * Bohr**2, cf.POSITIONS),
    ],
    ids=["turned", "exchanged", "mass-weighted", "unit"],
)
def test_a_hessian_of_another_frame_order_or_unit_does_not_pass(tmp_path, triangle, positions):
    atoms = only(cf.fchk(tmp_path / "a.fchk", triangle=triangle, positions=positions))
    assert check_structure(atoms)["wrong"] == ["hessian"]


# --- Gaussian ---------------------------------------------------------------------------------------------


def test_fchk_of_other_jobs(tmp_path):
    assert "a job of type FOpt: its force constants are estimates" in refused(cf.fchk(tmp_path / "a.fchk", job="FOpt"))
    assert "did not complete" in refused(cf.fchk(tmp_path / "a.fchk", status=0))
    cell = f"{'Translation vectors':<40}   R   N={9:12d}\n" + cf.rows(np.eye(3), 5, "%16.8E")
    assert "periodic" in refused(cf.fchk(tmp_path / "a.fchk", extra=cell))
    triangle = cf.TRIANGLE.copy()
    triangle[np.arange(45) >= 21] = 0.0  # all that concerns the last atom
    atoms = only(cf.fchk(tmp_path / "a.fchk", triangle=triangle))
    block_of_water(atoms, (0, 1))
    assert "atoms 2 have no second derivatives in the file" in atoms.info["label_notes"]


def test_fchk_of_qchem_takes_energy_and_gradient_from_the_output_beside_it(tmp_path):
    path = cf.fchk(tmp_path / "water.fchk")
    text = path.read_text()
    start = text.index("Total Energy")
    text = text[:start] + text[text.index("\n", start) + 1 :]
    start, end = text.index("Cartesian Gradient"), text.index("Cartesian Force Constants")
    path.write_text(text[:start] + text[end:])
    assert "no energy and no gradient" in refused(path)
    qchem(tmp_path)
    atoms = only(tmp_path)
    same_water(atoms, 2e-6)
    assert atoms.info["label_code"] == "Q-Chem"


def test_gaussian_log_of_several_jobs_takes_the_frequency_job(tmp_path):
    """A composite method repeats the force constants beside the geometry of a later step."""
    mixed = cf.archive("Mixed", "G4", positions=MOVED)
    atoms = only(cf.gaussian_log(tmp_path / "a.log", cf.archive("SP", positions=MOVED), cf.archive(), mixed))
    same_water(atoms, 6e-7)
    twice = only(cf.gaussian_log(tmp_path / "a.log", cf.archive(positions=MOVED), cf.archive()))
    same_water(twice, 6e-7)
    assert twice.info["label_notes"] == "the last of 2 frequency jobs in the file"
    same_water(only(cf.gaussian_log(tmp_path / "a.log", cf.archive(separator="|"))), 6e-7)


def test_gaussian_log_energies(tmp_path):
    energies = f"HF=-74.5\\MP2={cf.ENERGY:.10f}"
    same_water(only(cf.gaussian_log(tmp_path / "a.log", cf.archive(method="RMP2-FC", energies=energies))), 6e-7)
    same_water(only(cf.gaussian_log(tmp_path / "a.log", cf.archive(method="UB2PLYP", energies=energies))), 6e-7)
    reason = refused(cf.gaussian_log(tmp_path / "a.log", cf.archive(method="RCCSD-FC", energies=energies)))
    assert "which of the energies HF, MP2 is that of RCCSD-FC?" in reason
    assert "excited state" in refused(cf.gaussian_log(tmp_path / "a.log", cf.archive(method="RB3LYP TD(NStates=3)")))


def test_gaussian_log_that_cannot_be_used(tmp_path):
    zmatrix = cf.archive(geometry="O\\H,1,R\\H,1,R,2,A")
    assert "Z-matrix" in refused(cf.gaussian_log(tmp_path / "a.log", zmatrix))
    assert "the job died" in refused(cf.gaussian_log(tmp_path / "a.log", cf.archive("SP")))
    crystal = "\\".join(["O,0.,0.,0.", "TV,5.,0.,0."])
    assert "periodic" in refused(cf.gaussian_log(tmp_path / "a.log", cf.archive(geometry=crystal)))
    plain = tmp_path / "plain.log"
    plain.write_text(" Entering Gaussian System, Link 0=g16\n" + cf.archive("SP"))
    assert "no archive of a frequency job" in refused(plain, format="codes")


def test_gaussian_isotopes(tmp_path):
    geometry = "\\".join(
        f"{name},{','.join(f'{x:.10f}' for x in row)}"
        for name, row in zip(["O", "H(Iso=2.0141)", "H"], cf.POSITIONS, strict=True)
    )
    atoms = only(cf.gaussian_log(tmp_path / "a.log", cf.archive(geometry=geometry)))
    np.testing.assert_allclose(atoms.get_masses(), [15.999, 2.0141, 1.008])


# --- ORCA -------------------------------------------------------------------------------------------------


def test_orca_gradient_of_another_geometry_is_not_taken(tmp_path):
    """After an optimisation the last gradient belongs to the geometry before the last step."""
    path = cf.orca(tmp_path / "a.hess")
    assert "no energy and no gradient of this geometry" in refused(path)
    cf.engrad(tmp_path / "a.engrad", MOVED)
    cf.orca_output(tmp_path / "a.out", MOVED)
    assert "no energy and no gradient of this geometry" in refused(path)
    atoms = only(path, incomplete=True)
    assert "REF_energy" not in atoms.info
    assert "REF_forces" not in atoms.arrays
    assert atoms.info["label_notes"] == "a.engrad belongs to another geometry (up to 0.001 A away) and is not used"


def test_orca_partial_hessian(tmp_path):
    """Rows and columns of atoms that are left out are zero."""
    cf.engrad(tmp_path / "a.engrad")
    path = cf.orca(tmp_path / "a.hess", left_out=[1])
    atoms = only(path)
    block_of_water(atoms, (0, 2))
    assert not atoms.constraints
    assert "atoms 1 have no second derivatives in the file" in atoms.info["label_notes"]


def test_orca_that_is_not_finished(tmp_path):
    cf.engrad(tmp_path / "a.engrad")
    assert "is not finished: atom 8" in refused(cf.orca(tmp_path / "a.hess", jobs=[1] * 8 + [0]))
    cf.orca_output(tmp_path / "a.out", end="ORCA finished by error termination")
    assert "did not end normally" in refused(cf.orca(tmp_path / "a.hess"))


# --- xtb and Turbomole: rotations that a code projected out ----------------------------------------------


def test_what_xtb_writes_is_not_the_hessian_away_from_rest(tmp_path):
    path = cf.xtb(tmp_path)
    assert np.abs(cf.projected(np.ones(3)) * Hartree / Bohr**2 - H).max() > 1.0
    atoms = only(path)
    same_water(atoms, 5e-7)
    assert "put back from the gradient" in atoms.info["label_notes"]


def test_xtb_gradient_of_another_geometry(tmp_path):
    path = cf.xtb(tmp_path, MOVED)
    assert "does not belong to the geometry of the gradient" in refused(path)
    (tmp_path / "gradient").unlink()
    assert "run xtb with --grad" in refused(path)


def test_turbomole_without_the_gradient_of_its_geometry(tmp_path):
    path = cf.turbomole(tmp_path)
    cf.grad_file(tmp_path / "gradient", MOVED)
    assert "the last cycle of $grad belongs to another geometry" in refused(path)
    path.write_text(path.read_text().replace("$grad    file=gradient\n", ""))
    assert "needs a gradient to put the rotations back" in refused(path)


def test_projection_of_a_linear_molecule_and_of_a_molecule_at_rest():
    """No rotation about the axis to put back, and nothing at all where there are no forces."""
    from hint_plugins.datasets.codes.projection import rigid_motions, unprojected

    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.2], [0.0, 0.0, -1.1]])
    forces = np.array([[0.0, 0.0, 2.0], [0.0, 0.0, -3.0], [0.0, 0.0, 1.0]])
    matrix = np.zeros((9, 9))
    for i, j, tension, stiff in ((0, 1, 3.0, 40.0), (0, 2, 1.0, 50.0)):  # springs along the axis, under tension
        length = abs(positions[i, 2] - positions[j, 2])
        for k, value in enumerate((tension / length, tension / length, stiff)):
            pair = np.zeros(9)
            pair[[3 * i + k, 3 * j + k]] = 1.0, -1.0
            matrix += value * np.outer(pair, pair)
    basis = np.linalg.svd(rigid_motions(positions), full_matrices=False)[0][:, :5]
    away = np.eye(9) - basis @ basis.T
    np.testing.assert_allclose(unprojected(away @ matrix @ away, positions, forces), matrix, atol=1e-10)
    still = away @ matrix @ away
    np.testing.assert_allclose(unprojected(still, positions, 0 * forces), still, atol=1e-12)


# --- Psi4, Q-Chem, NWChem, CP2K ---------------------------------------------------------------------------


def test_psi4_file_without_geometry_belongs_to_an_output_of_one_geometry(tmp_path):
    path = cf.psi4(tmp_path / "out.dat", hessian=False)
    hess = tmp_path / "out.default.1.hess"
    hess.write_text("    3    9\n" + cf.rows(cf.full(), 3, "%20.10f"))
    same_water(only(path, format="codes"), 1e-8)
    text = path.read_text()
    path.write_text(text + cf.psi4(tmp_path / "b", MOVED, hessian=False).read_text())
    assert "names no geometry, and the output has several" in refused(path, format="codes")
    hess.unlink()
    assert "no Hessian: set print 3" in refused(path, format="codes")


def test_psi4_with_a_correlated_method(tmp_path):
    path = cf.psi4(tmp_path / "out.dat")
    path.write_text(path.read_text() + "  * MP2 correction total energy = -75.0\n")
    assert "a correlated method" in refused(path)


def test_qchem_energies_of_other_geometries_are_not_mixed_in(tmp_path):
    path = tmp_path / "a.out"
    parts = [("force", cf.POSITIONS, cf.ENERGY), ("force", MOVED, -70.0), ("freq", cf.POSITIONS, cf.ENERGY)]
    same_water(only(cf.qchem(path, parts)), 6e-6)
    assert "no gradient of this geometry" in refused(cf.qchem(path, parts[1:]))
    assert "did not end normally" in refused(cf.qchem(path, parts, end="SCF failed to converge"))


def test_nwchem_hessian_files(tmp_path):
    path = cf.nwchem(tmp_path / "a.out", hess=1.01)
    assert "a.hess differs from the printed Hessian by" in refused(path)
    (tmp_path / "a.hess").unlink()
    atoms = only(path)
    same_water(atoms, 5e-4)
    assert atoms.info["label_notes"] == "the Hessian has six digits: a.hess is not there"
    assert "no gradient" in refused(cf.nwchem(path, gradient_positions=MOVED))


def test_cp2k_takes_forces_of_the_same_coordinates_only(tmp_path):
    reason = refused(cf.cp2k(tmp_path, single=np.round(MOVED, 6)))
    assert "no energy and no gradient of this geometry" in reason


# --- VASP -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["", "THz^2"])
def test_vasprun(tmp_path, unit):
    pytest.importorskip("phonopy")
    path = cf.vasprun(tmp_path / "vasprun.xml", unit)
    assert detect_format(path) == "codes"
    atoms = only(path)
    np.testing.assert_allclose(atoms.positions, cf.POSITIONS, atol=1e-6)
    np.testing.assert_allclose(np.reshape(atoms.info["REF_hessian"], (9, 9)), cf.full(), rtol=0, atol=2e-7)
    np.testing.assert_allclose(atoms.arrays["REF_forces"], -cf.GRADIENT, atol=1e-8)
    assert atoms.info["REF_energy"] == pytest.approx(cf.ENERGY, abs=1e-8)
    assert atoms.info["energy_sigma0"] == pytest.approx(cf.ENERGY + 0.1, abs=1e-8)
    from ase.units import GPa

    np.testing.assert_allclose(atoms.info["REF_stress"], [0.2 * GPa] * 3 + [0.0] * 3, atol=1e-10)
    assert atoms.pbc.all()
    assert atoms.info["label_version"] == "6.3.2"
    assert atoms.info["label_method"] == "PBE, ENCUT 400 eV, PAW_PBE O 01Jan2000, PAW_PBE H 01Jan2000"


@pytest.mark.parametrize("unit", ["", "THz^2", "outcar"])
def test_vasp_with_selective_dynamics_is_a_block(tmp_path, unit):
    pytest.importorskip("phonopy")
    if unit == "outcar":
        path = cf.outcar(tmp_path / "OUTCAR", free=(0, 2))
    else:
        path = cf.vasprun(tmp_path / "vasprun.xml", unit, free=(0, 2))
    atoms = only(path)
    label = HessianLabel.from_info(atoms.info, 3)
    index = [0, 1, 2, 6, 7, 8]
    assert label.directions.tolist() == index
    np.testing.assert_allclose(label.products, cf.full()[np.ix_(index, index)], rtol=0, atol=6e-7)
    assert free_components(atoms).all(axis=1).tolist() == [True, False, True]
    assert "block of 6 free coordinates" in atoms.info["label_notes"]
    np.testing.assert_allclose(atoms.arrays["REF_forces"], -cf.GRADIENT, atol=6e-7)


def test_coordinates_that_vasp_does_not_name(tmp_path):
    pytest.importorskip("phonopy")
    path = cf.vasprun(tmp_path / "vasprun.xml", free=(1, 2))
    text = path.read_text()
    path.write_text(text.replace("<v>F F F</v>", "<v>T T T</v>", 1))
    assert "which coordinates they are is not stated" in refused(path)
    path.write_text(text.replace("<v>F F F</v>", "<v>F F T</v>").replace("<v>T T T</v>", "<v>T T F</v>", 1))
    assert only(path).info["REF_hessian_block_indices"].tolist() == [2, 3, 4, 6, 7, 8]
    basis = text.split('<varray name="basis">')[1].split("</v>")[0]
    path.write_text(path.read_text().replace(basis, basis.replace(" 0.0", " 0.5", 1)))
    assert "not rectangular" in refused(path)
    outcar = cf.outcar(tmp_path / "OUTCAR", free=(1, 2))
    outcar.write_text(outcar.read_text().replace("2X", "9X"))
    assert "no coordinate of 3 atoms" in refused(outcar)


def test_vasprun_that_cannot_be_used(tmp_path):
    pytest.importorskip("phonopy")
    path = tmp_path / "vasprun.xml"
    assert "ended at NELM = 60, not converged" in refused(cf.vasprun(path, steps=60))
    same = only(cf.vasprun(path, steps=60, ibrion=8))  # with DFPT the steps of all perturbations are listed
    assert "REF_hessian" in same.info
    assert "not at the starting geometry" in refused(cf.vasprun(path, start=MOVED))
    assert "the run is not finished" in refused(cf.vasprun(path, whole=False), format="codes")
    path.write_text(cf.vasprun(path).read_text()[:-40])
    assert "not whole XML" in refused(path)
    other = cf.vasprun(tmp_path / "other.xml", ibrion=2, whole=False)
    assert "no second derivatives" in refused(other, format="codes")


def test_vasp_outcar_and_packed_files(tmp_path):
    import gzip

    pytest.importorskip("phonopy")
    path = cf.outcar(tmp_path / "OUTCAR")
    assert detect_format(path) == "codes"
    atoms = only(path)
    np.testing.assert_allclose(np.reshape(atoms.info["REF_hessian"], (9, 9)), cf.full(), rtol=0, atol=6e-7)
    np.testing.assert_allclose(atoms.arrays["REF_forces"], -cf.GRADIENT, atol=6e-7)
    assert atoms.info["REF_energy"] == pytest.approx(cf.ENERGY, abs=1e-8)
    assert atoms.info["label_version"].startswith("6.3.2")
    assert atoms.info["label_method"] == "PBE, ENCUT 400 eV, PAW_PBE O 01Jan2000, PAW_PBE H 01Jan2000"
    cf.vasprun(tmp_path / "vasprun.xml")
    (both,) = collect(tmp_path)[0]
    assert both.info["name"] == "vasprun.xml"
    for file in (tmp_path / "vasprun.xml", path):
        (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
        packed = only(tmp_path / f"{file.name}.gz")
        np.testing.assert_allclose(packed.info["REF_hessian"], atoms.info["REF_hessian"], rtol=0, atol=6e-7)
    assert "the run is not finished" in refused(cf.outcar(path, whole=False), format="codes")
    path.write_text(cf.outcar(path).read_text()[:-60])
    assert "cut short" in refused(path)


# --- calculations that did not converge -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "where", "said", "reason"),
    [
        (cf.cp2k, "VIB| Hessian", " SCF run NOT converged ***\n", "at a displaced geometry is not converged"),
        (
            lambda d: cf.nwchem(d / "a.out"),
            "RHF ENERGY GRADIENTS",
            " Calculation failed to converge\n",
            "not converged",
        ),
        (
            lambda d: cf.psi4(d / "out.dat"),
            "Psi4 exiting",
            "Energy did not converge, but proceeding anyway.\n",
            "not converged",
        ),
        (cf.turbomole, "$grad ", "$actual step      dscf\n", "did not end normally ($actual step"),
    ],
)
def test_calculations_that_did_not_converge(tmp_path, write, where, said, reason):
    path = write(tmp_path)
    text = path.read_text()
    assert where in text
    path.write_text(text.replace(where, f"{said}{where}", 1))
    assert reason in refused(path)


def test_electronic_loop_of_an_outcar_that_ended_at_nelm(tmp_path):
    pytest.importorskip("phonopy")
    path = cf.outcar(tmp_path / "OUTCAR")
    text = path.read_text().replace("   ENCUT  =", "   NELM   =     60;   NELMIN=  2\n   ENCUT  =")
    path.write_text(text)
    only(path)
    path.write_text(text.replace("Iteration      1(   1)", "Iteration      1(  60)"))
    assert "ended at NELM = 60, not converged" in refused(path)


# --- isotopes ---------------------------------------------------------------------------------------------


def test_masses_of_isotopes_are_read(tmp_path):
    """Deuterium is hydrogen of another mass, wherever an output states it."""
    pytest.importorskip("phonopy")
    path = cf.outcar(tmp_path / "OUTCAR")
    stated = "  Mass of Ions in am\n   POMASS =  16.00  2.01\n  Ionic Valenz\n"
    path.write_text(path.read_text().replace("   ENCUT  =", f"{stated}   ENCUT  ="))
    np.testing.assert_allclose(only(path).get_masses(), [16.0, 2.01, 2.01])
    path = cf.qchem(tmp_path / "q.out", [(job, cf.POSITIONS, cf.ENERGY) for job in ("force", "freq")])
    kinds = ((1, "O", 15.99491), (2, "H", 2.0141), (3, "H", 1.00783))
    lines = "".join(f"   Atom    {k}  Element {s}  Has Mass   {m}\n" for k, s, m in kinds)
    path.write_text(path.read_text().replace("Thank you", f"{lines}Thank you"))
    np.testing.assert_allclose(only(path).get_masses(), [15.99491, 2.0141, 1.00783])
    control = cf.turbomole(tmp_path)
    control.write_text(control.read_text().replace("basis =h STO-3G", "basis =h STO-3G \\\n   mass = 2.0141"))
    assert "isotopes in $atoms" in refused(control)


# --- trees of runs ----------------------------------------------------------------------------------------


def test_a_directory_of_runs(tmp_path, capsys):
    for name, write in (
        ("g", gaussian_fchk),
        ("g", gaussian_log),
        ("o", orca_engrad),
        ("q/deep", qchem),
        ("x", cf.xtb),
    ):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        write(tmp_path / name)
    cf.gaussian_log(tmp_path / "g" / "other.log", cf.archive(method="RMP2-FC", energies="HF=-74.5"))
    (tmp_path / "single.log").write_text(" Entering Gaussian System\n" + cf.archive("SP"))
    (tmp_path / ".old").mkdir()
    gaussian_log(tmp_path / ".old")
    (tmp_path / "settings.yaml").write_text("a: 1\n")
    assert detect_format(tmp_path) == "codes"
    cf.orca(tmp_path / "o" / "alone.hess")
    frames, found = collect(tmp_path)
    assert [atoms.info["name"] for atoms in frames] == [
        "g/other.log",
        "g/water.fchk",
        "o/water.hess",
        "q/deep/water.out",
        "x/hessian",
    ]
    ((index, reason),) = found
    assert index == 2
    assert reason.startswith("o/alone.hess: no energy and no gradient")
    assert "1 outputs without Hessian are left out (single.log ...)" in capsys.readouterr().err
    (tmp_path / ".old" / "none").mkdir()
    with pytest.raises(StoreError, match="no output of"):
        list(read_dataset(tmp_path / ".old" / "none", "codes"))


def test_phonopy_directories_stay_phonopys(tmp_path):
    gaussian_fchk(tmp_path)
    (tmp_path / "phonopy_disp.yaml").write_text("phonopy:\n  version: 2\n")
    assert detect_format(tmp_path) == "phonopy"


# --- OpenREACT-CHON-EFH -----------------------------------------------------------------------------------


def test_openreact(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "molecules-IRC.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("H2O/rxn1")
        group["species"] = [b"O", b"H", b"H"]
        group["coordinates"] = np.array([cf.POSITIONS, cf.POSITIONS])
        group["energies"] = [cf.ENERGY, cf.ENERGY]
        group["forces"] = np.array([-cf.GRADIENT / Bohr, np.full((3, 3), np.nan)])
        group["hessian"] = np.array([cf.full() / Bohr**2] * 2)
        bad = file.create_group("H2O/rxn2")
        bad["species"] = [8, 1, 1]
        bad["coordinates"] = cf.POSITIONS[None]
    assert detect_format(path) == "openreact"
    frames, found = collect(path)
    same_water(frames[0], 1e-10)
    assert len(frames) == 1
    assert [i for i, _ in found] == [1, 2]
    assert "structure 1: forces holds a number that is not finite" in found[0][1]
    assert "no data set 'energies'" in found[1][1]


# --- commands ---------------------------------------------------------------------------------------------


def test_convert_and_check_of_a_directory(tmp_path):
    """What is written is what the files say, and a label of another frame is named with its run."""
    import json

    from typer.testing import CliRunner

    from hint_plugins.cli.main import app

    runs = tmp_path / "runs"
    runs.mkdir()
    cf.fchk(runs / "good.fchk")
    cf.fchk(runs / "turned.fchk", positions=cf.POSITIONS @ TURN.T)
    cf.orca(runs / "lonely.hess")
    command = CliRunner()
    out = tmp_path / "labels.aselmdb"
    result = command.invoke(app, ["convert", str(runs), str(out)])
    assert result.exit_code == 1, result.output
    (atoms,) = read_dataset(out)
    same_water(atoms, 2e-6)
    summary = json.loads((tmp_path / "labels.summary.json").read_text())
    assert [entry["index"] for entry in summary["bad"]] == [1, 2]
    assert "no energy and no gradient" in summary["bad"][0]["reason"]
    assert "a rotation of the molecule contradicts" in summary["bad"][1]["reason"]
    result = command.invoke(app, ["check", str(runs), "--out", str(tmp_path / "checked")])
    assert result.exit_code == 1, result.output
    rows = (tmp_path / "checked" / "labels.csv").read_text().splitlines()
    assert len(rows) == 4
    result = command.invoke(app, ["check", str(runs / "good.fchk")])
    assert result.exit_code == 0, result.output
