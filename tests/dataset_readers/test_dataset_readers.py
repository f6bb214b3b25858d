"""Transition1x, RGD1, Hessian-QM9, DeePMD and phonopy files of our own making, whole and damaged."""

import bz2

import numpy as np
import pytest
from ase.build import molecule
from ase.io import write
from ase.units import Hartree

from hint_plugins.datasets.reading import detect_format, read_dataset
from hint_plugins.datasets.record import RecordError, square_hessian
from hint_plugins.storage.store import StoreError

RNG = np.random.default_rng(0)


def collect(path, **options):
    found = []
    frames = list(read_dataset(path, bad=lambda i, r: found.append((i, r)), **options))
    return frames, found


def symmetric(n, seed=0):
    h = np.random.default_rng(seed).normal(size=(3 * n, 3 * n))
    return h + h.T


# --- HDF5 -------------------------------------------------------------------------------------------------


@pytest.fixture
def t1x(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "Transition1x.h5"

    def fill(group, count):
        group["atomic_numbers"] = np.array([6, 1, 7])
        group["positions"] = RNG.normal(size=(count, 3, 3))
        group["wB97x_6-31G(d).energy"] = RNG.normal(size=count)
        group["wB97x_6-31G(d).forces"] = RNG.normal(size=(count, 3, 3))

    with h5py.File(path, "w") as file:
        for name in ("rxn0001", "rxn0002"):
            group = file.create_group(f"data/CHN/{name}")
            fill(group, 4)
            for part in ("reactant", "transition_state", "product"):
                fill(group.create_group(part), 1)
        file["train/CHN/rxn0002"] = h5py.SoftLink("/data/CHN/rxn0002")
        file["data/CHN/broken"] = h5py.SoftLink("/nowhere")
    return path


def test_transition1x(t1x):
    import h5py

    frames, found = collect(t1x)
    assert len(frames) == 14
    assert "broken" in found[0][1]
    assert [a.info["role"] for a in frames[:7]] == ["reactant", "ts", "product", *["path"] * 4]
    with h5py.File(t1x) as file:
        group = file["data/CHN/rxn0001"]
        np.testing.assert_array_equal(frames[3].positions, group["positions"][0])
        np.testing.assert_array_equal(frames[4].arrays["REF_forces"], group["wB97x_6-31G(d).forces"][1])
        assert frames[5].info["REF_energy"] == group["wB97x_6-31G(d).energy"][2]
    assert len(collect(t1x, split="train")[0]) == 7
    assert len(collect(t1x, final=True)[0]) == 6


def test_transition1x_bad_records(t1x):
    import h5py

    with h5py.File(t1x, "a") as file:
        group = file["data/CHN/rxn0001"]
        group["positions"][2, 1, 1] = np.nan
        del group["reactant/wB97x_6-31G(d).forces"]
    frames, found = collect(t1x)
    assert len(frames) == 12
    assert any("image 2" in r and "not finite" in r for _, r in found)
    assert any("rxn0001 (reactant): no data set 'wB97x_6-31G(d).forces'" in r for _, r in found)


def test_transition1x_of_another_layout(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["data/CHN/rxn0001/coordinates"] = RNG.normal(size=(4, 3, 3))
        file["data/flat"] = RNG.normal(size=3)
    with pytest.raises(StoreError, match=r"no data set 'atomic_numbers': not the layout of Transition1x"):
        list(read_dataset(path, "transition1x"))
    with h5py.File(path, "a") as file:
        del file["data/CHN"]
    with pytest.raises(StoreError, match="/data/flat is no group: another layout than expected"):
        list(read_dataset(path, "transition1x"))


def test_truncated_hdf5(t1x):
    t1x.write_bytes(t1x.read_bytes()[:3000])
    with pytest.raises(StoreError, match="cut short"):
        list(read_dataset(t1x, "transition1x"))


def test_rgd1(tmp_path, capsys):
    """R_E and P_E belong to other geometries than RG and PG: only transition states have an energy."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "RGD1_CHNO.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("MR_1_0")
        group["elements"] = [8, 1, 1]
        for k, part in enumerate(["R", "P", "TS"]):
            group[f"{part}G"] = RNG.normal(size=(3, 3))
            group[f"{part}_E"] = -76.0 - k
        file.create_group("other")
    frames, found = collect(path)
    assert [a.info["role"] for a in frames] == ["reactant", "ts", "product"]
    assert frames[1].info["REF_energy"] == pytest.approx(-78.0 * Hartree)
    assert all("REF_energy" not in frames[k].info for k in (0, 2))
    assert "separately optimised" in capsys.readouterr().err
    assert "REF_forces" not in frames[0].arrays
    assert len(found) == 3
    assert "not the layout of RGD1_CHNO.h5" in found[0][1]


@pytest.mark.parametrize("name", ["rgd1", "transition1x"])
def test_hdf5_that_announces_too_much_or_nothing(tmp_path, name):
    """An array that is announced but never written costs the file nothing and the memory all."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "bomb.h5"
    keys = {"rgd1": ("elements", "TSG", "TS_E", "RG", "PG")}.get(
        name, ("atomic_numbers", "positions", "wB97x_6-31G(d).energy", "wB97x_6-31G(d).forces")
    )
    with h5py.File(path, "w") as file:
        group = file.create_group("MR_1_0" if name == "rgd1" else "data/CHN/rxn0001")
        for key in keys:
            group.create_dataset(key, shape=(10**12,), dtype="f8", chunks=(1000,))
    frames, found = collect(path, format=name)
    assert not frames
    assert found
    assert all("announces 1000000000000 numbers" in reason for _, reason in found)
    with h5py.File(path, "w") as file:
        file.create_group("data") if name == "transition1x" else None
    with pytest.raises(StoreError, match="no reactions"):
        list(read_dataset(path, name))


# --- Hessian-QM9 ------------------------------------------------------------------------------------------


def qm9_rows():
    rows = []
    for k, name in enumerate(("H2O", "CH4", "HCN")):
        atoms = molecule(name)
        n = len(atoms)
        rows.append(
            {
                "atomic_numbers": atoms.numbers.tolist(),
                "positions": atoms.positions.tolist(),
                "energy": -1.0 * k,
                "forces": np.zeros((n, 3)).tolist(),
                "hessian": symmetric(n, k).reshape(n, 3, n, 3).tolist(),
                "label": f"molecule {k}",
            }
        )
    return rows


@pytest.fixture
def qm9(tmp_path):
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("pyarrow")
    path = tmp_path / "hessian_qm9_DatasetDict"
    split = datasets.Dataset.from_list(qm9_rows())
    datasets.DatasetDict({"vacuum": split, "water": split}).save_to_disk(str(path))
    return path


def test_hessian_qm9(qm9):
    frames, found = collect(qm9)
    assert not found
    for atoms, row in zip(frames, qm9_rows(), strict=True):
        n = len(atoms)
        np.testing.assert_allclose(atoms.positions, row["positions"])
        np.testing.assert_allclose(atoms.info["REF_hessian"], np.reshape(row["hessian"], 9 * n * n), rtol=1e-14)
    assert len(collect(qm9, split="water")[0]) == 3


def test_hessian_qm9_damaged(qm9):
    (file,) = (qm9 / "vacuum").glob("*.arrow")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    _, found = collect(qm9)
    assert "damaged or cut short" in found[-1][1]


def test_hessian_qm9_of_another_layout(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{("species" if k == "atomic_numbers" else k): v for k, v in row.items()} for row in qm9_rows()]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "renamed"))
    with pytest.raises(StoreError, match="no column 'atomic_numbers': not Hessian-QM9"):
        list(read_dataset(tmp_path / "renamed"))
    rows = [row | {"hessian": np.reshape(row["hessian"], -1).tolist()[:-1]} for row in qm9_rows()]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "short"))
    frames, found = collect(tmp_path / "short")
    assert not frames
    assert all("9N^2" in reason for _, reason in found)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match=r"no \*\.arrow files"):
        list(read_dataset(tmp_path / "empty", "hessian-qm9"))


