"""Scans over temperature and pressure: neighbours, finished points, the fitted transition, thermal expansion."""

import json

import numpy as np
import pytest
from ase.build import bulk
from helpers.double_well_crystal import DoubleWellCrystal, zincblende
from helpers.quartic_crystal import QuarticCrystal
from typer.testing import CliRunner

from hint_plugins.cli.main import app
from hint_plugins.errors import InputError
from hint_plugins.potential import Potential

pytest.importorskip("sscha")
pytestmark = pytest.mark.sscha

from hint_recipes.crystals.force_constants.unit_cells import for_supercell, supercell_matrix  # noqa: E402
from hint_recipes.crystals.sscha.scan import _neighbour, scan_sscha  # noqa: E402
from hint_recipes.crystals.sscha.scan_table import Point, add_expansion, transition  # noqa: E402
from hint_recipes.crystals.sscha.settings import SschaSettings  # noqa: E402

SETTINGS = SschaSettings(configurations=40, max_populations=4, meaningful_factor=0.05, relax_positions=False, step=0.2)


def row(temperature, square, error=1.0, pressure=0.0, volume=10.0):
    return {
        "temperature_K": temperature,
        "pressure_GPa": pressure,
        "soft_mode_squared_cm2": square,
        "soft_mode_squared_error_cm2": error,
        "volume_A3": volume,
    }


class TestTransition:
    def test_a_straight_line(self):
        found = transition([row(t, 2.0 * (t - 130)) for t in (0, 50, 100, 150, 200)])
        assert found["temperature_K"] == pytest.approx(130)
        assert found["slope_cm2_per_K"] == pytest.approx(2)
        assert not found["extrapolated"]
        assert transition([row(t, 2.0 * (t - 330)) for t in (100, 200)])["extrapolated"]

    def test_error_is_the_scatter(self):
        """Of fitted temperatures from noisy points."""
        rng = np.random.default_rng(0)
        temperatures = np.array([60, 110, 160, 210])
        fits = []
        for _ in range(400):
            rows = [row(t, 3.0 * (t - 130) + 20 * rng.normal(), 20.0) for t in temperatures]
            fits.append([transition(rows)[k] for k in ("temperature_K", "error_K")])
        values, errors = np.array(fits).T
        assert values.mean() == pytest.approx(130, abs=1)
        assert values.std() == pytest.approx(errors.mean(), rel=0.15)

    def test_nothing_to_fit(self):
        assert transition([row(0, 3.0)]) is None
        assert transition([row(0, 3.0), row(10, 3.0)]) is None
        assert transition([row(t, None) for t in (0, 10, 20)]) is None
        assert transition([row(0, 3.0, None), row(10, 5.0, float("nan")), row(20, 9.0)]) is None


def test_expansion_and_neighbours():
    rows = [row(t, None, volume=20 * np.exp(1e-5 * t)) for t in (0.0, 100.0, 300.0)] + [row(0.0, None, pressure=5.0)]
    add_expansion(rows)
    assert [r.get("thermal_expansion_per_K") for r in rows[:3]] == pytest.approx([1e-5] * 3)
    assert rows[3].get("thermal_expansion_per_K") is None
    points = [Point(0, 0), Point(100, 0), Point(0, 5)]
    assert _neighbour([], points[0]) is None
    assert _neighbour(points[:1], points[1]) == points[0]
    assert _neighbour(points[:2], points[2]) == points[0]
    assert _neighbour(points, Point(100, 5)) == points[2]


