"""SSCHA runs as a user sees them: what is refused, what is continued, the correction, and `hint rank`."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from hint_plugins.errors import HintError, InputError
from hint_plugins.potential import Potential, PotentialError
from hint_recipes.crystals.force_constants.from_potential import force_constants_from_potential
from hint_recipes.crystals.phonons.harmonic import save_force_constants
from hint_recipes.crystals.sscha.perturbation import perturbation

pytest.importorskip("sscha")
pytestmark = pytest.mark.sscha

from hint_recipes.crystals.force_constants.cellconstructor import to_cellconstructor  # noqa: E402
from hint_recipes.crystals.inputs import read_candidates  # noqa: E402
from hint_recipes.crystals.sscha.populations import draw, start  # noqa: E402
from hint_recipes.crystals.sscha.rank import rank_structures  # noqa: E402
from hint_recipes.crystals.sscha.settings import RankSettings, SschaSettings  # noqa: E402
from hint_recipes.crystals.sscha.study import run_sscha  # noqa: E402

SMALL = (2, 2, 2)


def hint(*words) -> int:
    """Run `hint` and return its status; bad input surfaces as the exception that main() turns into one sentence."""
    from typer.main import get_command

    from hint_plugins.cli.main import app

    try:
        get_command(app)([str(w) for w in words], standalone_mode=False)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def settings_of(populations: int = 1, **more) -> SschaSettings:
    """Small; with this Kong-Liu ratio never satisfied with one population."""
    return SschaSettings(**{"configurations": 10, "max_populations": populations, "kong_liu": 0.9999, **more})


def candidates_of(populations: int = 1, **more) -> RankSettings:
    """The same for a ranking at 0 K with the cells as they are."""
    small = {"configurations": 10, "max_populations": populations, "kong_liu": 0.9999}
    return RankSettings(**{**small, "temperature": 0.0, "relax_cell": False, **more})


class Shifted(Potential):
    """A reference method: the model and ``shift`` eV an atom; ``failing`` calls raise."""

    name, origin = "shifted", None

    def __init__(self, inner: Potential, shift: float, failing: tuple[int, ...] = ()) -> None:
        self.inner, self.shift, self.failing, self.calls = inner, shift, failing, 0

    def evaluate(self, structures, *, stress=False):
        self.calls += 1
        if self.calls in self.failing:
            raise PotentialError("SCF did not converge")
        found = self.inner.evaluate(structures, stress=stress)
        found.energies[:] += self.shift * np.array([len(atoms) for atoms in structures])
        return found


@pytest.fixture(scope="module")
def emt() -> Potential:
    return Potential.load("emt")


@pytest.fixture
def palladium(tmp_path) -> Path:
    path = tmp_path / "pd.extxyz"
    bulk("Pd", a=3.9).write(path)
    return path


def command(cell: Path, out: Path, *more) -> tuple:
    """`hint sscha`, small."""
    return (
        "sscha", cell, "--model", "emt", "--out", out, "--configurations", 10, "--max-populations", 1,
        "--kong-liu", 0.9999, "--temperature", 300, *more,
    )  # fmt: skip


class TestMirrorPairs:
    """Configurations come in mirror pairs, whose energies are not independent."""

    def test_ensembles_hold_pairs_one_after_the_other(self, emt):
        constants, _ = start(force_constants_from_potential(emt, bulk("Pd", a=3.95), SMALL))
        dyn = to_cellconstructor(constants)
        dyn.Symmetrize()
        ensemble = draw(dyn, 300.0, 6, (1,))
        moved = np.array([s.coords for s in ensemble.structures])
        moved -= dyn.structure.generate_supercell(SMALL).coords
        assert np.abs(moved).max() > 0.05
        np.testing.assert_allclose(moved[0::2], -moved[1::2], atol=1e-10)

    @pytest.mark.parametrize("lost", [0, 4])
    def test_errors_are_the_true_spread(self, lost):
        """Variance over 1,000 ensembles of 20 pairs against the mean squared error that each one claims.

        The variance of R Gaussian numbers has the relative standard error sqrt(2 / (R - 1)); a claimed square, from n
        pairs and averaged over R, sqrt(2 / ((n - 1) R)). Five of both together are allowed (0.23; independent
        configurations would be wrong by 0.5). A bootstrap of n pairs gives (n - 1) / n of the variance.
        """
        repetitions, pairs, temperature = 1000, 20, 300.0
        rng = np.random.default_rng(3)
        number = np.repeat(np.arange(pairs), 2)[lost:]
        number[:lost] = np.arange(lost)  # with `lost`, the first pairs have one member only
        results = []
        for seed in range(repetitions):
            even = rng.normal(0.3, 2e-3, pairs)[number]  # far below kT, where the exponential average is linear
            results.append(perturbation(np.zeros(len(number)), even, temperature, pairs=number, seed=seed))
        bound = 5 * np.sqrt(2 / (repetitions - 1) + 2 / ((pairs - 1) * repetitions))
        for kind, share in (("first_order", 1.0), ("exponential", (pairs - 1) / pairs)):
            variance = np.var([getattr(r, kind) for r in results], ddof=1)
            claimed = np.mean([getattr(r, f"{kind}_error") ** 2 for r in results])
            assert claimed / (share * variance) == pytest.approx(1, abs=bound), kind
        assert max(r.effective_sample for r in results) <= pairs

    def test_independent_configurations_as_before(self):
        difference = np.random.default_rng(0).normal(size=30)
        result = perturbation(np.zeros(30), difference, 0.0)
        assert result.first_order_error == pytest.approx(difference.std(ddof=1) / np.sqrt(30), rel=1e-12)

    def test_one_pair_has_no_error(self):
        with pytest.raises(InputError, match="two mirror pairs"):
            perturbation(np.zeros(2), np.ones(2), 300.0, pairs=np.zeros(2, int))


class TestCorrection:
    """The reference is the model and a constant for every atom: the correction is this constant, without error."""

    def test_sign_and_division_by_cells(self, emt, tmp_path):
        crystal = bulk("Pd", a=3.9, cubic=True)  # four atoms, so that an error by the atoms of a cell shows
        settings = settings_of(temperature=300.0, supercell=(1, 1, 1), reference_configurations=6)
        reference = Shifted(emt, 0.01)
        summary = run_sscha(crystal, emt, tmp_path, settings, reference=reference, reference_label="shifted").summary
        correction = summary["correction"]
        assert correction["first_order"] == pytest.approx(0.04, abs=1e-9)
        assert correction["exponential"] == pytest.approx(0.04, abs=1e-9)
        assert correction["first_order_error"] == pytest.approx(0, abs=1e-9)
        assert correction["effective_sample"] == pytest.approx(3, rel=1e-6)
        assert (correction["configurations"], correction["dropped"]) == (6, 0)
        assert (correction["reference"], correction["requested"]) == ("shifted", 6)

    def test_division_by_the_supercell(self, emt, tmp_path):
        settings = settings_of(reference_configurations=4)
        summary = run_sscha(bulk("Pd", a=3.9), emt, tmp_path, settings, reference=Shifted(emt, -0.01)).summary
        assert summary["correction"]["first_order"] == pytest.approx(-0.01, abs=1e-9)
        assert summary["correction"]["exponential"] is None

    def test_failing_reference_points_are_counted(self, emt, tmp_path, capsys):
        from ase.io import read

        reference, settings = Shifted(emt, 0.01, failing=(2, 5)), settings_of(reference_configurations=6)
        summary = run_sscha(bulk("Pd", a=3.9), emt, tmp_path, settings, reference=reference).summary
        assert (summary["correction"]["configurations"], summary["correction"]["dropped"]) == (4, 2)
        assert summary["correction"]["first_order"] == pytest.approx(0.01, abs=1e-9)
        assert "2 of 6" in (said := capsys.readouterr().err)
        assert "SCF did not converge" in said
        assert [a.info["configuration"] for a in read(tmp_path / "correction.extxyz", ":")] == [0, 2, 3, 5]

    def test_a_stopped_correction_goes_on(self, emt, tmp_path):
        """No reference energy is computed twice: they may take an hour each."""

        class Stopped(Shifted):
            def evaluate(self, structures, *, stress=False):
                if self.calls == 3:
                    self.calls += 1
                    raise KeyboardInterrupt
                return super().evaluate(structures, stress=stress)

        settings, crystal = settings_of(reference_configurations=6), bulk("Pd", a=3.9)
        reference = Stopped(emt, 0.01)
        with pytest.raises(KeyboardInterrupt):
            run_sscha(crystal, emt, tmp_path, settings, reference=reference, reference_label="shifted")
        summary = run_sscha(crystal, emt, tmp_path, settings, reference=reference, reference_label="shifted").summary
        assert reference.calls == 4 + 3
        assert summary["correction"]["configurations"] == 6
        assert summary["correction"]["first_order"] == pytest.approx(0.01, abs=1e-9)

    def test_results_survive_a_useless_reference(self, emt, tmp_path):
        reference = Shifted(emt, 0.01, failing=tuple(range(9)))
        with pytest.raises(InputError, match="at least two"):
            run_sscha(bulk("Pd", a=3.9), emt, tmp_path, settings_of(reference_configurations=4), reference=reference)
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert summary["n_populations"] == 1
        assert "correction" not in summary
        assert (tmp_path / "sscha.npz").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hessian_configurations": 11}, "even number"),
        ({"hessian_configurations": -2}, "even number"),
        ({"reference_configurations": 0}, "at least 4"),
        ({"stage": [(3, 3, 3)]}, "3x3x3 comes before 2x2x2"),
        ({"stage": [(2, 2, 2)]}, "grow"),
    ],
)
def test_refused_before_anything_is_computed(options, message, emt, tmp_path):
    """What is there stays, even with ``overwrite``."""
    (tmp_path / "checkpoint.npz").write_bytes(b"precious")
    with pytest.raises(InputError, match=message):
        run_sscha(bulk("Pd"), Shifted(emt, 0.0, failing=(1,)), tmp_path, settings_of(**options),
                  reference=Shifted(emt, 0.0, failing=(1,)), overwrite=True)  # fmt: skip
    assert (tmp_path / "checkpoint.npz").read_bytes() == b"precious"


class TestContinued:
    """A directory can be continued as long as crystal, model and options are those of its checkpoint."""

    def test_more_populations_hessian_and_correction(self, palladium, tmp_path):
        """Asked for one after the other, each without repeating what is there."""
        out = tmp_path / "run"
        assert hint(*command(palladium, out)) == 1
        first = json.loads((out / "summary.json").read_text())
        assert (first["converged"], first["n_populations"]) == (False, 1)
        assert hint(*command(palladium, out, "--max-populations", 2)) == 1
        second = json.loads((out / "summary.json").read_text())
        assert second["n_populations"] == 2
        more = ("--max-populations", 2, "--hessian-configurations", 20, "--reference", "emt")
        stamp = (out / "checkpoint.npz").stat().st_mtime_ns
        assert hint(*command(palladium, out, *more, "--reference-configurations", 4)) == 1
        third = json.loads((out / "summary.json").read_text())
        assert (out / "checkpoint.npz").stat().st_mtime_ns == stamp
        assert third["free_energy"] == second["free_energy"]
        assert third["correction"]["first_order"] == pytest.approx(0, abs=1e-9)
        hessian = third["free_energy_hessian"]
        assert hessian["configurations"] == 20
        auxiliary = min(min(q["cm1"]) for q in third["frequencies_cm1"][1:])
        assert hessian["lowest_cm1"] == pytest.approx(auxiliary, rel=0.1)  # translations are left out
        with (out / "frequencies.csv").open() as handle:
            rows = [row for row in csv.DictReader(handle) if row["source"] == "free-energy-hessian"]
        highest = max(float(row["cm1"]) for row in rows)
        auxiliary = max(max(q["cm1"]) for q in third["frequencies_cm1"])
        assert highest == pytest.approx(auxiliary, rel=0.1)  # palladium is nearly harmonic
        assert (out / "dyn" / "free-energy-hessian-dyn1").exists()

    def test_other_crystal_or_limits_are_refused(self, palladium, tmp_path):
        """Nothing in the directory changes, not even config.yaml."""
        out = tmp_path / "run"
        hint(*command(palladium, out))
        config = (out / "config.yaml").read_bytes()
        for option, value in (("--max-force", 400), ("--max-energy", 4), ("--on-bad", "stop"), ("--floor", 30)):
            with pytest.raises(InputError, match=option.strip("-").replace("-", "_")):
                hint(*command(palladium, out, option, value))
        with pytest.raises(InputError, match="masses"):
            hint(*command(palladium, out, "--mass", "Pd=110"))
        bulk("Pd", a=3.91).write(palladium)
        with pytest.raises(InputError, match="crystal: Pd"):
            hint(*command(palladium, out))
        assert (out / "config.yaml").read_bytes() == config
        assert (out / "summary.json").exists()
        assert hint(*command(palladium, out, "--overwrite")) == 1

    def test_retrained_model_is_another_model(self, emt, tmp_path):
        """The same path, other content."""
        model, crystal = tmp_path / "a.model", bulk("Pd", a=3.9)
        model.write_bytes(b"weights")
        os.utime(model, (1, 1))
        run_sscha(crystal, emt, tmp_path, settings_of(), label=str(model))
        run_sscha(crystal, emt, tmp_path, settings_of(), label=str(model))
        model.write_bytes(b"other weights")
        with pytest.raises(InputError, match="model: "):
            run_sscha(crystal, emt, tmp_path, settings_of(), label=str(model))

    def test_result_of_another_command_is_kept(self, palladium, tmp_path):
        (tmp_path / "summary.json").write_text("{}")
        with pytest.raises(InputError, match="earlier result"):
            hint(*command(palladium, tmp_path))
        assert (tmp_path / "summary.json").read_text() == "{}"


def test_start_from(emt, palladium, tmp_path):
    """Given force constants are where the run starts; another supercell than the first stage's is refused."""
    crystal = bulk("Pd", a=3.9)
    constants = force_constants_from_potential(emt, crystal, SMALL)
    save_force_constants(constants.replace(1.44 * constants.hessian), tmp_path, "stiff")
    stiff = tmp_path / "stiff.npz"
    given = ("--start-from", stiff, "--step", 1e-6)  # so small that the result shows the start
    hint(*command(palladium, tmp_path / "run", *given))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    highest = max(max(q["cm1"]) for q in summary["frequencies_cm1"])
    assert highest == pytest.approx(1.2 * constants.acoustic_sum_rule().frequencies().max(), rel=0.01)
    with pytest.raises(
        InputError, match=r"holds a 2x2x2 supercell, the run starts with 3x3x3: use the same, or a --st"
    ):
        hint(*command(palladium, tmp_path / "other", *given, "--supercell", 3, 3, 3))