@pytest.mark.parametrize("n", [2, 3, 4])
def test_both_axis_orders(n):
    full = symmetric(n)
    blocks = full.reshape(n, 3, n, 3)
    np.testing.assert_array_equal(square_hessian(blocks, n), full)
    np.testing.assert_array_equal(square_hessian(blocks.transpose(0, 2, 1, 3), n), full)
    np.testing.assert_array_equal(square_hessian(full.ravel(), n), full)
    with pytest.raises(RecordError, match="9N\\^2"):
        square_hessian(full[:-1], n)


# --- DeePMD -----------------------------------------------------------------------------------------------


@pytest.fixture
def deepmd(tmp_path):
    system = tmp_path / "water"
    (system / "set.000").mkdir(parents=True)
    (system / "type.raw").write_text("0\n1\n1\n")
    (system / "type_map.raw").write_text("O H\n")
    arrays = {
        "coord": RNG.normal(size=(2, 9)),
        "energy": np.array([-1.0, -2.0]),
        "force": RNG.normal(size=(2, 9)),
        "box": np.tile(10 * np.eye(3).ravel(), (2, 1)),
        "virial": RNG.normal(size=(2, 9)),
        "hessian": np.stack([symmetric(3, k).ravel() for k in range(2)]),
    }
    for name, array in arrays.items():
        np.save(system / "set.000" / f"{name}.npy", array)
    return system, arrays


