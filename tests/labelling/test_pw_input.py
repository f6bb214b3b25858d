"""What of an input file of pw.x reaches pw.x, and what is refused."""

import numpy as np
import pytest
from ase import Atoms

from hint_plugins.labelling.engine import EngineError, EngineSpec

MAGNETIC = """! iron oxide
&CONTROL
  calculation='scf', pseudo_dir="./pseudo", restart_mode = 'restart'
/
&SYSTEM
  ibrav=0 nat=3 ntyp=3, ecutwfc=60, occupations="smearing", smearing='mv', degauss=0.01, ! a comment = with a sign
  nspin=2, starting_magnetization(1)=0.0, starting_magnetization(3)=0.6,
  Hubbard_U(3) = 4.3d0, Hubbard_J(2, 3) = 0.5, starting_ns_eigenvalue(2,1,3) = 1.0, london_c6(2) = 7
/
&ELECTRONS
  conv_thr=1d-10
/
&IONS
/
ATOMIC_SPECIES
 O   15.999 O.upf
 He_x 4.0   He.upf
 Fe1 55.845 Fe.upf
CELL_PARAMETERS angstrom
 2 0 0
 0 2 0
 0 0 2
ATOMIC_POSITIONS {crystal}
 Fe1 0 0 0
 O   1/2 1/2 1/2
 He_x 0 1/2 0 0 0 0
K_POINTS {automatic}
 4 4 4 0 0 0
HUBBARD (ortho-atomic)
 U Fe1-3d 4.3
 J0 O-2p 1.0
"""


def pw_text(tmp_path, atoms, template=MAGNETIC, **options):
    """Input file that pw.x gets for ``atoms``, as lines without spaces and in lower case."""
    (tmp_path / "pseudo").mkdir(exist_ok=True)
    for name, electrons in (("O", 6), ("Fe", 16), ("He", 2)):
        (tmp_path / "pseudo" / f"{name}.upf").write_text(f'<PP_HEADER element="{name}" z_valence="{electrons}.0E+00"/>')
    (tmp_path / "in").write_text(template)
    given = {"template": str(tmp_path / "in"), "command": "true", **options}
    text = EngineSpec("espresso", given).build().surface(atoms).text()
    return ["".join(line.split()).lower() for line in text.splitlines()]


def oxide(symbols="FeO", **info):
    return Atoms(symbols, np.arange(3 * len(Atoms(symbols))).reshape(-1, 3), cell=np.eye(3) * 12, pbc=True, info=info)


def test_a_magnetic_template_reaches_pw_in_its_own_order(tmp_path):
    lines = pw_text(tmp_path, oxide("FeOHe"))
    assert lines[lines.index("atomic_species") + 1 :][:3] == ["o15.999o.upf", "he_x4.0he.upf", "fe155.845fe.upf"]
    for line in (
        "starting_magnetization(1)=0.0", "starting_magnetization(3)=0.6", "hubbard_u(3)=4.3d0", "hubbard_j(2,3)=0.5",
        "starting_ns_eigenvalue(2,1,3)=1.0", "london_c6(2)=7", "nspin=2", 'occupations="smearing"', "smearing='mv'",
        "ntyp=3", "nat=3", "ibrav=0", "conv_thr=1d-10", "restart_mode='from_scratch'", "hubbard(ortho-atomic)",
        "ufe1-3d4.3", "j0o-2p1.0",
    ):  # fmt: skip
        assert line in lines, line
    places = lines[lines.index("atomic_positionsangstrom") + 1 :]
    assert [line.partition(".")[0] for line in places[:3]] == ["fe10", "o3", "he_x6"]
    assert "&ions" not in lines
    assert lines.index("&electrons") > lines.index("&system") > lines.index("&control")


def test_species_that_do_not_occur_leave_and_the_indices_follow(tmp_path):
    lines = pw_text(tmp_path, oxide("FeO"))
    for line in (
        "starting_magnetization(1)=0.0", "starting_magnetization(2)=0.6", "hubbard_u(2)=4.3d0", "hubbard_j(2,2)=0.5",
        "starting_ns_eigenvalue(2,1,2)=1.0", "ntyp=2",
    ):  # fmt: skip
        assert line in lines, line
    assert not any("london_c6" in line or "he_x" in line for line in lines)
    occupied = MAGNETIC.replace("nspin=2", "nspin=2, Hubbard_occ(3,1)=6.0, Hubbard_occ(2,1)=1.0")
    hubbard = [line for line in pw_text(tmp_path, oxide("FeO"), occupied) if line.startswith("hubbard_occ")]
    assert hubbard == ["hubbard_occ(2,1)=6.0"]
    alone = pw_text(tmp_path, oxide("O"))
    assert "j0o-2p1.0" in alone
    assert not any("fe1" in line or "hubbard_u" in line for line in alone)


