"""Phonopy files: what is read from where, what the file states, what must not happen."""

import bz2
import gzip
import lzma
import re

import numpy as np
import pytest
from ase.build import bulk
from helpers.q2r import springs

from hint_plugins.datasets import phonopy_yaml as module
from hint_plugins.datasets.phonopy_file import read_phonopy_file
from hint_plugins.datasets.reading import read_dataset
from hint_plugins.datasets.record import RecordError

phonopy = pytest.importorskip("phonopy")
from phonopy import Phonopy  # noqa: E402
from phonopy.structure.atoms import PhonopyAtoms  # noqa: E402

FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
CELL = bulk("KBr", "rocksalt", a=6.6, cubic=True)
HESSIAN = springs(CELL, (1, 1, 1), 0.4, 3.4)
N = len(CELL)


def kbr(**options):
    """The conventional cell, with the primitive cell of two atoms."""
    cell = PhonopyAtoms(symbols=CELL.get_chemical_symbols(), cell=CELL.cell.array, positions=CELL.positions)
    return Phonopy(cell, np.eye(3), **{"primitive_matrix": FCC, **options})


def blocks():
    return np.ascontiguousarray(HESSIAN.reshape(N, 3, N, 3).swapaxes(1, 2))


def with_constants(path, compact=True, **options):
    phonon = kbr(**options)
    phonon.force_constants = blocks()[phonon.primitive.p2s_map] if compact else blocks()
    phonon.save(path, settings={"force_constants": True})
    return path


def with_forces(path, **settings):
    phonon = kbr()
    phonon.generate_displacements(distance=0.01)
    forces = []
    for cell in phonon.supercells_with_displacements:
        shift = cell.positions - phonon.supercell.positions
        forces.append(-(HESSIAN @ shift.ravel()).reshape(N, 3))
    phonon.forces = forces
    phonon.save(path, settings={"force_sets": True, "displacements": True, **settings})
    return path


def read_all(path):
    bad = []
    return list(read_dataset(path, bad=lambda i, r: bad.append(r))), bad


@pytest.mark.parametrize("primitive", ["P", FCC])
@pytest.mark.parametrize("compact", [True, False])
def test_compact_and_full_force_constants(tmp_path, compact, primitive):
    content = read_phonopy_file(with_constants(tmp_path / "a.yaml", compact, primitive_matrix=primitive))
    np.testing.assert_allclose(content.hessian, HESSIAN, atol=1e-10)
    np.testing.assert_allclose(content.supercell.positions, CELL.positions, atol=1e-10)


def test_compact_force_constants_without_a_primitive_matrix(tmp_path):
    path = with_constants(tmp_path / "a.yaml")
    text = path.read_text()
    path.write_text(text[: text.index("primitive_matrix:")] + text[text.index("supercell_matrix:") :])
    np.testing.assert_allclose(read_phonopy_file(path).hessian, HESSIAN, atol=1e-10)


