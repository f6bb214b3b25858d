"""Files of quantum-chemistry codes, written in the layouts of the codes, for one water molecule that is not at rest.

Energy, gradient and Hessian are HF/STO-3G of PySCF 2.14 (converged to 1e-13 Ha), in Hartree and bohr. In the ten
decimals given here they keep the identity ``H t = -(e x F)`` of rotations to 5e-7 eV/A^2.
"""

from __future__ import annotations

import numpy as np
from ase.units import Bohr, _amu, _me

SYMBOLS, NUMBERS = ["O", "H", "H"], [8, 1, 1]
POSITIONS = np.array([[0.02, -0.01, 0.12], [0.76, 0.05, -0.47], [-0.80, -0.06, -0.49]])  #: A
ENERGY = -74.96134507371913
GRADIENT = np.array(
    [
        [0.0776629785, 0.0058703354, -0.0292143304],
        [-0.0353912933, -0.0030920310, 0.0452707336],
        [-0.0422716852, -0.0027783044, -0.0160564032],
    ]
)
_TRIANGLE = """
    0.8694735934 0.0654484188 -0.0217826844 -0.1616783839 -0.0197995826 0.6151059508 -0.5061094512 -0.0426490323
    0.3084942007 0.5314166570 -0.0442131481 0.0368848110 0.0269782696 0.0447171785 -0.0296574216 0.4283926511
    0.0354527003 -0.3562457269 -0.3686025107 -0.0308960627 0.3380389092 -0.3633641422 -0.0227993865 -0.1468158168
    -0.0253072058 -0.0005040304 -0.0597901404 0.3886713480 -0.0212352707 -0.0151021266 -0.0071786870 -0.0020681462
    -0.0072273894 -0.0045566376 0.0233034170 0.0223295160 -0.2667142671 -0.0156531177 -0.2588602240 0.0601083100
    0.0039177931 0.0182068176 0.2066059571 0.0117353246 0.2406534063"""
TRIANGLE = np.array(_TRIANGLE.split(), dtype=float)
MASSES = np.array([15.99491462, 1.00782504, 1.00782504])


def full() -> np.ndarray:
    """(9, 9) Hessian."""
    matrix = np.zeros((9, 9))
    matrix[np.tril_indices(9)] = TRIANGLE
    return matrix + np.tril(matrix, -1).T


def projected(weights: np.ndarray) -> np.ndarray:
    """The Hessian without translations and rotations, as a code with these weights (masses, or ones) writes it."""
    x = POSITIONS / Bohr - weights @ POSITIONS / Bohr / weights.sum()
    rigid = np.array([*(np.tile(e, 3) for e in np.eye(3)), *(np.cross(e, x).ravel() for e in np.eye(3))]).T
    w = np.repeat(weights, 3)
    away = np.eye(9) - rigid @ np.linalg.solve((rigid.T * w) @ rigid, rigid.T * w)
    return away.T @ full() @ away


def rows(values, each: int, form: str) -> str:
    """Numbers, ``each`` a line."""
    values = [form % value for value in np.ravel(values)]
    return "".join("".join(values[k : k + each]) + "\n" for k in range(0, len(values), each))


def blocks(matrix: np.ndarray, each: int, form: str, first: int = 1, label: str = "%5d", head: str = "%12d") -> str:
    """A matrix in blocks of columns under their numbers."""
    text = ""
    for start in range(0, matrix.shape[1], each):
        part = matrix[:, start : start + each]
        text += "     " + "".join(head % (first + start + k) for k in range(part.shape[1])) + "\n"
        text += "".join(label % (first + k) + "".join(form % x for x in row) + "\n" for k, row in enumerate(part))
    return text


