"""SSCHA against an exactly solvable crystal; batches, bad configurations, checkpoint and resume."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from helpers.quartic_crystal import QuarticCrystal

from hint_plugins.errors import InputError
from hint_plugins.potential import Potential
from hint_plugins.runs.files import plain
from hint_plugins.settings import ConfigError
from hint_recipes.crystals.force_constants.force_constants import ForceConstants
from hint_recipes.crystals.force_constants.from_potential import force_constants_from_potential
from hint_recipes.crystals.sscha.perturbation import perturbation

pytest.importorskip("sscha")
pytestmark = pytest.mark.sscha

from hint_recipes.crystals.force_constants.cellconstructor import to_cellconstructor  # noqa: E402
from hint_recipes.crystals.sscha.ensemble import EnsembleEngine  # noqa: E402
from hint_recipes.crystals.sscha.free_energy_hessian import FreeEnergyHessian, free_energy_hessian  # noqa: E402
from hint_recipes.crystals.sscha.populations import draw, run, start  # noqa: E402
from hint_recipes.crystals.sscha.request import identity  # noqa: E402
from hint_recipes.crystals.sscha.scan import SschaScan  # noqa: E402
from hint_recipes.crystals.sscha.scan_table import Point, row_of  # noqa: E402
from hint_recipes.crystals.sscha.settings import RankSettings, SschaSettings  # noqa: E402
from hint_recipes.crystals.sscha.state import State, fingerprint  # noqa: E402
from hint_recipes.crystals.sscha.study import Sscha, run_sscha  # noqa: E402


@pytest.mark.parametrize("temperature", [0.0, 300.0])
def test_exactly_solvable_crystal(temperature):
    """Free energy within four standard errors, modes within 1 % (sampling noise of 200 configurations)."""
    crystal = QuarticCrystal(k=0.5, g=8.0)
    potential = Potential.load(crystal)
    harmonic = force_constants_from_potential(potential, crystal.primitive, (2, 2, 2))
    exact, free_energy = crystal.solve(temperature)
    constants, changed = start(harmonic)
    assert changed == 0
    settings = SschaSettings(temperature=temperature, configurations=200, max_populations=4)
    state = run(State(constants), EnsembleEngine(potential), settings, [(2, 2, 2)])
    assert state.converged
    last = state.history[-1]
    assert abs(last["free_energy_eV"] - free_energy) < 4 * last["free_energy_error_eV"]
    shift = np.abs(exact.frequencies() - harmonic.frequencies()).max()
    error = np.abs(state.constants.frequencies() - exact.frequencies()).max()
    assert error < 0.01 * exact.frequencies().max()
    assert error < 0.1 * shift


def test_harmonic_crystal_keeps_its_matrix():
    """Without anharmonicity the auxiliary matrix is the Hessian and the free energy the closed formula."""
    crystal = QuarticCrystal(k=0.5, g=0.0)
    potential = Potential.load(crystal)
    harmonic = force_constants_from_potential(potential, crystal.primitive, (2, 2, 2)).acoustic_sum_rule()
    state = run(State(start(harmonic)[0]), EnsembleEngine(potential), SschaSettings(configurations=20), [(2, 2, 2)])
    np.testing.assert_allclose(state.constants.hessian, harmonic.hessian, atol=1e-5)
    assert state.history[-1]["free_energy_eV"] == pytest.approx(crystal.solve(0.0)[1], rel=1e-5)
    curved = free_energy_hessian(harmonic, EnsembleEngine(potential), SschaSettings(), 40)
    np.testing.assert_allclose(curved.constants.frequencies(), harmonic.frequencies(), atol=0.05)


def test_batched_equals_one_by_one():
    """The whole ensemble at once against python-sscha's own loop over ASE calculators."""
    potential = Potential.load("emt")
    constants, _ = start(force_constants_from_potential(potential, bulk("Pd", a=3.95), (2, 2, 2)))
    dyn = to_cellconstructor(constants)
    dyn.Symmetrize()
    batched = draw(dyn, 300.0, 10, (1, 2))
    batched, pairs = EnsembleEngine(potential).fill(batched, stress=True)
    single = draw(dyn, 300.0, 10, (1, 2))
    np.testing.assert_array_equal(batched.xats, single.xats)
    single.compute_ensemble(potential.calculator(), compute_stress=True, verbose=False)
    np.testing.assert_array_equal(pairs, np.arange(10) // 2)
    # python-sscha divides by ASE's Rydberg of 2006, CellConstructor by a newer one: 1e-7 relative
    np.testing.assert_allclose(batched.energies, single.energies, rtol=2e-7)
    np.testing.assert_allclose(batched.forces, single.forces, rtol=2e-7, atol=1e-10)
    np.testing.assert_allclose(batched.stresses, single.stresses, rtol=2e-7, atol=1e-12)
    structures = [structure.get_ase_atoms() for structure in single.structures]
    whole = EnsembleEngine(potential).evaluate(structures)
    for index, atoms in enumerate(structures):
        atoms.calc = potential.calculator()
        assert whole.energies[index] == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
        np.testing.assert_allclose(whole.forces[index], atoms.get_forces(), rtol=0, atol=1e-8)


def test_starting_matrix_is_made_positive():
    crystal = QuarticCrystal(k=-0.3, g=12.0)
    harmonic = force_constants_from_potential(Potential.load(crystal), crystal.primitive, (2, 2, 2))
    assert harmonic.frequencies().min() < -100
    constants, changed = start(harmonic, floor=50.0)
    assert changed == 21
    frequencies = np.sort(constants.frequencies().ravel())
    np.testing.assert_allclose(frequencies[:3], 0, atol=1e-3)
    assert frequencies[3] >= 50 - 1e-6
    np.testing.assert_allclose(
        np.sort(np.abs(harmonic.acoustic_sum_rule().frequencies().ravel())), frequencies, atol=1.0
    )


class Exploding:
    """A potential that fails on chosen configurations."""

    def __init__(self, inner: Potential, bad: dict[int, str]) -> None:
        self.inner, self.bad, self.known = inner, bad, []

    def evaluate(self, structures, *, stress=False):
        from hint_plugins.potential import PotentialError

        places = [atoms.positions.tobytes() for atoms in structures]
        if not set(places) <= set(self.known):  # a new ensemble; later calls ask for parts of it
            self.known = places
        found = self.inner.evaluate(structures, stress=stress)
        for index, place in enumerate(places):
            kind = self.bad.get(self.known.index(place))
            if kind == "error":
                raise PotentialError(f"structure {index}: atoms overlap")
            if kind == "nan":
                found.energies[index] = np.nan
            if kind == "energy":
                found.energies[index] += 1000
            if kind == "force":
                found.forces[index][0, 0] = 1e5
        return found


@pytest.mark.parametrize("kind", ["error", "nan", "energy", "force"])
def test_exploding_configurations_are_named_and_dropped(kind, tmp_path, capsys):
    potential = Potential.load("emt")
    constants, _ = start(force_constants_from_potential(potential, bulk("Pd", a=3.95), (2, 2, 2)))
    dyn = to_cellconstructor(constants)
    dyn.Symmetrize()
    engine = EnsembleEngine(Exploding(potential, {3: kind}), directory=tmp_path)
    ensemble, pairs = engine.fill(draw(dyn, 0.0, 20, (0,)), label="population 7")
    assert ensemble.N == len(pairs) == 19
    assert list(pairs[:4]) == [0, 0, 1, 2]
    assert np.isfinite(ensemble.energies).all()
    assert "number 3" in capsys.readouterr().err
    from ase.io import read

    bad = read(tmp_path / "bad_configurations.extxyz", ":")
    assert [a.info["configuration"] for a in bad] == [3]
    assert bad[0].info["ensemble"] == "population 7"
    with pytest.raises(InputError, match="number 3"):
        EnsembleEngine(Exploding(potential, {3: kind}), on_bad="stop").fill(draw(dyn, 0.0, 20, (0,)))
    with pytest.raises(InputError, match="not reliable"):
        EnsembleEngine(Exploding(potential, dict.fromkeys(range(6), kind))).fill(draw(dyn, 0.0, 20, (0,)))


def settings_of(populations: int = 2, **more) -> SschaSettings:
    """Small, and never satisfied with one population."""
    return SschaSettings(**{"configurations": 10, "max_populations": populations, "kong_liu": 0.999, **more})


def test_resumed_run_equals_uninterrupted_run(tmp_path):
    """Two populations at once, and one population continued from its checkpoint: the same numbers."""
    crystal = QuarticCrystal(k=0.5, g=8.0)
    potential = Potential.load(crystal)
    whole = run_sscha(crystal.primitive, potential, tmp_path / "whole", settings_of(2)).summary
    run_sscha(crystal.primitive, potential, tmp_path / "parts", settings_of(1))
    parts = run_sscha(crystal.primitive, potential, tmp_path / "parts", settings_of(2)).summary
    assert whole["n_populations"] == parts["n_populations"] == 2
    assert parts["free_energy"] == whole["free_energy"]
    np.testing.assert_array_equal(parts["frequencies_gamma_cm1"], whole["frequencies_gamma_cm1"])
    assert not whole["converged"]
    assert whole["seconds"]["forces"] > 0
    for name in ("bands.png", "convergence.png", "populations.csv", "minimisation.csv", "sscha.yaml", "dyn/sscha-dyn1"):
        assert (tmp_path / "whole" / name).stat().st_size > 100
    with pytest.raises(InputError, match="other options"):
        run_sscha(crystal.primitive, potential, tmp_path / "parts", settings_of(2, seed=5))


class Interrupted(Potential):
    """A potential that ends the process after ``limit`` calls, as Ctrl-C does."""

    def __init__(self, inner: Potential, limit: int) -> None:
        super().__init__(inner.backend, inner.origin)
        self.limit = limit

    def evaluate(self, structures, *, stress=False):
        self.limit -= len(structures) > 1
        if self.limit < 0:
            raise KeyboardInterrupt
        return super().evaluate(structures, stress=stress)


def test_study_in_python(tmp_path):
    """A calculator as the model: interrupted, resumed, finished, and not computed again.

    A new calculator each time: the last digits of EMT's energies depend on what it computed before, and degenerate
    modes, in which the sample is drawn, on the last digits.
    """
    crystal, settings = bulk("Pd", a=3.95), settings_of(3, temperature=300.0)
    whole = run_sscha(crystal, EMT(), tmp_path / "whole", settings)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_sscha(crystal, Interrupted(Potential.load(EMT()), 2), out, settings)
    assert not (out / "summary.json").exists()
    resumed = run_sscha(crystal, Potential.load(EMT()), out, settings)
    assert resumed.summary["free_energy"] == whole.summary["free_energy"]
    assert resumed.summary["n_populations"] == 3
    again = run_sscha(crystal, Interrupted(Potential.load(EMT()), 0), out, settings)  # no ensemble is evaluated
    assert again.summary["free_energy"] == whole.summary["free_energy"]
    assert not again.converged
    for part in ("free energy", "auxiliary modes", "NOT converged", str(out)):
        assert part in again.report()
    with pytest.raises(InputError, match=r"other options \(temperature: 300\.0, now 400\.0\)"):
        run_sscha(crystal, EMT(), out, settings.changed(temperature=400.0))
    with pytest.raises(InputError, match=r"other options \(model: "):
        run_sscha(crystal, EMT(asap_cutoff=True), out, settings)
    assert json.loads((out / "summary.json").read_text())["free_energy"] == again.summary["free_energy"]


def test_what_identifies_a_checkpoint():
    """The entries of fingerprints that exist, and equal numbers of another kind (300 and 300.0)."""
    crystal, engine = bulk("Pd"), EnsembleEngine(Potential.load("emt"))
    settings = SschaSettings(temperature=300, hessian_configurations=20, four_phonon=True, stage=["1x1x1"])
    mark = identity(crystal, engine, settings, [(1, 1, 1), (2, 2, 2)], "emt")
    assert set(mark) == {
        "temperature", "configurations", "min_populations", "step", "kong_liu", "meaningful_factor", "representation",
        "relax_positions", "relax_cell", "fix_volume", "pressure", "bulk_modulus", "stress", "seed", "crystal",
        "masses", "model", "dtype", "stages", "start_from", "floor", "on_bad", "max_energy", "max_force",
    }  # fmt: skip
    assert (mark["model"], mark["stages"], mark["start_from"]) == ("emt", [[1, 1, 1], [2, 2, 2]], None)
    assert mark == {**mark, "temperature": 300, "pressure": 0}


def test_checkpoint_of_whole_numbers_is_continued(tmp_path):
    constants = start(force_constants_from_potential(Potential.load("emt"), bulk("Pd", a=3.95), (1, 1, 2)))[0]
    mark = fingerprint(SschaSettings(temperature=300))
    State(constants).save(tmp_path / "checkpoint.npz", mark | {"temperature": 300})
    assert State.load(tmp_path / "checkpoint.npz", mark).population == 0
    State(constants).save(tmp_path / "checkpoint.npz", mark | {"temperature": 301})
    with pytest.raises(InputError, match="temperature: 301"):
        State.load(tmp_path / "checkpoint.npz", mark)


def test_unknown_errors_of_the_free_energy_hessian_are_said(tmp_path):
    """One sentence in the report of a run and of a scan, also when the summary comes from a file."""
    constants = force_constants_from_potential(Potential.load("emt"), bulk("Pd", a=3.95), (1, 1, 2))
    squares = np.arange(6.0).reshape(2, 3)
    known = FreeEnergyHessian(constants, squares, np.ones((2, 3))).summary()
    unknown = FreeEnergyHessian(constants, squares, np.full((2, 3), np.nan)).summary()
    assert (known["n_unknown_errors"], unknown["n_unknown_errors"]) == (0, 6)
    run = run_sscha(bulk("Pd", a=3.95), "emt", tmp_path, settings_of(1))
    for summary in (unknown, json.loads(json.dumps(plain(unknown)))):
        said = Sscha(tmp_path, run.summary | {"free_energy_hessian": summary}).report()
        assert "The errors of 6 frequencies of the free-energy Hessian are not known" in said
        assert "(error not known) cm^-1" in said
        rows = [row_of(Point(0.0, 0.0), run.summary | {"free_energy_hessian": summary})]
        scan = {"points": rows, "transitions": [], "n_points": 1}
        assert "0 K, 0 GPa: The error of the lowest frequency" in SschaScan(tmp_path, scan).report()
    assert "not known" not in Sscha(tmp_path, run.summary | {"free_energy_hessian": known}).report()


def test_damaged_checkpoint(tmp_path):
    (tmp_path / "checkpoint.npz").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="damaged"):
        State.load(tmp_path / "checkpoint.npz", fingerprint(SschaSettings()))