@pytest.mark.parametrize(("suffix", "pack"), [(".xz", lzma.compress), (".bz2", bz2.compress), (".gz", gzip.compress)])
def test_packed_files(tmp_path, suffix, pack):
    plain = with_constants(tmp_path / "a.yaml")
    packed = tmp_path / f"b.yaml{suffix}"
    packed.write_bytes(pack(plain.read_bytes()))
    np.testing.assert_allclose(read_phonopy_file(packed).hessian, HESSIAN, atol=1e-10)
    damaged = bytearray(packed.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    packed.write_bytes(damaged)
    with pytest.raises(RecordError, match=r"damaged|phonopy cannot read"):
        read_phonopy_file(packed)


def test_units_in_the_spelling_of_older_versions(tmp_path):
    path = with_constants(tmp_path / "a.yaml")
    path.write_text(path.read_text().replace('"angstrom"', '"Angstrom"').replace("eV/angstrom", "eV/Angstrom"))
    np.testing.assert_allclose(read_phonopy_file(path).hessian, HESSIAN, atol=1e-10)
    path.write_text(path.read_text().replace('"Angstrom"', '"au"'))
    with pytest.raises(RecordError, match="physical_unit"):
        read_phonopy_file(path)


def test_born_charges_are_not_lost_without_a_word(tmp_path, capsys):
    path = with_forces(tmp_path / "params.yaml")
    assert not read_phonopy_file(path).has_born
    phonon = phonopy.load(path, log_level=0)
    born = 1.13 * np.array([1, -1])[:, None, None] * np.eye(3)
    phonon.nac_params = {"born": born, "dielectric": 2.4 * np.eye(3), "factor": 14.4}
    phonon.save(path, settings={"force_sets": True, "displacements": True})
    assert "born_effective_charge" in path.read_text()
    frames, bad = read_all(path)
    assert not bad
    assert [a.info["role"] for a in frames] == ["supercell", "displaced", "displaced"]
    np.testing.assert_allclose(frames[0].info["REF_hessian"], HESSIAN.ravel(), atol=1e-6)
    assert "Born effective charges are left out" in capsys.readouterr().err


class TestFilesBesideTheYaml:
    @pytest.fixture
    def crystal(self, tmp_path):
        """A directory with displacements in the YAML file and forces in FORCE_SETS."""
        from phonopy.file_IO import write_FORCE_SETS

        folder = tmp_path / "kbr"
        folder.mkdir()
        phonon = phonopy.load(with_forces(tmp_path / "whole.yaml"), log_level=0)
        write_FORCE_SETS(phonon.dataset, filename=folder / "FORCE_SETS")
        phonon.save(folder / "phonopy_disp.yaml", settings={"force_sets": False, "displacements": True})
        return folder

    def test_the_own_directory_is_searched(self, crystal, capsys):
        content = read_phonopy_file(crystal / "phonopy_disp.yaml")
        np.testing.assert_allclose(content.hessian, HESSIAN, atol=1e-6)
        assert len(content.displaced) == 2
        assert "FORCE_SETS" in capsys.readouterr().err

    def test_the_working_directory_is_not(self, crystal, tmp_path, monkeypatch):
        """Another crystal's files there are not taken."""
        from phonopy.file_IO import write_FORCE_CONSTANTS

        alone = tmp_path / "alone"
        alone.mkdir()
        (alone / "phonopy_disp.yaml").write_text((crystal / "phonopy_disp.yaml").read_text())
        monkeypatch.chdir(crystal)
        write_FORCE_CONSTANTS(2 * blocks(), filename=crystal / "FORCE_CONSTANTS")
        (crystal / "BORN").write_text("14.4\n")
        with pytest.raises(RecordError, match="none of FORCE_CONSTANTS"):
            read_phonopy_file(alone / "phonopy_disp.yaml")
        np.testing.assert_allclose(read_phonopy_file(tmp_path / "whole.yaml").hessian, HESSIAN, atol=1e-6)
        assert not read_phonopy_file(tmp_path / "whole.yaml").has_born

    @pytest.mark.parametrize("name", ["FORCE_CONSTANTS", "force_constants.hdf5"])
    def test_force_constants(self, crystal, name):
        from phonopy.file_IO import write_FORCE_CONSTANTS, write_force_constants_to_hdf5

        (crystal / "FORCE_SETS").unlink()
        phonon = kbr()
        compact, sites = blocks()[phonon.primitive.p2s_map], phonon.primitive.p2s_map
        if name == "FORCE_CONSTANTS":
            write_FORCE_CONSTANTS(compact, filename=crystal / name, p2s_map=sites)
        else:
            pytest.importorskip("h5py")
            write_force_constants_to_hdf5(compact, filename=crystal / name, p2s_map=sites)
        np.testing.assert_allclose(read_phonopy_file(crystal / "phonopy_disp.yaml").hessian, HESSIAN, atol=1e-6)

    def test_files_of_another_crystal_are_refused(self, crystal):
        file = crystal / "FORCE_SETS"
        good = file.read_text()
        file.write_text(good.replace("0.01", "0.02", 1))
        with pytest.raises(RecordError, match="other displacements"):
            read_phonopy_file(crystal / "phonopy_disp.yaml")
        file.write_text("9" + good[1:])
        with pytest.raises(RecordError, match=r"FORCE_SETS|phonopy cannot read"):
            read_phonopy_file(crystal / "phonopy_disp.yaml")
        file.unlink()
        (crystal / "FORCE_CONSTANTS").write_text("900000 900000\n1 1\n")
        with pytest.raises(RecordError, match="900000"):
            read_phonopy_file(crystal / "phonopy_disp.yaml")

    def test_forces_are_taken_once(self, crystal):
        (crystal / "phonopy.yaml").write_text((crystal / "phonopy_disp.yaml").read_text())
        frames, bad = read_all(crystal)
        assert len(frames) == 3
        assert len(bad) == 1
        assert "were taken with phonopy.yaml already" in bad[0]


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = with_constants(tmp_path / "a.yaml").read_text()
    for tag in ("object/apply:os.system", "object/new:os.system", "object/apply:subprocess.call"):
        for text in (f'{good}\nx: !!python/{tag} ["touch ran"]\n', f'!!python/{tag} ["touch ran"]\n'):
            (tmp_path / "a.yaml").write_text(text)
            frames, bad = read_all(tmp_path / "a.yaml")
            assert not frames
            assert "objects that are not built" in bad[0]
    (tmp_path / "a.yaml").write_text(good + "\nx: !!python/name:os.system\n")
    assert read_all(tmp_path / "a.yaml")[1]
    assert not (tmp_path / "ran").exists()


def test_labels_and_masses(tmp_path):
    path = with_constants(tmp_path / "a.yaml", compact=False)
    text = re.sub(r"symbol: K #", "symbol: D #", path.read_text())
    path.write_text(re.sub(r"(?m)(symbol: Br) #", r"symbol: Br_s #", text).replace("mass: 39.098300", "mass: 2.014"))
    supercell = read_phonopy_file(path).supercell
    assert supercell.symbols.formula.count() == {"H": 4, "Br": 4}
    assert supercell.get_masses()[supercell.symbols == "H"] == pytest.approx(2.014)
    path.write_text(re.sub(r"(?m)^ *mass: .*\n", "", path.read_text()))
    masses = read_phonopy_file(path).supercell.get_masses()
    assert masses[supercell.symbols == "H"] == pytest.approx(2.0141, abs=1e-4)
    assert masses.max() == pytest.approx(79.904)
    path.write_text(path.read_text().replace("symbol: Br_s #", "symbol: Zz #"))
    with pytest.raises(RecordError, match="'Zz' is no element"):
        read_phonopy_file(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("supercell_matrix:\n- [   1,", "supercell_matrix:\n- [ 9000000,", "at most 5000"),
        ("supercell_matrix:\n- [   1,", "supercell_matrix:\n- [   2,", "not the one that its unit cell"),
        ("shape: [ 2, 8 ]", "shape: [ 2000000, 8 ]", "phonopy cannot read it"),
        ("symbol: K #", "weight: 0.5\n    symbol: K #", "several elements share"),
        ("physical_unit:", "x: &a [1, 2]\ny: [*a, *a]\nphysical_unit:", "YAML references"),
        ("unit_cell:", "unit_sell:", "no crystal structure"),
    ],
)  # fmt: skip
def test_hostile_and_inconsistent_files(tmp_path, old, new, message):
    path = with_constants(tmp_path / "a.yaml")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    frames, bad = read_all(path)
    assert not frames
    assert message in bad[0]