def fchk(path, job="Freq", status=1, extra="", triangle=TRIANGLE, positions=POSITIONS):
    def array(name, values, kind="R"):
        form, each = ("%16.8E", 5) if kind == "R" else ("%12d", 6)
        return f"{name:<40}   {kind}   N={len(np.ravel(values)):12d}\n" + rows(values, each, form)

    text = "water\n" + f"{job:<10}{'RHF':<30}{'STO-3G':<30}\n"
    for name, value in (("Number of atoms", 3), ("Charge", 0), ("Multiplicity", 1)):
        text += f"{name:<40}   I     {value:12d}\n"
    text += array("Atomic numbers", NUMBERS, "I") + array("Current cartesian coordinates", positions / Bohr)
    text += array("Real atomic weights", MASSES) + array("Shell types", [0, -1, 0, 0], "I")
    text += f"{'Total Energy':<40}   R     {ENERGY:22.15E}\n{'Job Status':<40}   I     {status:12d}\n"
    text += f"{'Gaussian Version':<40}   C   N={2:12d}\nES64L-G16RevA.03        \n" + extra
    text += array("Cartesian Gradient", GRADIENT) + array("Cartesian Force Constants", triangle)
    path.write_text(text)
    return path


def archive(
    job="Freq", method="RHF", energies=None, geometry=None, positions=POSITIONS, separator="\\", gradient=GRADIENT
):
    """An archive as it stands at the end of each job of Gaussian, wrapped at 70 characters."""

    def listed(values, digits=8):
        return ",".join(f"{x:.{digits}f}" for x in values)

    atoms = geometry or "\\".join(f"{symbol},{listed(row, 10)}" for symbol, row in zip(SYMBOLS, positions, strict=True))
    results = f"Version=ES64L-G16RevA.03\\State=1-A\\{energies or f'HF={ENERGY:.10f}'}\\RMSD=1.0e-09\\PG=C01 [X(H2O1)]"
    text = f"1\\1\\GINC-NODE\\{job}\\{method}\\STO-3G\\H2O1\\USER\\01-Jan-2026\\0\\\\"
    text += f"#P {method}/STO-3G\\\\water\\\\0,1\\{atoms}\\\\"
    text += results + (f"\\NImag=0\\\\{listed(TRIANGLE)}\\\\" if job != "SP" else "\\\\")
    text += listed(gradient.ravel()) + "\\\\\\@"
    text = text.replace("\\", separator)
    return "".join(f" {text[k : k + 70]}\n" for k in range(0, len(text), 70)) + "\n"


def gaussian_log(path, *archives):
    head = " Entering Gaussian System, Link 0=g16\n"
    end = " Normal termination of Gaussian 16 at Thu Jan  1 00:00:00 2026.\n"
    path.write_text(head + " Frequencies --   1700.0\n" + end.join(archives or (archive(),)) + end)
    return path


def orca(path, cut=None, jobs=None, left_out=()):
    matrix = full()
    for k in left_out:
        matrix[3 * k : 3 * k + 3] = matrix[:, 3 * k : 3 * k + 3] = 0.0
    text = "\n$orca_hessian_file\n\n$act_atom\n  0\n\n$multiplicity\n  1\n\n$hessian\n9\n"
    text += blocks(matrix, 5, " %18.10E", 0, "%5d    ", "%19d")
    text += "\n#\n# The atoms: label  mass x y z (in bohrs)\n#\n$atoms\n3\n"
    for symbol, mass, row in zip(SYMBOLS, MASSES, POSITIONS / Bohr, strict=True):
        text += f" {symbol:<4}{mass:10.5f}" + "".join(f"{x:19.12f}" for x in row) + "\n"
    if jobs is not None:
        text += "\n$job_list\n9\n" + "".join(f"  {k} {done} {done} {done}\n" for k, done in enumerate(jobs))
    path.write_text((text + "\n$end\n")[:cut])
    return path


def engrad(path, positions=POSITIONS):
    text = (
        "#\n# Number of atoms\n#\n 3\n#\n# The current total energy in Eh\n#\n" + f"  {ENERGY:.12f}\n#\n# gradient\n#\n"
    )
    text += rows(GRADIENT, 1, "  %18.12f") + "#\n# The atomic numbers and current coordinates in Bohr\n#\n"
    for number, row in zip(NUMBERS, positions / Bohr, strict=True):
        text += f" {number:3d} " + " ".join(f"{x:12.7f}" for x in row) + "\n"
    path.write_text(text)
    return path