def test_deepmd(deepmd):
    system, arrays = deepmd
    frames, found = collect(system)
    assert not found
    for k, atoms in enumerate(frames):
        assert atoms.get_chemical_formula() == "H2O"
        assert atoms.pbc.all()
        np.testing.assert_array_equal(atoms.info["REF_hessian"], arrays["hessian"][k])
        np.testing.assert_array_equal(atoms.arrays["REF_forces"].ravel(), arrays["force"][k])
        assert atoms.info["REF_stress"][0] == pytest.approx(-arrays["virial"][k, 0] / 1000)
        assert atoms.info["REF_stress"][3] == pytest.approx(-arrays["virial"][k, 5] / 1000)
    (system / "nopbc").touch()
    assert not next(read_dataset(system)).pbc.any()


def test_deepmd_damaged(deepmd):
    system, arrays = deepmd
    file = system / "set.000" / "force.npy"
    file.write_bytes(file.read_bytes()[:150])
    with pytest.raises(StoreError, match=r"force.npy: not a numpy file, or cut short"):
        list(read_dataset(system))
    np.save(file, arrays["force"][:1])
    with pytest.raises(StoreError, match=r"1 frames, coord\.npy 2"):
        list(read_dataset(system))
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match="not a numpy file"):
        list(read_dataset(system))
    (system / "type_map.raw").write_text("O Q")
    with pytest.raises(StoreError, match="'Q' is no element"):
        list(read_dataset(system))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("type.raw", "0\n1\n-1\n", "type -1, but type_map.raw has the types 0 to 1"),
        ("type.raw", "0\n1\n2\n", "type 2, but type_map.raw has the types 0 to 1"),
        ("type.raw", "", "no atoms"),
        ("type.raw", "0 1 one", "one"),
        ("set.000/coord.npy", np.float64(1.0), "one entry a frame"),
        ("set.000/energy.npy", np.float64(1.0), "one entry a frame"),
        ("set.000/energy.npy", np.array(["a", "b"]), "real numbers"),
        ("set.000/force.npy", np.ones((2, 9), complex), "real numbers"),
        ("set.000/coord.npy", np.empty((0, 9)), "no frames"),
        ("set.000/energy.npy", b"", "not a numpy file, or cut short"),
    ],
)
def test_deepmd_damaged_systems_do_not_stop_the_others(deepmd, tmp_path, file, content, message):
    import shutil

    system, _ = deepmd
    shutil.copytree(system, tmp_path / "whole")
    path = system / file
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    frames, found = collect(tmp_path, format="deepmd")
    assert len(frames) == 2
    assert len(found) == 1
    assert message in found[0][1]


