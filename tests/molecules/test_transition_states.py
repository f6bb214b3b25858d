"""Searches from end points to intended transition states, and every named way to fail."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import add_adsorbate, bulk, fcc100, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLength
from ase.io import read
from helpers.recipe_workers import upper

from hint_plugins.errors import InputError
from hint_plugins.potential import Potential, Predictions
from hint_plugins.runs.executors import ExecutorError, executor_factory
from hint_plugins.runs.items import ItemStore, digest, safe_name
from hint_plugins.runs.parallel import WorkerDied, map_items
from hint_plugins.structures.frozen import free_components
from hint_plugins.units import CM1, KCAL
from hint_recipes.crystals.inputs import relax as relax_crystal
from hint_recipes.failures import SearchFailure
from hint_recipes.molecules.paths.elastic_band import geodesic_path, path_length, relax_band
from hint_recipes.molecules.transition_states.bonds import bond_matrix, changed_bonds, num_fragments
from hint_recipes.molecules.transition_states.ends import EndPoints, rmsd
from hint_recipes.molecules.transition_states.pysisyphus import AtomicUnits, require_pysisyphus
from hint_recipes.molecules.transition_states.reaction import Reaction, check_reaction, group_reactions
from hint_recipes.molecules.transition_states.search import search
from hint_recipes.molecules.transition_states.settings import SearchSettings
from hint_recipes.molecules.transition_states.stationary import minimise
from hint_recipes.molecules.transition_states.study import find_transition_states
from hint_recipes.molecules.transition_states.tables import barrier_rows, barrier_table, summarise

HCN = Atoms("HCN", [[0, 0, -1.07], [0, 0, 0], [0, 0, 1.15]])
HNC = Atoms("HCN", [[0, 0, 2.15], [0, 0, 0], [0, 0, 1.17]])
# fmt: off
VINYL = Atoms("OCCH4", [
    [1.2, 0.0, 0.1], [0.0, 0.65, 0], [-1.2, 0.03, 0], [1.05, -0.95, 0], [0.05, 1.73, 0], [-1.25, -1.05, 0],
    [-2.1, 0.6, 0],
])
ACETALDEHYDE = Atoms("OCCH4", [
    [1.2, 0.25, 0], [0.1, 0.7, 0], [-1.2, -0.1, 0], [-1.0, -1.15, 0.3], [0, 1.8, 0], [-1.7, 0.05, -0.96],
    [-1.85, 0.3, 0.75],
])
# fmt: on


def reaction(name: str, reactant: Atoms, product: Atoms) -> Reaction:
    return Reaction(name, {"reactant": reactant.copy(), "product": product.copy()})


@pytest.fixture(scope="module")
def xtb() -> Potential:
    pytest.importorskip("tblite")
    pytest.importorskip("sella")
    return Potential.load("tblite:GFN2-xTB")


@pytest.mark.parametrize(
    ("item", "barrier", "wave"),
    [(reaction("HCN", HCN, HNC), 73.2, 1427), (reaction("vinyl", VINYL, ACETALDEHYDE), 61.6, 2109)],
    ids=["HCN", "vinyl alcohol"],
)
def test_known_transition_states(xtb: Potential, item: Reaction, barrier: float, wave: float) -> None:
    """GFN2-xTB barriers (kcal/mol) and imaginary modes (cm^-1) found independently with two other programs."""
    record = search(item, xtb).record
    assert record["intended"], record["reason"]
    assert record["barrier"] / KCAL == pytest.approx(barrier, abs=0.2)
    assert record["imaginary_cm1"] == pytest.approx(wave, abs=5)
    assert record["n_imaginary"] == 1
    assert record["reason"] is None
    assert record["n_forces"] > 0
    assert record["n_hessians"] > 0


def frames(item: Reaction) -> list[Atoms]:
    out = []
    for role, atoms in item.frames.items():
        frame = atoms.copy()
        frame.info |= {"reaction": item.name, "role": role}
        out.append(frame)
    return out


def test_set_resumes_and_repeats_nothing(xtb: Potential, tmp_path: Path) -> None:
    items = group_reactions(frames(reaction("HCN", HCN, HNC)) + frames(reaction("same", HCN, HCN)))
    first = find_transition_states(items, xtb, tmp_path).records
    calls = xtb.calls.forces
    again = find_transition_states(items, xtb, tmp_path).records
    assert xtb.calls.forces == calls
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(first))
    summary = summarise(again)
    assert (summary["n_reactions"], summary["n_intended"], summary["n_failed"]) == (2, 1, 1)
    assert summary["reasons"] == {"same_molecule": 1}
    written = {path.name for path in (tmp_path / "reactions" / "HCN").iterdir()}
    assert written == {"path.extxyz", "ts.extxyz", "irc.extxyz", "stationary_points.extxyz", "profile.png"}
    other = SearchSettings(saddle_fmax=0.02, path="geodesic")
    with pytest.raises(InputError, match="holds a run with path = auto \\(now geodesic\\)"):
        find_transition_states(items, xtb, tmp_path, other)
    assert xtb.calls.forces == calls
    find_transition_states(items, xtb, tmp_path, other, overwrite=True)
    assert xtb.calls.forces > calls


def test_reactions_searched_together_end_in_the_same_saddles(xtb: Potential, tmp_path: Path) -> None:
    merged = reaction("nothing", HCN, HCN)
    items = [reaction("HCN", HCN, HNC), reaction("HNC", HNC, HCN), merged]
    settings = SearchSettings(path="geodesic")
    alone = find_transition_states(items, xtb, tmp_path / "alone", settings).records
    together = find_transition_states(items, xtb, tmp_path / "together", settings, together=3).records
    for one, other in zip(alone, together, strict=True):
        for key in ("name", "intended", "reason", "n_imaginary", "bonds", "reactant_kept", "product_kept"):
            assert other[key] == one[key]
        if one["intended"]:
            # Two points with forces below 0.01 eV/A on a surface with curvatures above 0.5 eV/A^2.
            assert other["barrier"] == pytest.approx(one["barrier"], abs=0.01**2 / 0.5)
            assert other["imaginary_cm1"] == pytest.approx(one["imaginary_cm1"], rel=0.02)
    assert sum(record["intended"] for record in together) == 2
    assert find_transition_states(items, xtb, tmp_path / "together", settings).records == together
    with pytest.raises(ValueError, match="gsm and rsirfo"):
        find_transition_states(items, xtb, tmp_path / "gsm", SearchSettings(path="gsm"), together=2)


def test_reference_errors(xtb: Potential) -> None:
    result = search(reaction("HCN", HCN, HNC), xtb)
    assert result.ts is not None
    item = reaction("HCN", HCN, HNC)
    turned = result.ts.copy()
    turned.rotate(50, (1, 1, 0))
    item.frames["ts"] = turned
    item.energies = {"reactant": 10.0, "ts": 13.0}
    record = search(item, xtb).record
    assert record["ts_rmsd"] < 1e-3
    assert record["barrier_error"] == pytest.approx(record["barrier"] - 3.0)


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (HCN, molecule("H2O"), "different_atoms"),
        (HCN, HCN[[1, 0, 2]], "different_atoms"),
        (HCN, HCN, "same_molecule"),
        (HCN, Atoms("HCN", [[0, 0, 0], [0, 0, 0.05], [0, 0, 1.2]]), "overlapping_atoms"),
        (HCN, Atoms("HCN", [[0, 0, np.nan], [0, 0, 0], [0, 0, 1.2]]), "not_finite"),
    ],
)
def test_bad_end_points(first: Atoms, second: Atoms, reason: str) -> None:
    with pytest.raises(SearchFailure) as caught:
        check_reaction(reaction("bad", first, second))
    assert caught.value.reason == reason


def test_missing_and_doubled_end_points() -> None:
    alone = group_reactions(frames(reaction("r", HCN, HNC))[:1])[0]
    doubled = group_reactions(frames(reaction("r", HCN, HNC)) * 2)[0]
    for item in (alone, doubled):
        with pytest.raises(SearchFailure) as caught:
            check_reaction(item)
        assert caught.value.reason == "missing_end_point"
    with pytest.raises(ValueError, match="frame 0 needs info"):
        group_reactions([HCN])


class Pushing:
    """A potential whose forces drive atoms apart for ever."""

    def __new__(cls) -> object:
        from ase.calculators.calculator import Calculator, all_changes

        class Repulsive(Calculator):
            implemented_properties = ("energy", "forces")

            def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
                super().calculate(atoms, properties, system_changes)
                r = atoms.positions - atoms.positions.mean(axis=0)
                self.results = {"energy": -float(np.linalg.norm(r)) * 5, "forces": 5 * r / np.linalg.norm(r)}

        return Repulsive()


def test_flying_apart_is_named() -> None:
    record = search(reaction("boom", HCN, HNC), Potential.load(Pushing())).record
    assert record["reason"] == "flew_apart"
    assert "reactant" in record["detail"]


@pytest.mark.parametrize("step", [np.nan, np.inf, 1e6])
def test_a_step_to_nowhere_is_not_evaluated(xtb: Potential, monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """Whatever the optimiser divides by: a step that is not finite, or absurd, has flown apart."""
    from ase.optimize import BFGS
    from ase.optimize.fire2 import FIRE2

    def jump(self, *_: object, **__: object) -> None:
        where = self.optimizable.get_x()
        self.optimizable.set_x(where + step)

    monkeypatch.setattr(BFGS, "step", jump)
    monkeypatch.setattr(FIRE2, "step", jump)
    calls = xtb.calls.forces
    record = search(reaction("jump", HCN, HNC), xtb).record
    assert (record["reason"], xtb.calls.forces - calls) == ("flew_apart", 1)
    with pytest.raises(SearchFailure, match="moved atoms further"):
        relax_band(geodesic_path(HCN, HNC, 3), xtb, fmax=1e-3)
    with pytest.raises(InputError, match="the relaxation failed"):
        relax_crystal(Potential.load("emt"), bulk("Cu", a=3.7), cell=True)


def test_an_optimiser_without_a_finite_curvature_has_flown_apart(
    xtb: Potential, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr("ase.optimize.BFGS.step", broken)
    with pytest.raises(SearchFailure) as caught:
        minimise(HCN, xtb)
    assert caught.value.reason == "flew_apart"


def test_forces_that_are_not_finite_are_the_potentials_failure(xtb: Potential, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = xtb.evaluate

    def broken(structures: list[Atoms], **options: object) -> object:
        found = evaluate(structures, **options)
        return Predictions(found.energies, [np.full_like(f, np.nan) for f in found.forces])

    monkeypatch.setattr(xtb, "evaluate", broken)
    record = search(reaction("nan", HCN, HNC), xtb).record
    assert record["reason"] == "potential_failed"
    assert "forces of the potential is not finite" in record["detail"]


def ammonia(height: float) -> Atoms:
    angles = np.deg2rad([0, 120, 240])
    ring = np.stack([0.94 * np.cos(angles), 0.94 * np.sin(angles), np.full(3, -2.25 * height)], axis=1)
    return Atoms("NH3", np.concatenate([[[0, 0, height]], ring]))


def test_inversion_is_a_conformational_reaction(xtb: Potential, tmp_path: Path) -> None:
    """No bond changes: the ends are told apart by geometry. Barrier: planar minus pyramidal NH3, relaxed one by one."""
    item = reaction("inversion", ammonia(0.12), ammonia(-0.12))
    (record,) = find_transition_states([item], xtb, tmp_path).records
    assert record["intended"], record["reason"]
    assert record["conformational"]
    assert record["barrier_kcal_mol"] == pytest.approx(6.11, abs=0.02)
    assert record["n_imaginary"] == 1
    planar, _ = minimise(ammonia(0.0), xtb, fmax=0.001)
    pyramid, _ = minimise(ammonia(0.12), xtb, fmax=0.001)
    apart = planar.get_potential_energy() - pyramid.get_potential_energy()
    assert record["barrier"] == pytest.approx(apart, abs=1e-4)
    for role in ("reactant", "product"):
        assert record[f"irc_{role}_conformer"] == "same"
        assert record[f"irc_{role}_energy"] == pytest.approx(0.0, abs=1e-3)
        assert record[f"irc_{role}_rmsd"] < 0.05
    folder = tmp_path / "reactions" / "inversion"
    coordinate = read(folder / "irc.extxyz", index=":")
    saddle = next(frame for frame in coordinate if frame.info["role"] == "ts")
    heights = saddle.positions - saddle.positions.mean(axis=0)
    assert np.linalg.svd(heights)[1][-1] < 0.01  # planar
    assert rmsd(coordinate[0], item.reactant) < 0.1 < rmsd(coordinate[0], item.product)
    assert ["frequencies_cm1" in frame.info for frame in coordinate] == [f is saddle for f in coordinate]
    points = read(folder / "stationary_points.extxyz", index=":")
    assert [frame.info["role"] for frame in points] == ["reactant", "ts", "product"]
    energies = [frame.get_potential_energy() for frame in points]
    assert energies[1] - energies[0] == pytest.approx(record["barrier"], abs=1e-6)
    (row,) = barrier_rows([record])
    assert (row["barrier_kcal_mol"], row["result"]) == (6.11, "intended")
    assert "6.11" in barrier_table([row])


def evaluated(atoms: Atoms, energy: float) -> Atoms:
    copy = atoms.copy()
    copy.calc = SinglePointCalculator(copy, energy=energy, forces=np.zeros((len(atoms), 3)))
    return copy


def test_an_end_that_is_another_conformer_is_said() -> None:
    """Hydroxyl turned: in a reaction it is the same molecule; between conformers it is another end."""
    turned = VINYL.copy()
    turned.set_dihedral(3, 0, 1, 2, VINYL.get_dihedral(3, 0, 1, 2) + 180, indices=[3])
    assert np.array_equal(bond_matrix(turned), bond_matrix(VINYL))
    vinyl, rotamer, aldehyde = evaluated(VINYL, 0.0), evaluated(turned, 0.1), evaluated(ACETALDEHYDE, -0.2)
    bonds = EndPoints((bond_matrix(VINYL), bond_matrix(ACETALDEHYDE)), (vinyl, aldehyde))
    assert not bonds.conformational
    ends = bonds.order(aldehyde, rotamer)
    assert ends[0] is rotamer
    bonds.judge(ends)
    found = bonds.describe(ends)
    assert (found["irc_reactant_conformer"], found["irc_product_conformer"]) == ("other", "same")
    assert (found["irc_reactant_energy"], found["irc_product_energy"]) == (0.1, -0.2)
    assert found["irc_reactant_rmsd"] > 0.25

    rotation = EndPoints((bond_matrix(VINYL),) * 2, (vinyl, rotamer))
    assert rotation.conformational
    assert not rotation.merged()
    rotation.judge((vinyl, rotamer))
    for ends, reason in (((vinyl, vinyl), "same_end_twice"), ((vinyl, evaluated(turned, 0.5)), "one_end_wrong")):
        with pytest.raises(SearchFailure) as caught:
            rotation.judge(ends)
        assert caught.value.reason == reason
    assert EndPoints((bond_matrix(VINYL),) * 2, (vinyl, vinyl)).merged()


def test_mirror_images_and_exchanged_atoms_are_other_structures() -> None:
    mirrored = ammonia(0.12)
    mirrored.positions[:, 2] *= -1
    assert rmsd(ammonia(0.12), mirrored) > 0.25
    rotated = ammonia(0.12)
    rotated.rotate(120, "z")
    assert rmsd(ammonia(0.12), rotated) < 1e-6


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: a.info.update(charge=1), "different_charge"),
        (lambda a: a.info.update(spin=3), "different_charge"),
        (lambda a: a.set_constraint(FixAtoms([1])), "frozen_atoms"),
        (lambda a: a.set_constraint(FixBondLength(0, 1)), "frozen_atoms"),
        (lambda a: (a.set_cell([9, 9, 9]), a.set_pbc(True)), "different_atoms"),
    ],
)
def test_end_points_on_other_surfaces_are_refused(change: Callable, reason: str) -> None:
    item = reaction("odd", HCN, HNC)
    change(item.product)
    with pytest.raises(SearchFailure) as caught:
        check_reaction(item)
    assert caught.value.reason == reason


def test_frozen_atoms_stay_where_they_are() -> None:
    """A copper atom hops between two hollows of a frozen slab: frequencies are those of the free block."""
    pytest.importorskip("sella")
    slab = fcc100("Cu", (2, 2, 2), a=3.6, vacuum=6.0)
    add_adsorbate(slab, "Cu", 1.8, "hollow")
    slab.pbc = True
    slab.set_constraint(FixAtoms(range(8)))
    other = slab.copy()
    other.positions[-1] += slab.cell[0] / 2
    potential = Potential.load("emt")
    result = search(reaction("hop", slab, other), potential, SearchSettings(images=5, irc_steps=10))
    record = result.record
    assert record["intended"], (record["reason"], record["detail"])
    assert record["conformational"]
    assert len(record["frequencies_cm1"]) == 3
    for atoms in (*result.ends, result.ts, *result.irc, *result.path):
        assert free_components(atoms).all(axis=1).tolist() == [False] * 8 + [True]
        assert atoms.positions[:8] == pytest.approx(slab.positions[:8], abs=1e-7)
    block = potential.hessian(result.ts)[24:, 24:] / slab.get_masses()[-1]
    values = np.linalg.eigvalsh(block)
    assert record["frequencies_cm1"] == pytest.approx(np.sign(values) * np.sqrt(np.abs(values)) * CM1, abs=0.1)
    bridge = 0.5 * (result.ends[0].positions[-1] + result.ends[1].positions[-1])
    assert result.ts.positions[-1][:2] == pytest.approx(bridge[:2], abs=0.05)


def test_time_limit_is_named(xtb: Potential) -> None:
    record = search(reaction("slow", HCN, HNC), xtb, SearchSettings(max_seconds=0.0)).record
    assert record["reason"] == "time_limit"


def test_potential_that_fails_is_named() -> None:
    lithium = Atoms("LiOH", [[0, 0, -1.6], [0, 0, 0], [0, 0, 0.96]])
    other = Atoms("LiOH", [[0, 0, 3.0], [0, 0, 0], [0, 0, 0.96]])
    record = search(reaction("LiOH", lithium, other), Potential.load("emt")).record  # EMT knows no Li
    assert record["reason"] == "potential_failed"
    assert "Li" in record["detail"]


def test_unknown_settings() -> None:
    with pytest.raises(ValueError, match="path"):
        SearchSettings(path="straight")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="images"):
        SearchSettings(images=2)


def test_atomic_units_for_pysisyphus(xtb: Potential) -> None:
    """Forces are minus the derivative of the energy, and the Hessian that of the forces, in Hartree and Bohr."""
    adapter = AtomicUnits(xtb, VINYL)
    x = VINYL.positions.reshape(-1) / units.Bohr
    direction = np.random.default_rng(0).normal(size=x.size)
    direction /= np.linalg.norm(direction)
    ahead, behind = (adapter.get_forces(None, x + s * 0.005 * direction) for s in (1, -1))
    found = adapter.get_hessian(None, x)
    slope = (ahead["energy"] - behind["energy"]) / 0.01
    assert slope == pytest.approx(-found["forces"] @ direction, abs=1e-5)
    assert (behind["forces"] - ahead["forces"]) / 0.01 == pytest.approx(found["hessian"] @ direction, abs=1e-4)


@pytest.mark.skipif(find_spec("pysisyphus") is not None, reason="pysisyphus is installed")
def test_pysisyphus_is_asked_for() -> None:
    with pytest.raises(InputError, match="pip install pysisyphus"):
        require_pysisyphus(SearchSettings(path="gsm"))
    require_pysisyphus(SearchSettings())


def test_bonds() -> None:
    assert bond_matrix(molecule("CH3CH2OH")).sum() // 2 == 8
    pair = molecule("H2O") + molecule("H2")
    pair.positions[3:] += [0, 0, 5.0]
    assert num_fragments(bond_matrix(pair)) == 2
    change = changed_bonds(bond_matrix(HCN), bond_matrix(HNC), HCN)
    assert change == {"formed": ["H0-N2"], "broken": ["H0-C1"]}


def test_geodesic_path_is_reproducible_and_keeps_its_ends() -> None:
    pytest.importorskip("geodesic_interpolate")
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (geodesic_path(VINYL, ACETALDEHYDE, 7, seed=3) for _ in range(2))
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(first, second, strict=True))
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert rmsd(first[0], VINYL) < 1e-8
    assert rmsd(first[-1], ACETALDEHYDE) < 1e-8
    assert (np.diff(path_length(first)) > 0).all()


def test_band_finds_the_barrier(xtb: Potential) -> None:
    ends = [minimise(end, xtb)[0] for end in (VINYL, ACETALDEHYDE)]
    images = geodesic_path(*ends, 7)
    calls = xtb.calls.forces
    converged, steps = relax_band(images, xtb, fmax=0.2, steps=60)
    assert converged
    assert xtb.calls.forces - calls < 7 * steps  # the two ends are not evaluated again and again
    energies = [image.get_potential_energy() for image in images]
    assert (max(energies) - energies[0]) / KCAL == pytest.approx(61.6, abs=0.5)


def test_a_dying_worker_costs_one_item() -> None:
    outcomes = dict(map_items(upper, ["a", "die", "b", "raise"], executor_factory("local", 2), 2))
    assert (outcomes[0], outcomes[2]) == ("A", "B")
    assert isinstance(outcomes[1], WorkerDied)
    assert isinstance(outcomes[3], RuntimeError)


def test_a_dying_worker_of_dask_costs_one_item(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    outcomes = dict(map_items(upper, ["a", "die", "b", "raise"], executor_factory("dask", 2), 2))
    assert (outcomes[0], outcomes[2]) == ("A", "B")
    assert isinstance(outcomes[1], WorkerDied)
    assert isinstance(outcomes[3], RuntimeError)
    assert not isinstance(outcomes[3], WorkerDied)


def test_a_lost_scheduler_is_named() -> None:
    @contextlib.contextmanager
    def gone() -> Iterator[ThreadPoolExecutor]:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(time.sleep, 0.2)
            yield Cancelling(pool)

    with pytest.raises(ExecutorError, match="scheduler is gone"):
        dict(map_items(upper, ["a"], gone, 1))


class Cancelling:
    """Its futures are cancelled, as those of a Dask client whose scheduler went away."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool

    def submit(self, function: Callable, *arguments: object) -> Future:
        future = self.pool.submit(function, *arguments)
        assert future.cancel()
        future.set_running_or_notify_cancel()
        return future


def test_store(tmp_path: Path) -> None:
    store = ItemStore(tmp_path)
    store.put("a/b", "key", {"x": np.float64(1.5)})
    assert store.get("a/b", "key") == {"x": 1.5}
    assert store.get("a/b", "other") is None
    store.path("a/b").write_text("{ broken")
    assert store.get("a/b", "key") is None
    assert safe_name("a/b") != safe_name("a_b")
    assert digest(HCN, 1) != digest(HNC, 1)