def orca_output(path, positions=POSITIONS, end="ORCA TERMINATED NORMALLY"):
    text = "* O   R   C   A *\n   Program Version 5.0.4 -  RELEASE  -\n|  1> ! HF STO-3G EnGrad Freq\n"
    text += " Total Charge           Charge          ....    0\n Multiplicity           Mult            ....    1\n"
    text += "CARTESIAN COORDINATES (A.U.)\n----\n  NO LB      ZA    FRAG     MASS         X           Y           Z\n"
    for k, row in enumerate(positions / Bohr):
        text += (
            f"   {k} {SYMBOLS[k]:<2} {NUMBERS[k]:9.4f}    0 {MASSES[k]:9.3f}"
            + "".join(f"{x:12.6f}" for x in row)
            + "\n"
        )
    text += f"\nFINAL SINGLE POINT ENERGY {ENERGY:22.12f}\n\nCARTESIAN GRADIENT\n------------------\n\n"
    for k, row in enumerate(GRADIENT):
        text += f"   {k + 1}   {SYMBOLS[k]:<2}  :" + "".join(f"{x:15.9f}" for x in row) + "\n"
    path.write_text(text + f"\n        ****{end}****\n")
    return path


def grad_file(path, positions=POSITIONS):
    text = f"$grad\n  cycle =      1    SCF energy = {ENERGY:18.11f}   |dE/dxyz| =  0.1\n"
    for symbol, row in zip(SYMBOLS, positions / Bohr, strict=True):
        text += "".join(f"{x:22.14f}" for x in row) + f"      {symbol.lower()}\n"
    path.write_text(text + rows(GRADIENT, 3, "%22.13E").replace("E", "D") + "$end\n")
    return path


def xtb(directory, positions=POSITIONS):
    hessian = directory / "hessian"
    hessian.write_text("$hessian      \n" + "".join(rows(row, 5, "%15.10f") for row in projected(np.ones(3))))
    grad_file(directory / "gradient", positions)
    (directory / "xtb.out").write_text(
        "|  x T B  |\n * xtb version 6.5.1 (bf8695d)\n program call : xtb mol.xyz --hess --uhf 0\n"
        " :  Hamiltonian                  GFN2-xTB          :\n :: total charge               0.000000000000 e ::\n"
        " * finished run on\n"
    )
    return hessian


def turbomole(directory, plain=False):
    coordinates = "".join(
        "".join(f"{x:22.14f}" for x in row) + f"      {symbol.lower()}\n"
        for symbol, row in zip(SYMBOLS, POSITIONS / Bohr, strict=True)
    )
    (directory / "coord").write_text(f"$coord\n{coordinates}$user-defined bonds\n$end\n")
    matrix = full() if plain else projected(np.array([15.999, 1.008, 1.008]))
    name = "nprhessian" if plain else "hessian (projected)"
    lines = "".join(
        f"{row + 1:3d}{k // 5 + 1:3d}" + "".join(f"{x:15.10f}" for x in matrix[row, k : k + 5]) + "\n"
        for row in range(9)
        for k in range(0, 9, 5)
    )
    file = name.split()[0]
    (directory / file).write_text(f"${name}\n{lines}$end\n")
    grad_file(directory / "gradient")
    (directory / "control").write_text(
        "$title\n$symmetry c1\n$coord    file=coord\n"
        "$atoms\no  1 \\\n   basis =o STO-3G\nh  2-3 \\\n   basis =h STO-3G\n"
        f"$energy    file=energy\n$grad    file=gradient\n${name}    file={file}\n$end\n"
    )
    return directory / "control"


