"""Hessian <-> dynamical matrices <-> phonopy: exact round trips, three ways to the same frequencies."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from hypothesis import given, settings
from hypothesis import strategies as st
from pdh_study import DATA

from hint_plugins.errors import InputError
from hint_plugins.units import THZ_TO_CM1
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.supercells import find_multiples, match_sites, translate_columns

pytest.importorskip("phonopy")


def crystal() -> Atoms:
    """A low-symmetry cell with two elements, so that every index order matters."""
    return Atoms(
        "PdHH",
        scaled_positions=[[0.0, 0, 0], [0.45, 0.52, 0.5], [0.2, 0.8, 0.3]],
        cell=[[3.0, 0.1, 0], [0.3, 3.2, 0], [0, 0.2, 3.5]],
        pbc=True,
    )


def random_constants(multiples, seed=0, primitive=None) -> ForceConstants:
    """Translation-invariant, symmetric random force constants."""
    primitive = primitive or crystal()
    n = 3 * len(primitive)
    columns = np.random.default_rng(seed).normal(size=(n, n * int(np.prod(multiples))))
    return ForceConstants(primitive, multiples, translate_columns(columns, multiples))


@settings(max_examples=15, deadline=None)
@given(multiples=st.tuples(*[st.integers(1, 3)] * 3), seed=st.integers(0, 100))
def test_phonopy_round_trip(multiples, seed):
    constants = random_constants(multiples, seed)
    back = ForceConstants.from_phonopy(constants.to_phonopy(), constants.primitive)
    np.testing.assert_allclose(back.hessian, constants.hessian, rtol=0, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(multiples=st.tuples(*[st.integers(1, 3)] * 3), seed=st.integers(0, 100))
def test_supercell_order_does_not_matter(multiples, seed):
    constants = random_constants(multiples, seed)
    order = np.random.default_rng(seed).permutation(len(constants.supercell))
    components = (3 * order[:, None] + np.arange(3)).ravel()
    shuffled = constants.supercell[order]
    shuffled.wrap()
    back = ForceConstants.from_supercell(
        constants.primitive, shuffled, constants.hessian[np.ix_(components, components)]
    )
    assert back.multiples == constants.multiples
    np.testing.assert_array_equal(back.hessian, constants.hessian)


def test_frequencies_agree_with_phonopy_and_with_the_supercell():
    constants = random_constants((2, 1, 3))
    phonon = constants.to_phonopy()
    own = constants.frequencies()
    for q, frequencies in zip(constants.q_points, own, strict=True):
        np.testing.assert_allclose(phonon.run_qpoints([q]).frequencies[0] * THZ_TO_CM1, frequencies, rtol=0, atol=1e-3)
    weights = np.repeat(constants.supercell.get_masses(), 3) ** -0.5
    whole = np.linalg.eigvalsh(constants.hessian * weights[:, None] * weights)
    from hint_recipes.crystals.force_constants.force_constants import signed_frequencies

    np.testing.assert_allclose(np.sort(own.ravel()), signed_frequencies(whole), rtol=0, atol=1e-6)


def test_acoustic_sum_rule_and_symmetrisation_are_projections():
    constants = random_constants((2, 2, 2), primitive=bulk("Pd", cubic=False))
    ruled = constants.acoustic_sum_rule()
    n = len(ruled.supercell)
    np.testing.assert_allclose(ruled.hessian.reshape(n, 3, n, 3).sum(2), 0, atol=1e-12)
    np.testing.assert_allclose(ruled.acoustic_sum_rule().hessian, ruled.hessian, atol=1e-12)
    np.testing.assert_allclose(np.abs(ruled.frequencies()[0, :3]), 0, atol=1e-4)
    averaged = ruled.symmetrized()
    np.testing.assert_allclose(averaged.symmetrized().hessian, averaged.hessian, atol=1e-10)
    optical = np.sort(averaged.frequencies(), axis=1)
    star = [i for i, q in enumerate(constants.q_points) if np.count_nonzero(q) == 1]
    np.testing.assert_allclose(optical[star], optical[star][:1].repeat(len(star), 0), atol=1e-6)


def test_translated_columns_give_the_whole_hessian():
    """Against all columns of EMT by central differences."""
    primitive = bulk("Pd", a=3.9)
    supercell = primitive.repeat((2, 2, 2))
    supercell.calc = EMT()

    def column(index: int) -> np.ndarray:
        forces = []
        for sign in (1, -1):
            moved = supercell.copy()
            moved.positions[index // 3, index % 3] += sign * 1e-3
            moved.calc = EMT()
            forces.append(moved.get_forces().ravel())
        return (forces[1] - forces[0]) / 2e-3

    whole = np.array([column(i) for i in range(3 * len(supercell))])
    translated = translate_columns(whole[:3], (2, 2, 2))
    np.testing.assert_allclose(translated, (whole + whole.T) / 2, atol=1e-8)


def test_isotopes():
    constants = random_constants((1, 1, 1))
    heavy = constants.with_masses({"H": 2.014})
    assert heavy.primitive.get_masses()[0] == constants.primitive.get_masses()[0]
    np.testing.assert_array_equal(heavy.primitive.get_masses()[1:], 2.014)
    with pytest.raises(ValueError, match="mass of Xe"):
        constants.with_masses({"Xe": 1.0})
    with pytest.raises(ValueError, match="must be positive"):
        constants.with_masses({"H": -1.0})


def test_bad_supercells_are_refused():
    primitive = crystal()
    with pytest.raises(ValueError, match="integer multiples"):
        find_multiples(primitive, bulk("Pd"))
    stretched = primitive.repeat((2, 1, 1))
    stretched.set_cell(stretched.cell.array * 1.02)
    with pytest.raises(ValueError, match="ratio"):
        find_multiples(primitive, stretched)
    moved = primitive.repeat((2, 1, 1))
    moved.positions[4] += 0.3
    with pytest.raises(ValueError, match=r"site 4 \(H\) has no partner"):
        match_sites(primitive.repeat((2, 1, 1)), moved)
    with pytest.raises(ValueError, match="Hessian"):
        ForceConstants(primitive, (2, 1, 1), np.zeros((9, 9)))
    with pytest.raises(ValueError, match="not finite"):
        ForceConstants(primitive, (1, 1, 1), np.full((9, 9), np.nan))


@pytest.mark.sscha
class TestCellConstructor:
    @pytest.fixture(autouse=True)
    def _needs(self):
        pytest.importorskip("cellconstructor")

    @pytest.mark.parametrize("multiples", [(1, 1, 1), (2, 2, 2), (3, 1, 2)])
    def test_round_trip_and_frequencies(self, multiples):
        from hint_recipes.crystals.force_constants.cellconstructor import from_cellconstructor, to_cellconstructor

        constants = random_constants(multiples)
        dyn = to_cellconstructor(constants)
        back = from_cellconstructor(dyn)
        np.testing.assert_allclose(back.hessian, constants.hessian, rtol=0, atol=1e-10)
        theirs = np.sort(np.concatenate([dyn.DyagDinQ(i)[0] for i in range(len(dyn.q_tot))]))
        import cellconstructor as CC

        np.testing.assert_allclose(
            theirs * CC.Units.RY_TO_CM, np.sort(constants.frequencies().ravel()), rtol=0, atol=1e-3
        )

    def test_agrees_with_their_supercell(self):
        """Their own supercell matrix, atoms matched by position."""
        from hint_recipes.crystals.force_constants.cellconstructor import (
            from_structure,
            to_cellconstructor,
            unit_factor,
        )

        constants = random_constants((2, 1, 3))
        whole = to_cellconstructor(constants).GenerateSupercellDyn([2, 1, 3])
        theirs = ForceConstants.from_supercell(
            constants.primitive, from_structure(whole.structure), np.real(whole.dynmats[0]) * unit_factor()
        )
        np.testing.assert_allclose(theirs.hessian, constants.hessian, rtol=0, atol=1e-10)

    def test_quantum_espresso_files(self, tmp_path):
        from hint_recipes.crystals.force_constants.cellconstructor import from_cellconstructor, to_cellconstructor
        from hint_recipes.crystals.force_constants.dynamical_matrices import (
            read_dynamical_matrices,
            write_dynamical_matrices,
        )

        constants = from_cellconstructor(read_dynamical_matrices(DATA / "dfpt_222" / "dyn"))
        assert constants.multiples == (2, 2, 2)
        gamma = constants.frequencies()[0]
        assert gamma[:3] == pytest.approx(10.6, abs=0.1)
        assert gamma[3:] == pytest.approx(284.7, abs=0.1)
        assert constants.acoustic_sum_rule().frequencies()[0, 3:] == pytest.approx(278.3, abs=0.1)
        files = write_dynamical_matrices(to_cellconstructor(constants), tmp_path / "dyn")
        assert [f.name for f in files] == ["dyn0", "dyn1", "dyn2", "dyn3"]
        back = from_cellconstructor(read_dynamical_matrices(tmp_path / "dyn"))
        np.testing.assert_allclose(back.hessian, constants.hessian, rtol=0, atol=1e-6)

    def test_incomplete_sets_are_refused(self, tmp_path):
        from hint_recipes.crystals.force_constants.dynamical_matrices import read_dynamical_matrices

        for name in ("dyn0", "dyn1", "dyn3"):
            (tmp_path / name).write_bytes((DATA / "dfpt_222" / name).read_bytes())
        with pytest.raises(InputError, match="dyn2"):
            read_dynamical_matrices(tmp_path / "dyn")
        (tmp_path / "dyn0").unlink()
        (tmp_path / "dyn2").write_bytes((DATA / "dfpt_222" / "dyn3").read_bytes())
        (tmp_path / "dyn3").unlink()
        with pytest.raises(InputError, match="whole grid"):
            read_dynamical_matrices(tmp_path / "dyn")
        with pytest.raises(InputError, match="missing"):
            read_dynamical_matrices(tmp_path / "nothing")
        (tmp_path / "bad1").write_text("rubbish\n")
        with pytest.raises(InputError, match="not readable"):
            read_dynamical_matrices(tmp_path / "bad")

    def test_interpolation_keeps_the_old_points(self):
        from hint_recipes.crystals.force_constants.cellconstructor import from_cellconstructor
        from hint_recipes.crystals.force_constants.dynamical_matrices import read_dynamical_matrices
        from hint_recipes.crystals.force_constants.interpolation import interpolate

        constants = from_cellconstructor(read_dynamical_matrices(DATA / "dfpt_222" / "dyn")).acoustic_sum_rule()
        fine = interpolate(constants, (4, 4, 4))
        assert fine.multiples == (4, 4, 4)
        old, new = constants.frequencies(), fine.frequencies()
        for q, expected in zip(constants.q_points, old, strict=True):
            index = np.flatnonzero(np.abs((fine.q_points - q) - np.rint(fine.q_points - q)).max(1) < 1e-9)[0]
            np.testing.assert_allclose(new[index], expected, atol=0.001)
        with pytest.raises(InputError, match="coarser"):
            interpolate(fine, (2, 2, 2))

    def test_anharmonic_change_on_a_finer_grid(self):
        """Old q points get the anharmonic matrices; without a change the fine matrices stay, long range and all."""
        from hint_recipes.crystals.force_constants.cellconstructor import from_cellconstructor
        from hint_recipes.crystals.force_constants.dynamical_matrices import read_dynamical_matrices
        from hint_recipes.crystals.force_constants.interpolation import interpolate, refine

        harmonic, other = (
            from_cellconstructor(read_dynamical_matrices(DATA / name / "dyn")).acoustic_sum_rule()
            for name in ("dfpt_222", "dfpt_222_k12")
        )
        fine = interpolate(harmonic, (4, 4, 4))
        cells, size = fine.cell_indices, 3 * len(fine.primitive)
        blocks = np.random.default_rng(0).normal(scale=0.02, size=(4, 4, 4, size, size))
        shifts = (cells[None] - cells[:, None]) % 4
        long_range = blocks[tuple(np.moveaxis(shifts, -1, 0))].transpose(0, 2, 1, 3).reshape(fine.hessian.shape)
        fine = fine.replace(fine.hessian + (long_range + long_range.T) / 2)

        first_row = fine.hessian.reshape(64, size, 64, size)[0].transpose(1, 0, 2)
        summed = np.zeros((2, 2, 2, size, size))
        np.add.at(summed, tuple((cells % 2).T), first_row)
        shifts = (harmonic.cell_indices[None] - harmonic.cell_indices[:, None]) % 2
        folded = harmonic.replace(
            summed[tuple(np.moveaxis(shifts, -1, 0))].transpose(0, 2, 1, 3).reshape(harmonic.hessian.shape)
        )
        np.testing.assert_allclose(refine(folded, fine).hessian, fine.hessian, atol=1e-10)

        changed = other.replace(folded.hessian + other.hessian - harmonic.hessian).with_masses({"H": 2.014})
        refined = refine(changed, fine)
        for q, expected in zip(changed.q_points, changed.dynamical_matrices(), strict=True):
            index = np.flatnonzero(np.abs((fine.q_points - q) - np.rint(fine.q_points - q)).max(1) < 1e-9)[0]
            np.testing.assert_allclose(refined.dynamical_matrices()[index], expected, atol=1e-8)
        assert np.abs(refined.hessian - fine.hessian).max() > 0.05
        assert refine(changed, folded) is changed
        with pytest.raises(InputError, match="no part of the grid"):
            refine(fine, folded)