def test_deepmd_a_size_that_the_file_does_not_have(deepmd):
    """The header of an array announces 10^13 numbers."""
    system, _ = deepmd
    path = system / "set.000" / "hessian.npy"
    path.write_bytes(path.read_bytes().replace(b"(2, 81)", b"(%d, 81)" % 10**13, 1))
    frames, found = collect(system)
    assert not frames
    assert len(found) == 1


def test_deepmd_labels_links_and_isotopes(deepmd, tmp_path):
    system, _ = deepmd
    (system / "type_map.raw").write_text("O_w D\n")
    store = tmp_path / "elsewhere"
    store.mkdir()
    system.rename(store / "water")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "linked").symlink_to(store)
    (folder / "again").symlink_to(folder)
    frames, found = collect(folder, format="deepmd")
    assert not found
    assert [a.get_chemical_formula() for a in frames] == ["H2O", "H2O"]
    np.testing.assert_allclose(frames[0].get_masses(), [15.999, 2.0141, 2.0141], atol=1e-3)
    (folder / "type.raw").symlink_to(folder / "type.raw")
    frames, found = collect(folder, format="deepmd")
    assert len(frames) == 2
    assert len(found) == 1


def test_deepmd_of_another_layout(deepmd, tmp_path):
    system, _ = deepmd
    types = system / "set.000" / "real_atom_types.npy"
    np.save(types, np.zeros((2, 3), dtype=int))
    with pytest.raises(StoreError, match=r"mixed-type systems .* convert with dpdata first"):
        list(read_dataset(system))
    types.unlink()
    (system / "set.000" / "box.npy").unlink()
    with pytest.raises(StoreError, match=r"no box\.npy and no file nopbc"):
        list(read_dataset(system))
    (system / "nopbc").touch()
    np.save(system / "set.000" / "hessian.npy", np.zeros((2, 27)))
    frames, found = collect(system)
    assert not frames
    assert all("hessian has 27 numbers where 81" in reason for _, reason in found)
    (system / "set.000" / "coord.npy").unlink()
    with pytest.raises(StoreError, match=r"no coord\.npy"):
        list(read_dataset(system))
    (system / "type_map.raw").unlink()
    with pytest.raises(StoreError, match=r"no type_map\.raw: the elements are unknown"):
        list(read_dataset(system))


# --- phonopy ----------------------------------------------------------------------------------------------


@pytest.fixture
def phonopy_file(tmp_path):
    pytest.importorskip("phonopy")
    from ase.build import bulk
    from ase.calculators.emt import EMT
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    copper = bulk("Cu", cubic=True)
    phonon = Phonopy(
        PhonopyAtoms(symbols=copper.get_chemical_symbols(), cell=copper.cell, positions=copper.positions),
        2 * np.eye(3),
        primitive_matrix="P",
    )
    phonon.generate_displacements(distance=0.01)
    from ase import Atoms

    forces = []
    for cell in phonon.supercells_with_displacements:
        atoms = Atoms(cell.symbols, cell.positions, cell=cell.cell, pbc=True, calculator=EMT())
        forces.append(atoms.get_forces())
    phonon.forces = forces
    path = tmp_path / "phonopy_params.yaml"
    phonon.save(path, settings={"force_sets": True, "displacements": True})
    return path