def test_scan_of_a_solvable_crystal(tmp_path, capsys):
    """Free energies and modes follow the exact solution; a second call repeats nothing and gives the same table."""
    crystal = QuarticCrystal(k=0.5, g=8.0)
    temperatures = [0.0, 150.0, 300.0]
    scan = lambda: scan_sscha(crystal.primitive, crystal, tmp_path, SETTINGS, temperatures=temperatures).summary  # noqa: E731
    result = scan()
    for found, temperature in zip(result["points"], temperatures, strict=True):
        exact, energy = crystal.solve(temperature)
        summary = json.loads((tmp_path / "points" / f"T{temperature:g}_p0" / "summary.json").read_text())
        assert abs(summary["free_energy_supercell"] - energy) < 5 * found["free_energy_error_eV"] + 1e-4
        lowest = np.sort(exact.frequencies().ravel())[3]
        assert abs(found["lowest_auxiliary_cm1"] - lowest) < 6 * found["lowest_auxiliary_error_cm1"]
    assert [row["converged"] for row in result["points"]] == [True] * 3
    capsys.readouterr()
    assert json.loads(json.dumps(scan()["points"])) == json.loads(json.dumps(result["points"]))
    assert capsys.readouterr() == ("", "")
    for name in ("scan.csv", "scan.png", "summary.json"):
        assert (tmp_path / name).stat().st_size > 100


def test_bad_scans(tmp_path):
    crystal = bulk("Pd", a=3.95)
    potential = Potential.load("emt")
    with pytest.raises(InputError, match="given twice"):
        scan_sscha(crystal, potential, tmp_path, SETTINGS, temperatures=[100.0, 100.0])
    with pytest.raises(InputError, match="relax-cell"):
        scan_sscha(crystal, potential, tmp_path, SETTINGS, temperatures=[100.0], pressures=[0.0, 5.0])


def test_command_takes_lists(tmp_path):
    """``--temperature 0 300`` is a scan, and its config.yaml repeats it."""
    bulk("Pd", a=3.95).write(tmp_path / "cell.extxyz")
    words = f"sscha {tmp_path}/cell.extxyz --model emt --out {tmp_path}/out --temperature 0 300 --configurations 20"
    words += " --max-populations 2 --meaningful-factor 0.5 --step 0.2"
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code in (0, 1), done.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [p["temperature_K"] for p in summary["points"]] == [0, 300]
    again = CliRunner().invoke(app, ["sscha", f"{tmp_path}/cell.extxyz", "--config", f"{tmp_path}/out/config.yaml"])
    assert again.exit_code == done.exit_code, again.output
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    wrong = CliRunner().invoke(app, [*words.split(), "--temperature", "warm"])
    assert "takes numbers" in str(wrong.exception)


@pytest.mark.slow
def test_transition_of_a_solvable_crystal(tmp_path):
    """A double well whose soft mode vanishes at a temperature that needs no sampling to know."""
    cell, multiples = for_supercell(zincblende(), supercell_matrix((-1, 1, 1, 1, -1, 1, 1, 1, -1)))
    crystal = DoubleWellCrystal(multiples, cell)
    exact = crystal.transition_temperature(200, 350)
    assert exact == pytest.approx(263.4, abs=0.1)
    settings = SETTINGS.changed(
        configurations=100, max_populations=10, supercell=multiples, hessian_configurations=1000
    )
    result = scan_sscha(cell, crystal, tmp_path, settings, temperatures=[225.0, 250.0, 275.0, 300.0]).summary
    assert result["converged"]
    deviations = []
    for found in result["points"]:
        temperature, error = found["temperature_K"], found["soft_mode_squared_error_cm2"]
        deviations.append((found["soft_mode_squared_cm2"] - crystal.soft_mode_squared(temperature)) / error)
        summary = json.loads((tmp_path / "points" / f"T{temperature:g}_p0" / "summary.json").read_text())
        assert abs(summary["free_energy_supercell"] - crystal.free_energy(temperature)) < 4 * (
            found["free_energy_error_eV"] + 2e-4  # the upper bound lies that much above the minimum with this sample
        )
    assert np.abs(deviations).max() < 3.5
    (fitted,) = result["transitions"]
    assert fitted["error_K"] < 20
    assert abs(fitted["temperature_K"] - exact) < 3 * fitted["error_K"]


def test_points_have_their_own_random_numbers():
    points = [Point(t, p) for t in (0.0, 100.0, 200.0) for p in (0.0, 10.0)]
    assert len({point.seed(0) for point in points}) == 6
    assert all(0 <= point.seed(2**32 - 1) < 2**32 for point in points)
    assert Point(100.0, 0.0).seed(3) == Point(100.0, 0.0).seed(3)
