"""Files of labelled structures: what goes in comes out, and a damaged file says so."""

import gzip

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, FixBondLength, FixCartesian
from hypothesis import given, settings
from hypothesis import strategies as st

from hint_plugins.labels.hessian_label import HessianLabel
from hint_plugins.storage.records import same_values
from hint_plugins.storage.store import (
    StoreError,
    UnwritableError,
    count_structures,
    read_numbered,
    read_structures,
    write_structures,
    writing,
)
from hint_plugins.structures.frozen import frozen_components

FORMATS = ["a.xyz", "a.extxyz.gz", "a.aselmdb"]


def structures():
    rng = np.random.default_rng(0)
    frames = []
    for name in ("H2O", "CH4", "H2CO"):
        atoms = molecule(name)
        n = len(atoms)
        atoms.info |= {"REF_energy": rng.normal(), "reaction": "a = b", "charge": 0, "displaced": True}
        atoms.arrays["REF_forces"] = rng.normal(size=(n, 3)).round(6)
        frames.append(atoms)
    HessianLabel.full(rng.normal(size=(9, 9))).to_info(frames[0].info)
    HessianLabel.projections(rng.normal(size=(2, 15)), rng.normal(size=(2, 15)), 5).to_info(frames[1].info)
    HessianLabel.columns([1, 4], rng.normal(size=(2, 12))).to_info(frames[2].info)
    crystal = bulk("NaCl", "rocksalt", 5.6)
    crystal.info |= {"REF_energy": -1.5, "REF_stress": rng.normal(size=6)}
    crystal.arrays["REF_forces"] = np.zeros((2, 3))
    return [*frames, crystal, molecule("HCN")]


@pytest.mark.parametrize("name", FORMATS)
def test_round_trip(tmp_path, name):
    if name.endswith("aselmdb"):
        pytest.importorskip("ase_db_backends")
    path = tmp_path / name
    frames = structures()
    assert write_structures(path, frames) == 5
    assert count_structures(path) == 5
    for old, new in zip(frames, read_structures(path), strict=True):
        assert (old.numbers == new.numbers).all()
        np.testing.assert_allclose(new.positions, old.positions, atol=1e-8)
        np.testing.assert_allclose(new.cell, old.cell, atol=1e-8)
        assert (old.pbc == new.pbc).all()
        assert set(old.info) == set(new.info)
        for key, value in old.info.items():
            np.testing.assert_array_equal(new.info[key], value)
        if "REF_forces" in old.arrays:
            np.testing.assert_allclose(new.arrays["REF_forces"], old.arrays["REF_forces"], atol=1e-8)
        else:
            assert "REF_forces" not in new.arrays
        label = HessianLabel.from_info(new.info, len(new))
        expected = HessianLabel.from_info(old.info, len(old))
        assert (label is None) == (expected is None)
        if label is not None:
            assert label.kind == expected.kind
            np.testing.assert_array_equal(label.products, expected.products)


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_any_float_survives_exactly_in_aselmdb(tmp_path_factory, seed, n):
    pytest.importorskip("ase_db_backends")
    rng = np.random.default_rng(seed)
    atoms = Atoms(rng.integers(1, 90, n), rng.normal(0, 10.0 ** rng.integers(-8, 8), (n, 3)))
    HessianLabel.full(rng.normal(0, 10.0 ** rng.integers(-12, 12), (3 * n, 3 * n))).to_info(atoms.info)
    path = tmp_path_factory.mktemp("db") / "x.aselmdb"
    write_structures(path, [atoms])
    (back,) = read_structures(path)
    np.testing.assert_array_equal(back.positions, atoms.positions)
    np.testing.assert_array_equal(back.info["REF_hessian"], atoms.info["REF_hessian"])


def test_plain_ase_labels_are_adopted(tmp_path):
    from ase.calculators.emt import EMT
    from ase.io import write

    atoms = bulk("Cu")
    atoms.rattle(0.1)
    atoms.calc = EMT()
    energy = atoms.get_potential_energy()
    atoms.get_forces()
    write(tmp_path / "a.xyz", atoms, format="extxyz")
    (back,) = read_structures(tmp_path / "a.xyz")
    assert back.calc is None
    assert back.info["REF_energy"] == pytest.approx(energy)
    assert back.arrays["REF_forces"].shape == (1, 3)


def test_many_rows_cross_transactions(tmp_path):
    pytest.importorskip("ase_db_backends")
    path = tmp_path / "many.aselmdb"
    write_structures(path, (Atoms("H", [[0, 0, i]]) for i in range(1203)))
    assert [round(a.positions[0, 2]) for a in read_structures(path)] == list(range(1203))