def test_killed_command_goes_on(tmp_path):
    """kill -9 during the run; the same command finishes it without repeating populations."""
    bulk("Pd", a=3.95).write(tmp_path / "cell.extxyz")
    out = tmp_path / "run"
    command = [
        sys.executable, "-m", "hint_plugins.cli.main", "sscha", str(tmp_path / "cell.extxyz"), "--model", "emt",
        "--out", str(out), "--configurations", "10", "--max-populations", "2", "--kong-liu", "0.9999",
        "--temperature", "600",
    ]  # fmt: skip
    command[1:3] = ["-c", "from hint_plugins.cli.main import main; main()"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 60
    while not (out / "checkpoint.npz").exists() and time.time() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, "finished before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "summary.json").exists()
    with np.load(out / "checkpoint.npz") as content:
        before = json.loads(str(content["meta"]))["history"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr  # never converged with this Kong-Liu ratio
    summary = json.loads((out / "summary.json").read_text())
    assert summary["n_populations"] == 2
    with np.load(out / "checkpoint.npz") as content:
        after = json.loads(str(content["meta"]))["history"]
    assert after[: len(before)] == before


def test_stages_start_from_the_interpolated_matrix():
    crystal = QuarticCrystal(k=0.5, g=8.0, multiples=(3, 3, 3))
    small = QuarticCrystal(k=0.5, g=8.0, multiples=(2, 2, 2))

    class Both:
        def evaluate(self, structures, *, stress=False):
            inner = small if len(structures[0]) == 8 else crystal
            return Potential.load(inner).evaluate(structures)

    harmonic = ForceConstants(small.primitive, (2, 2, 2), small.springs(np.full((len(small.bonds[0]), 3), 0.5)))
    state = run(
        State(start(harmonic)[0]),
        EnsembleEngine(Both()),
        SschaSettings(configurations=20, max_populations=1),
        [(2, 2, 2), (3, 3, 3)],
    )
    assert state.stage == 1
    assert state.constants.multiples == (3, 3, 3)
    exact, free_energy = crystal.solve(0.0)
    np.testing.assert_allclose(state.constants.frequencies(), exact.frequencies(), rtol=0.06, atol=1e-3)
    last = state.history[-1]
    assert abs(last["free_energy_eV"] - free_energy) < 5 * last["free_energy_error_eV"]


def test_cell_relaxes_to_the_pressure():
    """EMT palladium at 0 K: one step moves the cell against the pressure, which is reported."""
    potential = Potential.load("emt")
    crystal = bulk("Pd", a=4.0)
    harmonic = force_constants_from_potential(potential, crystal, (2, 2, 2))
    settings = SschaSettings(configurations=10, max_populations=2, relax_cell=True, bulk_modulus=180)
    state = run(State(start(harmonic)[0]), EnsembleEngine(potential), settings, [(2, 2, 2)])
    pressures = [row["pressure_GPa"] for row in state.history]
    assert pressures[0] < -10
    assert abs(pressures[-1]) < 0.6 * abs(pressures[0])
    assert state.constants.primitive.get_volume() < 0.98 * crystal.get_volume()


def test_isotope_is_lighter_on_the_zero_point_energy(tmp_path):
    crystal = QuarticCrystal(k=0.5, g=0.0)
    energies = []
    for mass in (27.0, 54.0):
        cell = crystal.primitive.copy()
        cell.set_masses([mass])
        result = run_sscha(cell, crystal, tmp_path / str(mass), SschaSettings(configurations=10))
        energies.append(result.summary["free_energy"])
    assert energies[0] / energies[1] == pytest.approx(np.sqrt(2), rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"configurations": 5},
        {"configurations": 0},
        {"max_populations": 0},
        {"step": 0},
        {"kong_liu": 1.5},
        {"meaningful_factor": 0},
        {"representation": "cubic"},
        {"seed": -1},
        {"seed": 5_000_000_000},
        {"supercell": (2, 2)},
        {"supercell": (0, 2, 2)},
    ],
)
def test_bad_settings(options):
    with pytest.raises(ConfigError):
        SschaSettings(**options)