def psi4(path, positions=POSITIONS, hessian=True):
    text = "    Psi4: An Open-Source Ab Initio Electronic Structure Package\n              Psi4 1.7 release\n"
    text += "    Geometry (in Angstrom), charge = 0, multiplicity = 1:\n\n"
    text += "       Center    X    Y    Z   Mass\n    ----- ----- -----\n"
    for symbol, mass, row in zip(SYMBOLS, MASSES, positions, strict=True):
        text += f"         {symbol}    " + "".join(f"{x:19.12f}" for x in row) + f"{mass:19.12f}\n"
    text += f"\n    Name: STO-3G\n  @RHF Final Energy: {ENERGY:20.14f}\n\n"
    text += "  -Total Gradient:\n     Atom   X   Y   Z\n    ----- -----\n"
    for k, row in enumerate(GRADIENT):
        text += f"    {k + 1:4d}  " + "".join(f"{x:19.12f}" for x in row) + "\n"
    if hessian:
        table = "\n".join(
            f"{line}\n" if line.split()[1:2] == ["2"] else line for line in blocks(full(), 5, "%20.14f").split("\n")
        )
        text += f"\n  ## Total Hessian (Symmetry 0) ##\n  Irrep: 1 Size: 9 x 9\n\n{table}"
    path.write_text(text + "\n*** Psi4 exiting successfully. Buy a developer a beer!\n")
    return path


def qchem(path, parts=(("freq", POSITIONS, ENERGY),), end="Thank you very much for using Q-Chem"):
    """Jobs (``freq`` prints a Hessian, ``force`` a gradient), each with its geometry and energy."""
    text = "                  Welcome to Q-Chem\n Q-Chem 5.1.2 for Intel X86 EM64T Linux\n$molecule\n 0 1\n O\n$end\n"
    for job, positions, energy in parts:
        text += f"$rem\n jobtype = {job}\n method = hf\n basis = sto-3g\n$end\n"
        text += "             Standard Nuclear Orientation (Angstroms)\n    I     Atom    X    Y    Z\n -----\n"
        for k, row in enumerate(positions):
            text += f"{k + 1:5d}      {SYMBOLS[k]:<2}" + "".join(f"{x:17.10f}" for x in row) + "\n"
        text += f" -----\n Total energy in the final basis set = {energy:19.10f}\n"
        if job == "freq":
            text += " Hessian of the SCF Energy\n" + blocks(full(), 6, "%12.7f") + " Gradient time:  CPU 0.27 s\n"
        else:
            text += " Gradient of SCF Energy\n" + blocks(GRADIENT.T, 6, "%12.7f") + " Max gradient component = 1\n"
    path.write_text(text + f"\n        *  {end}.  Have a nice day.  *\n")
    return path


def nwchem(path, hess=1.0, gradient_positions=POSITIONS):
    text = "             Northwest Computational Chemistry Package (NWChem) 7.0.2\n"
    text += f"         Total SCF energy = {ENERGY:19.12f}\n\n                         RHF ENERGY GRADIENTS\n\n"
    text += (
        "    atom               coordinates                        gradient\n                 x   y   z   x   y   z\n"
    )
    for k, (x, g) in enumerate(zip(gradient_positions / Bohr, GRADIENT, strict=True)):
        text += (
            f"   {k + 1} {SYMBOLS[k]:<2} "
            + "".join(f"{v:11.6f}" for v in x)
            + " "
            + "".join(f"{v:11.6f}" for v in g)
            + "\n"
        )
    text += f"\n         Total SCF energy = {ENERGY:19.12f}\n"
    text += " ---------------------------- Atom information ----------------------------\n"
    text += "     atom    #   X   Y   Z   mass\n ----\n"
    for k, row in enumerate(POSITIONS / Bohr):
        values = "".join(f"{v:15.7E}" for v in [*row, MASSES[k]]).replace("E", "D")
        text += f"    {SYMBOLS[k]:<2}   {k + 1:4d}{values}\n"
    text += " ----\n\n          MASS-WEIGHTED NUCLEAR HESSIAN (Hartree/Bohr/Bohr/Kamu)\n          -----\n\n\n"
    weights = np.sqrt(np.repeat(MASSES, 3) / 1000)
    matrix = full() / np.outer(weights, weights)
    text += "         " + "".join(f"{k + 1:13d}" for k in range(9)) + "\n   ----- ----- ----- ----- -----\n"
    for k in range(9):
        text += f"{k + 1:5d}  " + "".join(f"{v:12.5E}".replace("E", "D") for v in matrix[k, : k + 1]) + "\n"
    path.write_text(text + "\n  Task  times  cpu:        0.2s     wall:        2.0s\n")
    if hess:
        path.with_suffix(".hess").write_text(rows(hess * TRIANGLE, 1, "%21.10E").replace("E", "D"))
    return path