def test_moments_of_the_structure_replace_those_of_the_template(tmp_path):
    """4 Bohr magnetons of 16 valence electrons: 0.25."""
    atoms = oxide("FeO")
    atoms.set_initial_magnetic_moments([4.0, 0.0])
    lines = pw_text(tmp_path, atoms)
    assert "starting_magnetization(1)=0" in lines
    assert "starting_magnetization(2)=0.25" in lines
    both = oxide("Fe2O")
    both.set_initial_magnetic_moments([4.0, -4.0, 0.0])
    with pytest.raises(EngineError, match=r"species Fe1 have different initial_magmoms \(-4 to 4\)"):
        pw_text(tmp_path, both)
    two = (
        MAGNETIC.replace("He_x 4.0   He.upf", "Fe2 55.845 Fe.upf")
        .replace("(1)=0.0", "(2)=-0.6")
        .replace("He_x 0", "Fe2 0")
    )
    lines = pw_text(tmp_path, both, two)
    assert "starting_magnetization(2)=-0.25" in lines
    assert "starting_magnetization(3)=0.25" in lines
    places = lines[lines.index("atomic_positionsangstrom") + 1 :]
    assert (places[0][:3], places[1][:3]) == ("fe1", "fe2")
    with pytest.raises(EngineError, match="several species of Fe"):
        pw_text(tmp_path, oxide("Fe2O"), two)
    lines = pw_text(tmp_path, oxide("FeOFe"), two)  # the order of the template's own atoms
    assert lines[lines.index("atomic_positionsangstrom") + 3].startswith("fe2")


@pytest.mark.parametrize(
    ("change", "atoms", "reason"),
    [
        (("nspin=2", "nspin=1"), "moments", "neither nspin = 2 nor noncolin"),
        (("nspin=2", "nspin=1"), oxide("FeO", spin=3), "multiplicity 3, and the template is not nspin = 2"),
        (
            ("nspin=2", "nspin=2, tot_charge=1"),
            oxide("FeO", charge=-1),
            "tot_charge = -1, and the template has 1",
        ),
        (("nspin=2", "nspin=2, tot_magnetization=4"), oxide("FeO"), "tot_magnetization belong to its own 3 atoms"),
        (("nspin=2", "nbnd=20, nspin=2"), oxide("Fe2O2"), "nbnd belong to its own 3 atoms"),
        (("U Fe1-3d 4.3", "V Fe1-3d O-2p 1 2 0.5"), oxide("FeO"), "V between numbered atoms"),
        (("nspin=2", "nspin=2, Hubbard_V(1,2,1)=0.5"), oxide("FeO"), "Hubbard_V between numbered atoms"),
        (("HUBBARD (ortho-atomic)", "CONSTRAINTS"), oxide("FeO"), "the card CONSTRAINTS"),
        (("HUBBARD (ortho-atomic)", "ATOMIC_FORCES"), oxide("FeO"), "the card ATOMIC_FORCES"),
        (("HUBBARD (ortho-atomic)", "NEW_CARD"), oxide("FeO"), "K_POINTS must be automatic or gamma"),
        ((" O   15.999 O.upf", " Xx 15.999 O.upf"), oxide("FeO"), "'Xx' is no element"),
        ((" O   15.999 O.upf", " O 15.999"), oxide("FeO"), "no row of ATOMIC_SPECIES"),
        (("Hubbard_U(3) = 4.3d0", "Hubbard_U = 0, 0, 4.3"), oxide("FeO"), "hubbard_u without an index"),
    ],
)
def test_what_cannot_be_carried_over_is_refused(tmp_path, change, atoms, reason):
    if isinstance(atoms, str):
        atoms = oxide("FeO")
        atoms.set_initial_magnetic_moments([4, 0])
    assert change[0] in MAGNETIC
    with pytest.raises(EngineError, match=reason):
        pw_text(tmp_path, atoms, MAGNETIC.replace(*change))


def test_charge_and_spin_of_the_structure_reach_pw(tmp_path):
    lines = pw_text(tmp_path, oxide("FeO", total_charge=1.0000001, multiplicity=5))
    assert "tot_charge=1" in lines
    assert "tot_magnetization=4" in lines
    assert not any(line.startswith("tot_") for line in pw_text(tmp_path, oxide("FeO", charge=0)))


def test_other_cards_are_handed_on(tmp_path):
    more = MAGNETIC + "ADDITIONAL_K_POINTS tpiba\n 1\n 0 0 0.5 0\nOCCUPATIONS\n 2 2 1\n"
    lines = pw_text(tmp_path, oxide("FeO"), more)
    place = lines.index("additional_k_pointstpiba")
    assert lines[place + 1 : place + 3] == ["1", "000.50"]
    assert lines[lines.index("occupations") + 1] == "221"
    with pytest.raises(EngineError, match="ADDITIONAL_K_POINTS belong to its own grid"):
        pw_text(tmp_path, oxide("FeO"), more, kspacing=0.3)


@pytest.mark.parametrize("pbc", [(True, True, False), False])
def test_pw_repeats_nothing_that_is_not_periodic(pbc, tmp_path):
    with pytest.raises(EngineError, match="repeats it in all three directions"):
        pw_text(tmp_path, Atoms("O", cell=[8, 8, 2], pbc=pbc))
    lines = pw_text(tmp_path, Atoms("O", cell=[8, 8, 2], pbc=pbc), vacuum=12)
    cell = lines[lines.index("cell_parametersangstrom") + 1 :][:3]
    assert cell[2] == "0.000000000000000.0000000000000012.00000000000000"
    with pytest.raises(EngineError, match="between 5 and 1000"):
        pw_text(tmp_path, oxide("O"), vacuum=1)