def test_failed_minimisation_is_an_error_and_keeps_the_checkpoint(tmp_path):
    """Far too few configurations for a very unstable crystal."""
    crystal = bulk("Pd", a=4.15)
    with pytest.raises(InputError, match="more configurations"):
        run_sscha(crystal, "emt", tmp_path, settings_of(5))
    assert not (tmp_path / "summary.json").exists()


def test_bad_supercells(tmp_path):
    crystal = bulk("Pd", a=3.95)
    potential = Potential.load("emt")
    with pytest.raises(InputError, match="one atom"):
        run_sscha(crystal, potential, tmp_path, settings_of(supercell=(1, 1, 1)))
    with pytest.raises(InputError, match="symmetry"):
        run_sscha(crystal, potential, tmp_path, settings_of(supercell=(2, 1, 1)))
    with pytest.raises(InputError, match="GB"):
        free_energy_hessian(
            ForceConstants(crystal, (5, 5, 5), np.zeros((375, 375))), EnsembleEngine(potential), settings_of(), 10,
            four_phonon=True,
        )  # fmt: skip


def test_ranking(tmp_path):
    """Two volumes and a failing candidate: sorted, the failure named, finished candidates not repeated."""
    from hint_recipes.crystals.inputs import read_candidates
    from hint_recipes.crystals.sscha.rank import rank_structures

    potential = Potential.load("emt")
    for name, a in (("tight", 3.9), ("loose", 4.0)):
        bulk("Pd", a=a).write(tmp_path / f"{name}.extxyz")
    bulk("Pd", a=3.9, c=4.5, crystalstructure="bct").write(tmp_path / "odd.extxyz")
    settings = RankSettings(
        configurations=20, max_populations=1, temperature=0, relax_cell=False, reference_configurations=4
    )
    cells = [tmp_path / f"{n}.extxyz" for n in ("loose", "tight", "odd")]
    found = rank_structures(read_candidates(cells), potential, tmp_path, settings, reference=potential)
    result = found.summary
    names = [row["name"] for row in result["ranking"]]
    assert names.index("tight") < names.index("loose")
    assert result["ranking"][0]["above_best_meV_per_atom"] == 0
    assert all(abs(row["correction_eV_per_atom"]) < 1e-12 for row in result["ranking"])
    assert len(names) + len(result["failed"]) == 3
    assert "do not contain the error of the finite supercell" in found.report()
    assert (tmp_path / "ranking.png").exists()
    stamp = (tmp_path / "tight" / "checkpoint.npz").stat().st_mtime_ns
    again = rank_structures(read_candidates(cells[:2]), potential, tmp_path, settings).summary
    assert again["ranking"][0]["gibbs_eV_per_atom"] == result["ranking"][0]["gibbs_eV_per_atom"]
    assert (tmp_path / "tight" / "checkpoint.npz").stat().st_mtime_ns == stamp
    bulk("Cu").write(tmp_path / "other.extxyz")
    with pytest.raises(InputError, match="one composition"):
        rank_structures(read_candidates([cells[0], tmp_path / "other.extxyz"]), potential, tmp_path, settings)
    with pytest.raises(InputError, match="different file names"):
        read_candidates([cells[0], cells[0]])


class TestPerturbation:
    """Gaussian energy differences have closed forms."""

    def test_gaussian(self):
        from ase.units import kB

        rng = np.random.default_rng(0)
        model = rng.normal(size=20000)
        reference = model + rng.normal(0.1, 0.02, size=20000)
        result = perturbation(model, reference, 300.0)
        assert result.first_order == pytest.approx(0.1, abs=5 * result.first_order_error)
        exact = 0.1 - 0.02**2 / (2 * kB * 300)
        assert result.exponential == pytest.approx(exact, abs=5 * result.exponential_error)
        assert result.exponential < result.first_order
        assert 0 < result.effective_sample < 20000

    def test_zero_temperature_and_bad_input(self):
        result = perturbation(np.zeros(4), np.ones(4), 0.0)
        assert (result.first_order, result.exponential) == (1.0, None)
        with pytest.raises(InputError, match="at least two"):
            perturbation(np.zeros(1), np.zeros(1), 0.0)
        with pytest.raises(InputError, match="not finite"):
            perturbation(np.zeros(3), np.array([0, np.nan, 1]), 0.0)