def cp2k(directory, single=POSITIONS):
    def atoms(positions):
        text = " CP2K| version string:                    CP2K version 2023.1\n CELL| Periodicity             NONE\n"
        text += (
            " MODULE QUICKSTEP: ATOMIC COORDINATES IN ANGSTROM\n\n   Atom Kind Element   X   Y   Z   Z(eff)   Mass\n"
        )
        for k, row in enumerate(positions):
            text += f"{k + 1:7d}{min(k, 1) + 1:5d} {SYMBOLS[k]:<2}{NUMBERS[k]:6d}" + "".join(f"{x:14.6f}" for x in row)
            text += f"{6.0:9.4f}{MASSES[k]:9.4f}\n"
        return text

    weights = np.sqrt(np.repeat(np.round(MASSES, 4) * _amu / _me, 3))
    matrix = 1e6 * full() / np.outer(weights, weights)
    text = atoms(POSITIONS) + "\n VIB| Hessian in cartesian coordinates\n\n"
    for start in range(0, 9, 5):
        part = matrix[:, start : start + 5]
        text += "         " + "".join(f"{start + k + 1:13d}" for k in range(part.shape[1])) + "\n"
        text += "".join(
            f"{k + 1:6d}  {SYMBOLS[k // 3]:<4}" + "".join(f"{x:13.6f}" for x in row) + "\n"
            for k, row in enumerate(part)
        )
        text += "\n"
    output = directory / "vib.out"
    output.write_text(text + " VIB| Cartesian Low frequencies\n")
    text = (
        atoms(single)
        + f"\n ENERGY| Total FORCE_EVAL ( QS ) energy [a.u.]: {ENERGY:26.15f}\n\n ATOMIC FORCES in [a.u.]\n\n"
    )
    for k, row in enumerate(-GRADIENT):
        text += f"{k + 1:7d}{min(k, 1) + 1:7d}      {SYMBOLS[k]:<2}" + "".join(f"{x:16.8f}" for x in row) + "\n"
    (directory / "force.out").write_text(text)
    return output


#: 1 THz^2 (of frequencies, not circular ones) in eV/A^2/u, with the atomic mass unit and the electron's charge of VASP.
THZ2 = 1.6605402e-27 * 1e4 / 1.60217733e-19 * (2 * np.pi) ** 2


def vasprun(path, unit="", free=(0, 1, 2), steps=5, start=POSITIONS, ibrion=5, whole=True):
    """A box with one water molecule; energy in Hartree is taken for eV, and so on: only the layout counts here."""
    box = 10.0
    index = [3 * k + a for k in free for a in range(3)]
    weights = np.sqrt(np.repeat(np.round(MASSES, 3), 3))
    matrix = -(full() / np.outer(weights, weights))[np.ix_(index, index)] / (THZ2 if unit else 1.0)

    def varray(name, values):
        return (
            f'<varray name="{name}">'
            + "".join(f"<v>{rows(v, len(v), ' %16.8f').strip()}</v>" for v in values)
            + "</varray>"
        )

    def structure(positions, name=""):
        crystal = f'<crystal>{varray("basis", box * np.eye(3))}<i name="volume">{box**3}</i></crystal>'
        flags = "".join(f"<v>{' '.join(('T' if k in free else 'F') * 3)}</v>" for k in range(3))
        selective = f'<varray name="selective">{flags}</varray>' if len(free) < 3 else ""
        return f"<structure{name}>{crystal}{varray('positions', positions / box)}{selective}</structure>"

    energies = {"e_fr_energy": ENERGY, "e_wo_entrp": ENERGY + 0.2, "e_0_energy": ENERGY + 0.1}
    energy = "<energy>" + "".join(f'<i name="{k}">{v:.8f}</i>' for k, v in energies.items()) + "</energy>"
    text = (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<generator><i name="program" type="string">vasp </i>'
    )
    text += '<i name="version" type="string">6.3.2 </i></generator>\n'
    tags = f'<i type="int" name="IBRION">     {ibrion}</i><i name="ENMAX">    400.00000000</i>'
    tags += '<i type="int" name="NELM">    60</i><i type="string" name="GGA">PE</i>'
    text += f'<incar></incar>\n<parameters><separator name="all">{tags}</separator></parameters>\n'
    text += (
        '<kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1.0</v></varray></kpoints>\n'
    )
    text += '<atominfo><atoms>3</atoms><types>2</types><array name="atoms"><dimension dim="1">ion</dimension><set>'
    text += (
        "".join(f"<rc><c>{s} </c><c>{k}</c></rc>" for s, k in zip(SYMBOLS, (1, 2, 2), strict=True)) + "</set></array>"
    )
    text += '<array name="atomtypes"><dimension dim="1">type</dimension><set>'
    for count, symbol, mass in ((1, "O", MASSES[0]), (2, "H", MASSES[1])):
        text += (
            f"<rc><c>{count}</c><c>{symbol} </c><c>{mass:.3f}</c><c>1.0</c><c>  PAW_PBE {symbol} 01Jan2000 </c></rc>"
        )
    initial = structure(POSITIONS, ' name="initialpos"')
    text += f"</set></array></atominfo>\n{initial}\n<calculation>"
    text += f"<scstep>{energy}</scstep>" * steps + structure(start) + varray("forces", -GRADIENT)
    text += varray("stress", -2.0 * np.eye(3)) + energy
    if whole:
        named = f'<i name="unit">{unit}</i>' if unit else ""
        text += f"\n<dynmat>{named}\n   {varray('hessian', matrix)}</dynmat>"
    path.write_text(text + "</calculation>\n</modeling>\n")
    return path