@pytest.mark.parametrize("name", FORMATS)
def test_an_interrupted_write_leaves_the_old_file(tmp_path, name):
    if name.endswith("aselmdb"):
        pytest.importorskip("ase_db_backends")
    path = tmp_path / name
    write_structures(path, structures())
    before = path.read_bytes()

    def interrupted():
        yield molecule("H2")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_structures(path, interrupted())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_full_disk_is_a_sentence(tmp_path, monkeypatch):
    import hint_plugins.runs.files as common

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(common.os, "replace", full)
    with pytest.raises(StoreError, match="No space left on device; the earlier file is untouched"):
        write_structures(tmp_path / "a.xyz", structures())
    assert not list(tmp_path.iterdir())


def reasons(path):
    found = []
    frames = list(read_structures(path, lambda index, reason: found.append((index, reason))))
    return frames, found


def test_truncated_xyz(tmp_path):
    path = tmp_path / "a.xyz"
    write_structures(path, structures())
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-3]))
    frames, found = reasons(path)
    assert len(frames) == 4
    assert found[0][0] == 4
    assert "truncated: 3 atoms declared, 0 there" in found[0][1]
    with pytest.raises(StoreError, match=r"a.xyz, structure 4: the file ends"):
        list(read_structures(path))


def test_one_damaged_frame_costs_one_frame(tmp_path):
    path = tmp_path / "a.xyz"
    write_structures(path, [molecule("H2O") for _ in range(3)])
    lines = path.read_text().splitlines(keepends=True)
    lines[7] = "O not a number\n"
    path.write_text("".join(lines))
    frames, found = reasons(path)
    assert len(frames) == 2
    assert [index for index, _ in found] == [1]


def test_truncated_gzip(tmp_path):
    path = tmp_path / "a.xyz.gz"
    write_structures(path, structures())
    path.write_bytes(path.read_bytes()[:-30])
    _, found = reasons(path)
    assert "damaged or truncated" in found[0][1]
    path.write_bytes(gzip.compress(b"")[:4])
    assert reasons(path)[1]


def test_truncated_aselmdb_does_not_kill_the_process(tmp_path):
    pytest.importorskip("ase_db_backends")
    path = tmp_path / "a.aselmdb"
    write_structures(path, structures())
    path.write_bytes(path.read_bytes()[:-8192])
    with pytest.raises(StoreError, match="cut short"):
        list(read_structures(path))


def test_damaged_row_in_aselmdb(tmp_path):
    pytest.importorskip("ase_db_backends")
    import lmdb

    path = tmp_path / "a.aselmdb"
    write_structures(path, structures())
    with lmdb.open(str(path), subdir=False) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"2", b"rubbish")
    frames, found = reasons(path)
    assert len(frames) == 4
    assert found[0][0] == 1
    assert "damaged record (id 2)" in found[0][1]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.cif", b"", "unknown kind of file"),
        ("missing.xyz", None, "no such file"),
        ("a.aselmdb", b"this is no database" * 500, "not an LMDB file"),
        ("a.xyz", b"H2O\n", "no number of atoms but 'H2O'"),
    ],
)
def test_wrong_files(tmp_path, name, content, reason):
    if name.endswith("aselmdb"):
        pytest.importorskip("ase_db_backends")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(StoreError, match=reason):
        list(read_structures(tmp_path / name))


@pytest.mark.mace
def test_mace_reads_our_aselmdb(tmp_path):
    pytest.importorskip("ase_db_backends")
    tools = pytest.importorskip("mace.tools.fairchem_dataset")
    path = tmp_path / "a.aselmdb"
    frames = structures()
    write_structures(path, frames)
    dataset = tools.AseDBDataset(config={"src": [str(path)]})
    read = [dataset.get_atoms(i) for i in range(len(frames))]
    for old, new in zip(frames, read, strict=True):
        np.testing.assert_allclose(new.positions, old.positions)
        if "REF_energy" in old.info:
            assert new.calc.results["energy"] == old.info["REF_energy"]
            np.testing.assert_array_equal(new.calc.results["forces"], old.arrays["REF_forces"])
        if "REF_hessian" in old.info:
            np.testing.assert_array_equal(new.info["hessian"], old.info["REF_hessian"])
    np.testing.assert_array_equal(read[1].info["hessian_probes"], frames[1].info["REF_hessian_probes"])
    np.testing.assert_allclose(read[3].calc.results["stress"], frames[3].info["REF_stress"])


texts = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.sampled_from(
        ["", " ", "two\nlines", 'a "quote"', "17", "1e5", "nan", "T", "false", "x=1", "a\\b", "{}", "[1, 2]"]
    ),
)
plain_values = st.one_of(texts, st.none(), st.booleans(), st.integers(-(2**31), 2**31), st.floats(allow_nan=False))
values = st.one_of(
    plain_values,
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=10).map(np.array),
    st.sampled_from([np.zeros((2, 3)), np.arange(9), np.array([1.5]), np.array(["a b", ""]), np.array([True, False])]),
    st.dictionaries(st.text("abc", min_size=1), plain_values, max_size=3),
    st.lists(plain_values, max_size=3),
)