def test_fixed_volume(emt, tmp_path):
    """Under tens of GPa the volume stays where it is told to."""
    crystal = bulk("Pd", a=4.0)
    settings = settings_of(relax_cell=True, fix_volume=True, bulk_modulus=180)
    summary = run_sscha(crystal, emt, tmp_path, settings).summary
    assert abs(summary["pressure_GPa"]) > 10
    assert summary["volume_A3"] == pytest.approx(crystal.get_volume(), rel=1e-6)


class TestRank:
    """`hint rank`."""

    @pytest.fixture
    def cells(self, tmp_path) -> list[Path]:
        paths = [tmp_path / "loose.extxyz", tmp_path / "tight.extxyz"]
        for path, a in zip(paths, (4.0, 3.9), strict=True):
            bulk("Pd", a=a).write(path)
        return paths

    def words(self, cells, out, *more) -> tuple:
        return (
            "rank", *cells, "--model", "emt", "--out", out, "--configurations", 10, "--max-populations", 1,
            "--temperature", 100, "--no-relax-cell", *more,
        )  # fmt: skip

    def test_command(self, cells, tmp_path):
        """Ranks; refuses other options and crystals as a whole; the same command keeps every candidate."""
        out = tmp_path / "out"
        hint(*self.words(cells, out))
        first = json.loads((out / "summary.json").read_text())
        assert [row["name"] for row in first["ranking"]] == ["tight", "loose"]
        assert first["temperature_K"] == 100
        stamps = [(out / name / "checkpoint.npz").stat().st_mtime_ns for name in ("loose", "tight")]
        config = (out / "config.yaml").read_bytes()
        (out / "summary.json").unlink()  # as after a kill
        with pytest.raises(InputError, match=r"temperature: 100\.0, now 900\.0.*--overwrite"):
            hint(*self.words(cells, out, "--temperature", 900))
        with pytest.raises(InputError, match="pressure"):
            hint(*self.words(cells, out, "--pressure", 5))
        with pytest.raises(InputError, match="stages"):
            hint(*self.words(cells, out, "--supercell", 3, 3, 3))
        with pytest.raises(InputError, match="masses"):
            hint(*self.words(cells, out, "--mass", "Pd=110"))
        with pytest.raises(InputError, match="at least 4"):
            hint(*self.words(cells, out, "--reference", "emt", "--reference-configurations", 1))
        tight = bulk("Pd", a=3.9)
        bulk("Pd", a=3.92).write(cells[1])
        with pytest.raises(InputError, match="crystal: Pd"):
            hint(*self.words(cells, out))
        tight.write(cells[1])
        assert (out / "config.yaml").read_bytes() == config
        assert not (out / "summary.json").exists()
        hint(*self.words(cells, out))
        again = json.loads((out / "summary.json").read_text())
        assert again == first
        assert [(out / name / "checkpoint.npz").stat().st_mtime_ns for name in ("loose", "tight")] == stamps

    def test_unconverged_candidates_get_more_populations(self, cells, emt, tmp_path):
        """And only they: a candidate at its limit is not touched."""
        (tmp_path / "tight").mkdir()
        tight = read_candidates(cells[1:])
        one = rank_structures(tight, emt, tmp_path, candidates_of(1)).summary
        assert (one["n_converged"], len(one["ranking"])) == (0, 1)
        rank_structures(tight, emt, tmp_path, candidates_of(2))
        summary = json.loads((tmp_path / "tight" / "summary.json").read_text())
        assert summary["n_populations"] == 2
        stamp = (tmp_path / "tight" / "summary.json").stat().st_mtime_ns
        rank_structures(tight, emt, tmp_path, candidates_of(2))
        assert (tmp_path / "tight" / "summary.json").stat().st_mtime_ns == stamp

    def test_first_order_correction(self, cells, emt, tmp_path):
        """The correction that ranks is the first-order one; the exponential one is shown with its effective sample."""

        class Stiffer(Shifted):
            def evaluate(self, structures, *, stress=False):
                found = super().evaluate(structures, stress=stress)
                found.energies[:] *= 1.3
                return found

        settings = candidates_of(temperature=300.0, reference_configurations=8)

        def first(settings: RankSettings, reference: Potential | None = None) -> dict:
            tight = read_candidates(cells[1:])
            found = rank_structures(tight, emt, tmp_path, settings, reference=reference, reference_label="stiffer")
            return found.summary["ranking"][0]

        plain = first(settings)
        assert "effective_sample" not in plain
        reference = Stiffer(emt, 0.01)
        row = first(settings, reference)
        correction = json.loads((tmp_path / "tight" / "summary.json").read_text())["correction"]
        assert row["gibbs_eV_per_atom"] - plain["gibbs_eV_per_atom"] == pytest.approx(correction["first_order"])
        assert row["error_eV_per_atom"] == pytest.approx(
            np.hypot(plain["error_eV_per_atom"], correction["first_order_error"])
        )
        assert row["exponential_correction_eV_per_atom"] < row["correction_eV_per_atom"]
        assert 1 <= row["effective_sample"] < 4  # four mirror pairs
        with (tmp_path / "ranking.csv").open() as handle:
            assert float(next(csv.DictReader(handle))["effective_sample"]) == row["effective_sample"]
        calls = reference.calls
        first(settings, reference)
        assert reference.calls == calls  # kept
        fewer = first(settings.changed(reference_configurations=4), reference)
        assert fewer["correction_configurations"] == 4
        assert reference.calls == calls, "they are the first of those that are known"
        assert "correction_eV_per_atom" not in first(settings)

    def test_errors_hold_the_change_with_the_supercell(self, emt, tmp_path):
        """A check adds by how much a difference changed from the smaller supercell; each of its runs is kept."""
        both = {name: bulk("Pd", "hcp", a=a) for name, a in (("tight", 2.76), ("loose", 2.84))}
        settings = candidates_of(1, temperature=100.0, supercell=(2, 2, 1), check_supercell=(1, 1, 1))
        found = rank_structures(both, emt, tmp_path, settings)
        best, other = found.summary["ranking"]
        sizes = {}
        for name in ("tight", "loose"):
            large, small = (
                json.loads((tmp_path / name / folder / "summary.json").read_text())["free_energy"]
                for folder in ("", "check")
            )
            sizes[name] = large - small
        size = 1000 * abs(sizes["tight"] - sizes["loose"]) / 2  # two atoms per cell
        assert size > 0.01
        statistics = 1000 * np.hypot(best["error_eV_per_atom"], other["error_eV_per_atom"])
        assert other["above_best_size_error_meV_per_atom"] == pytest.approx(size)
        assert other["above_best_error_meV_per_atom"] == pytest.approx(np.hypot(size, statistics))
        assert best["above_best_error_meV_per_atom"] == 0
        assert "changed from the smaller to the larger supercell" in found.report()
        stamp = (tmp_path / "tight" / "check" / "summary.json").stat().st_mtime_ns
        assert rank_structures(both, emt, tmp_path, settings).summary == found.summary
        assert (tmp_path / "tight" / "check" / "summary.json").stat().st_mtime_ns == stamp
        plain = rank_structures(both, emt, tmp_path, candidates_of(1, temperature=100.0, supercell=(2, 2, 1)))
        assert "do not contain the error of the finite supercell" in plain.report()

    def test_checks_that_say_nothing_are_refused(self, cells, emt, tmp_path):
        """A check must be smaller, and its option must be that of the supercell."""
        both = read_candidates(cells)
        with pytest.raises(InputError, match=r"tight: .* holds 8 atoms and the one that counts 8"):
            rank_structures(read_candidates(cells[1:]), emt, tmp_path, candidates_of(check_supercell=(2, 2, 2)))
        same = candidates_of(supercell_length=4.0, check_length=4.0)
        with pytest.raises(InputError, match="holds 8 atoms"):
            rank_structures(both, emt, tmp_path, same)
        with pytest.raises(HintError, match="check_length needs supercell_length"):
            candidates_of(check_length=4.0)
        with pytest.raises(HintError, match="check_supercell goes with supercell"):
            candidates_of(supercell_length=9.0, check_supercell=(1, 1, 2))
        assert not (tmp_path / "summary.json").exists()

    def test_workers_find_what_one_process_finds(self, cells, tmp_path):
        """Candidates in worker processes: the same table, and nothing is computed again by one process."""
        from hint_plugins.runs.execution import Execution

        both = read_candidates(cells)
        wide = rank_structures(both, "emt", tmp_path, candidates_of(1), execution=Execution(workers=2)).summary
        stamp = (tmp_path / "tight" / "checkpoint.npz").stat().st_mtime_ns
        assert rank_structures(both, "emt", tmp_path, candidates_of(1)).summary == wide
        assert (tmp_path / "tight" / "checkpoint.npz").stat().st_mtime_ns == stamp
        alone = rank_structures(both, "emt", tmp_path / "alone", candidates_of(1)).summary
        assert [row["gibbs_eV_per_atom"] for row in alone["ranking"]] == [
            row["gibbs_eV_per_atom"] for row in wide["ranking"]
        ]
        with pytest.raises(InputError, match="works in this process only"):
            rank_structures(both, Potential.load("emt"), tmp_path, candidates_of(1), execution=Execution(workers=2))