def outcar(path, free=(0, 1, 2), whole=True):
    """As :func:`vasprun`."""
    head = (
        " vasp.6.3.2 27Jun22 (build Jul 01 2022) complex\n"
        + " POTCAR:    PAW_PBE O 01Jan2000\n POTCAR:    PAW_PBE H 01Jan2000\n" * 2
    )
    head += "   TITEL  = PAW_PBE O 01Jan2000\n   TITEL  = PAW_PBE H 01Jan2000\n   ISPIN  =      1    spin polarized\n"
    head += (
        "   k-points           NKPTS =      1   k-points in BZ     NKDIM =      1   number of bands    NBANDS=      8\n"
    )
    head += "   ions per type =               1   2\n   ENCUT  =  400.0 eV\n   IBRION =      5    ionic relax\n"
    head += "   GGA     =    PE    GGA type\n k-points in reciprocal lattice and weights\n   0.0 0.0 0.0   1.000\n"
    step = "--------------------------------------- Iteration      1(   1)  ---------\n"
    step += "  in kB  -20.0 -20.0 -20.0 0.0 0.0 0.0\n"
    step += "      direct lattice vectors                 reciprocal lattice vectors\n" + "".join(
        "".join(f"{x:13.9f}" for x in [*row, *row / 100]) + "\n" for row in 10 * np.eye(3)
    )
    step += " POSITION                                       TOTAL-FORCE (eV/Angst)\n ----\n"
    for x, g in zip(POSITIONS, GRADIENT, strict=True):
        step += "".join(f"{v:13.5f}" for v in x) + "   " + "".join(f"{-v:14.6f}" for v in g) + "\n"
    step += f"\n  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n ----\n  free  energy   TOTEN  = {ENERGY:18.8f} eV\n\n"
    step += f"  energy  without entropy= {ENERGY:18.8f}  energy(sigma->0) = {ENERGY + 0.1:18.8f}\n\n"
    index = [3 * k + a for k in free for a in range(3)]
    labels = [f"{k // 3 + 1}{'XYZ'[k % 3]}" for k in index]
    table = " SECOND DERIVATIVES (NOT SYMMETRIZED)\n ------\n    " + "".join(f"{x:>12}" for x in labels) + "\n"
    for label, row in zip(labels, -full()[np.ix_(index, index)], strict=True):
        table += f" {label:>3}" + "".join(f"{x:12.6f}" for x in row) + "\n"
    path.write_text(head + step + (table if whole else ""))
    return path