@pytest.mark.parametrize("name", ["a.xyz", "a.aselmdb"])
@given(info=st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{2,8}", fullmatch=True), values, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_entry_survives(tmp_path_factory, name, info):
    """Whatever is in info comes back equal, and the labels beside it too."""
    if name.endswith("aselmdb"):
        pytest.importorskip("ase_db_backends")
    atoms = molecule("H2O")
    atoms.info = {"note": "", **info, "REF_energy": -1.5}
    atoms.arrays["REF_forces"] = np.ones((3, 3))
    path = tmp_path_factory.mktemp("info") / name
    write_structures(path, [atoms, molecule("CO")])
    back, other = read_structures(path)
    assert other.get_chemical_formula() == "CO"
    assert set(back.info) == set(atoms.info)
    for key, value in atoms.info.items():
        assert same_values(back.info[key], value), key


@pytest.mark.parametrize("name", FORMATS)
def test_what_the_next_command_needs_survives(tmp_path, name):
    if name.endswith("aselmdb"):
        pytest.importorskip("ase_db_backends")
    slab = bulk("Cu", cubic=True)
    slab.pbc = (True, True, False)
    slab.info = {
        "charge": -1,
        "spin": 2,
        "role": "ts",
        "reaction": "17",
        "symmetry_number": 3,
        "spacegroup": "F m -3 m",
    }
    slab.set_masses([63.0, 65.0, 63.0, 62.9])
    slab.set_tags([0, 1, 2, 1])
    slab.set_initial_charges([0.1, -0.1, 0.0, 0.0])
    slab.set_initial_magnetic_moments([1.0, -1.0, 0.0, 2.0])
    slab.set_momenta(np.arange(12.0).reshape(4, 3))
    slab.set_constraint([FixAtoms([0, 2]), FixCartesian(1, mask=[True, False, False]), FixBondLength(1, 3)])
    fixed = molecule("H2O")
    fixed.set_constraint(FixAtoms([1]))
    write_structures(tmp_path / name, [slab, fixed])
    back, other = read_structures(tmp_path / name)
    assert back.info == slab.info
    assert isinstance(back.info["reaction"], str)
    assert back.pbc.tolist() == [True, True, False]
    for array in ("masses", "tags", "initial_charges", "initial_magmoms", "momenta"):
        np.testing.assert_allclose(back.arrays[array], slab.arrays[array], err_msg=array)
    np.testing.assert_array_equal(frozen_components(back), frozen_components(slab))
    assert [c.todict() for c in back.constraints][-1] == FixBondLength(1, 3).todict()
    assert frozen_components(other)[:, 0].tolist() == [False, True, False]


def test_a_row_keeps_what_hosts_look_for_in_ase(tmp_path):
    """Constraints, masses and charges are the row's own, where fairchem and MACE find them, not in data."""
    backend = pytest.importorskip("ase_db_backends.aselmdb")
    atoms = molecule("H2O")
    atoms.set_constraint(FixAtoms([0]))
    atoms.set_masses([18.0, 2.0, 2.0])
    write_structures(tmp_path / "a.aselmdb", [atoms])
    row = backend.LMDBDatabase(tmp_path / "a.aselmdb", readonly=True)._get_row(1)
    assert row.constraints[0].index.tolist() == [0]
    assert row.masses.tolist() == [18.0, 2.0, 2.0]
    assert not row.data


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda a: a.info.update(REF_stress=np.arange(9.0)), "not symmetric"),
        (lambda a: a.info.update(x={1, 2}), "cannot hold"),
        (lambda a: a.info.update(x=object()), "cannot hold"),
        (lambda a: a.info.update({3: 1}), "names in info are text"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_costs_no_other(tmp_path, name, spoil, reason):
    if name.endswith("aselmdb"):
        pytest.importorskip("ase_db_backends")
    bad = molecule("CO")
    spoil(bad)
    with writing(tmp_path / name) as write:
        write(molecule("H2O"))
        with pytest.raises(UnwritableError, match=reason):
            write(bad)
        write(molecule("NH3"))
    assert [a.get_chemical_formula() for a in read_structures(tmp_path / name)] == ["H2O", "H3N"]


def test_text_of_several_words_in_a_column_is_refused_in_extxyz(tmp_path):
    atoms = molecule("CO")
    atoms.arrays["kind"] = np.array(["a b", "c"])
    with pytest.raises(UnwritableError, match="extended XYZ cannot hold"):
        write_structures(tmp_path / "a.xyz", [atoms])


def test_stress_as_a_matrix_becomes_six_numbers(tmp_path):
    crystal = bulk("Cu")
    crystal.info["REF_stress"] = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    for name in FORMATS:
        write_structures(tmp_path / name, [crystal])
        (back,) = read_structures(tmp_path / name)
        assert back.info["REF_stress"].tolist() == [1, 2, 3, 4, 5, 6]


def test_an_empty_value_does_not_swallow_the_next(tmp_path):
    """Files that ASE wrote: `note= REF_energy=-1` holds an energy."""
    for comment in (
        "note= REF_energy=-1.5",
        'note="" REF_energy=-1.5',
        "REF_energy=-1.5 note=",
        "REF_energy= -1.5 note=",
    ):
        (tmp_path / "a.xyz").write_text(f"1\n{comment}\nH 0 0 0\n")
        (back,) = read_structures(tmp_path / "a.xyz")
        assert (back.info["REF_energy"], back.info["note"]) == (-1.5, "")


def test_other_results_of_a_calculator_are_kept(tmp_path):
    (tmp_path / "a.xyz").write_text(
        '2\nProperties=species:S:1:pos:R:3:magmoms:R:1 energy=-1 REF_energy=-2 dipole="0 0 1" free_energy=-3\n'
        "C 0 0 0 0.5\nO 0 0 1.1 1.5\n"
    )
    (back,) = read_structures(tmp_path / "a.xyz")
    assert (back.info["REF_energy"], back.info["energy"], back.info["free_energy"]) == (-2, -1, -3)
    assert back.info["dipole"].tolist() == [0, 0, 1]
    assert back.arrays["magmoms"].tolist() == [0.5, 1.5]


def test_places_are_those_of_the_file(tmp_path):
    path = tmp_path / "a.xyz"
    write_structures(path, [molecule("H2O") for _ in range(4)])
    lines = path.read_text().splitlines(keepends=True)
    lines[7] = "O not a number\n"
    lines[10] = "7\n"
    path.write_text("".join(lines))
    bad = {}
    assert [index for index, _ in read_numbered(path, bad.__setitem__)] == [0, 3]
    assert "the next structure begins after 3" in bad[2]


def test_what_a_killed_run_leaves_is_never_data(tmp_path):
    pytest.importorskip("ase_db_backends")
    from hint_plugins.datasets.reading import detect_format, read_dataset
    from hint_plugins.storage.store import store_format

    frames = structures()
    write_structures(tmp_path / "train.aselmdb", frames)
    with writing(tmp_path / "other.aselmdb") as write:
        write(frames[0])
        (left,) = (p for p in tmp_path.iterdir() if p.name.startswith(".") and not p.name.endswith("-lock"))
        with pytest.raises(StoreError, match="unknown kind"):
            store_format(left)
        content = left.read_bytes()
        assert len(list(read_dataset(tmp_path))) == len(frames)
    (tmp_path / "other.aselmdb").rename(tmp_path / ".train-x1.aselmdb")  # as earlier versions left them
    assert detect_format(tmp_path) == "aselmdb"
    assert len(list(read_dataset(tmp_path))) == len(frames)
    assert content


def test_deuterium_in_a_poscar(tmp_path):
    path = tmp_path / "cell.vasp"
    path.write_text("PdDH\n4.0\n1 0 0\n0 1 0\n0 0 1\nPd D H\n1 2 1\nDirect\n0 0 0\n.5 .5 0\n.5 0 .5\n0 .5 .5\n")
    (atoms,) = read_structures(path)
    assert atoms.get_chemical_symbols() == ["Pd", "H", "H", "H"]
    np.testing.assert_allclose(atoms.get_masses(), [106.42, 2.014101778, 2.014101778, 1.008])
    assert atoms.pbc.all()


def test_deuterium_is_hydrogen_of_another_mass(tmp_path):
    """ASE knows no element D; a column of masses is what the file says and wins."""
    text = "3\nProperties=pos:R:3:species:S:1\n0 0 0 O\n0.96 0 0 D\n-0.24 0.93 0 T\n"
    plain = "2\n\nD 0 0 0\nH 0 0 0.74\n"
    massive = "1\nProperties=species:S:1:pos:R:3:masses:R:1\nD 0 0 0 2.5\n"
    (tmp_path / "a.xyz").write_text(text + plain + massive)
    water, hydrogen, own = read_structures(tmp_path / "a.xyz")
    assert water.get_chemical_symbols() == ["O", "H", "H"]
    np.testing.assert_allclose(water.get_masses(), [15.999, 2.014101778, 3.016049282])
    np.testing.assert_allclose(hydrogen.get_masses(), [2.014101778, 1.008])
    assert own.get_masses() == [2.5]