def test_phonopy_force_constants_are_the_hessian(phonopy_file):
    from ase.calculators.emt import EMT

    frames, found = collect(phonopy_file)
    assert not found
    assert [a.info["role"] for a in frames] == ["supercell", "displaced"]
    supercell, displaced = frames
    n = len(supercell)
    assert n == 32
    hessian = supercell.info["REF_hessian"].reshape(3 * n, 3 * n)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-8)
    atoms = supercell.copy()
    atoms.calc = EMT()
    h = 1e-3
    column = np.zeros((n, 3))
    for sign in (1, -1):
        atoms.positions = supercell.positions.copy()
        atoms.positions[0, 1] += sign * h
        column -= sign * atoms.get_forces() / (2 * h)
    np.testing.assert_allclose(hessian[:, 1], column.ravel(), atol=0.02 * np.abs(column).max())
    atoms.positions = displaced.positions
    np.testing.assert_allclose(displaced.arrays["REF_forces"], atoms.get_forces(), atol=1e-6)


def test_phonopy_packed_and_damaged(phonopy_file, tmp_path):
    folder = tmp_path / "mdr"
    folder.mkdir()
    packed = bz2.compress(phonopy_file.read_bytes())
    (folder / "a.yaml.bz2").write_bytes(packed)
    (folder / "b.yaml.bz2").write_bytes(packed[:-100])
    (folder / "c.yaml").write_text("just: [broken")
    frames, found = collect(folder)
    assert len(frames) == 2
    assert [i for i, _ in found] == [1, 2]
    assert "damaged or cut short" in found[0][1]
    assert "phonopy cannot read it" in found[1][1]


def test_phonopy_without_forces(phonopy_file, tmp_path):
    import phonopy

    phonon = phonopy.load(phonopy_file, produce_fc=False, log_level=0)
    phonon.dataset = None
    phonon.generate_displacements(distance=0.01)
    path = tmp_path / "phonopy_disp.yaml"
    phonon.save(path, settings={"force_sets": False, "displacements": True})
    frames, found = collect(path)
    assert not frames
    assert "neither force constants nor displacements with forces" in found[0][1]


# --- the front door ---------------------------------------------------------------------------------------


def test_formats_are_detected(t1x, qm9, deepmd, phonopy_file):
    assert detect_format(t1x) == "transition1x"
    assert detect_format(qm9) == "hessian-qm9"
    assert detect_format(deepmd[0]) == "deepmd"
    assert detect_format(phonopy_file) == "phonopy"


def test_results_of_a_command_are_named_by_file(tmp_path, phonopy_file):
    """The options beside a result are YAML, but no file of phonopy."""
    results = tmp_path / "results"
    results.mkdir()
    (results / "config.yaml").write_text("command: displace\n")
    (results / "out.config.yaml").write_text("command: label\n")
    with pytest.raises(StoreError, match="cannot tell the format"):
        detect_format(results)
    write(results / "structures.xyz", molecule("H2O"))
    with pytest.raises(StoreError, match=r"is a directory: give one of the files in it, structures\.xyz"):
        detect_format(results)
    (results / "phonopy.yaml").write_bytes(phonopy_file.read_bytes())
    assert detect_format(results) == "phonopy"
    found, bad = collect(results)
    assert found
    assert not bad


def test_wrong_requests(tmp_path, t1x):
    with pytest.raises(StoreError, match="no such file"):
        read_dataset(tmp_path / "nothing")
    with pytest.raises(StoreError, match="unknown format 'x'"):
        read_dataset(t1x, "x")
    with pytest.raises(StoreError, match="no group 'all'"):
        list(read_dataset(t1x, split="all"))
    with pytest.raises(StoreError, match="unexpected keyword"):
        list(read_dataset(t1x, colour="red"))
    (tmp_path / "a.txt").touch()
    with pytest.raises(StoreError, match="cannot tell the format"):
        read_dataset(tmp_path / "a.txt")