@pytest.mark.parametrize("content", [b"", b"\n", b"just text", b"[" * 100000, b"\xff\xfe\x00", b"a: 1\n---\nb: 2\n"])
def test_what_is_no_phonopy_file(tmp_path, content):
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    frames, bad = read_all(path)
    assert not frames
    assert len(bad) == 1


def test_size_when_unpacked_is_bounded(tmp_path, monkeypatch):
    path = tmp_path / "a.yaml.xz"
    path.write_bytes(lzma.compress(bytes(2**21)))
    monkeypatch.setattr(module, "MAX_BYTES", 2**20)
    with pytest.raises(RecordError, match="more than 1 MiB when unpacked"):
        read_phonopy_file(path)


def test_linked_directories(tmp_path):
    """Links are followed, a loop ends, a link to nowhere is a bad record."""
    store, folder = tmp_path / "store", tmp_path / "set"
    store.mkdir()
    folder.mkdir()
    with_constants(store / "a.yaml")
    (folder / "linked").symlink_to(store)
    (folder / "again").symlink_to(folder)
    (folder / "loop.yaml").symlink_to(folder / "loop.yaml")
    frames, bad = read_all(folder)
    assert len(frames) == 1
    assert len(bad) == 1
    assert "loop.yaml" in bad[0]
