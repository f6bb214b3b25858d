"""Moments, Allen-Dynes and Migdal-Eliashberg against known values; coupling carried over to other phonons."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pdh_study import DATA

from hint_plugins.errors import InputError
from hint_plugins.settings import ConfigError
from hint_recipes.crystals.superconductivity.alpha2f import KELVIN, Alpha2F, allen_dynes, from_modes
from hint_recipes.crystals.superconductivity.alpha2f_file import read_alpha2f
from hint_recipes.crystals.superconductivity.alpha2f_header import FREQUENCY_UNITS
from hint_recipes.crystals.superconductivity.critical_temperatures import critical_temperatures
from hint_recipes.crystals.superconductivity.eliashberg import Eliashberg
from hint_recipes.crystals.superconductivity.settings import TcSettings
from hint_recipes.crystals.superconductivity.study import compute_tc


def einstein(coupling: float, energy: float = 50.0) -> Alpha2F:
    return from_modes(np.array([[energy]]), np.array([[coupling]]), np.ones(1), smearing=0.05)


@pytest.mark.parametrize(
    ("coupling", "omega_log", "omega_2", "mu_star", "tc", "f1", "f2"),
    [
        (1.55, 56.0, 65.0, 0.105, 7.27, 1.092, 1.026),  # lead; 7.20 K measured
        (1.0, 100.0, 100.0, 0.1, 7.317, 1.0507, 1.0),
    ],
)
def test_allen_dynes(coupling, omega_log, omega_2, mu_star, tc, f1, f2):
    result = allen_dynes(coupling, omega_log, omega_2, mu_star)
    assert result.tc == pytest.approx(tc, abs=0.006)
    assert result.f1 == pytest.approx(f1, abs=6e-4)
    assert result.f2 == pytest.approx(f2, abs=6e-4)


@pytest.mark.parametrize(("mu_star", "published"), [(0.10, 204.0), (0.13, 191.0)])
def test_published_h3s_at_200_gpa(mu_star, published):
    """Duan et al., Sci. Rep. 4, 6968 (2014): lambda 2.19, omega_log 1334.6 K."""
    assert allen_dynes(2.19, 1334.6, 1334.6, mu_star).tc_mcmillan == pytest.approx(published, abs=0.5)


def test_no_superconductivity_when_repulsion_wins():
    assert allen_dynes(0.1, 100, 100, 0.15).tc == 0
    with pytest.raises(InputError, match="positive"):
        allen_dynes(-1, 100, 100, 0.1)


@settings(max_examples=20, deadline=None)
@given(
    energy=st.floats(5, 200),
    coupling=st.floats(0.1, 5),
    factor=st.floats(0.5, 3),
)
def test_moments_of_an_einstein_spectrum(energy, coupling, factor):
    spectrum = from_modes(np.array([[energy]]), np.array([[coupling]]), np.ones(1), smearing=energy / 200)
    assert spectrum.coupling == pytest.approx(coupling, rel=1e-6)
    assert spectrum.omega_log * KELVIN == pytest.approx(energy, rel=2e-4)
    assert spectrum.omega_2 * KELVIN == pytest.approx(energy, rel=2e-4)
    stretched = Alpha2F(spectrum.omega * factor, spectrum.values)
    assert stretched.coupling == pytest.approx(spectrum.coupling, rel=1e-9)
    assert stretched.omega_log == pytest.approx(factor * spectrum.omega_log, rel=1e-9)


@pytest.mark.parametrize(("coupling", "ratio"), [(1.0, 0.11462), (2.0, 0.21174), (10.0, 0.55778)])
def test_eliashberg_einstein_spectrum(coupling, ratio):
    """Tc / omega of an Einstein spectrum without Coulomb repulsion, and the unsymmetrised gap equation at that Tc."""
    tc = Eliashberg(einstein(coupling), 0.0, cutoff=40).critical_temperature() * KELVIN / 50
    assert tc == pytest.approx(ratio, rel=5e-4)
    n = np.arange(-200, 200)
    energies = np.pi * tc * (2 * n + 1)
    kernel = coupling / (1 + (energies[:, None] - energies) ** 2)
    renormalisation = 1 + np.pi * tc / energies * (kernel @ np.sign(energies))
    gap_equation = np.pi * tc * kernel / np.abs(energies) / renormalisation[:, None]
    assert np.linalg.eigvals(gap_equation).real.max() == pytest.approx(1, abs=5e-4)


def test_eliashberg_strong_coupling_asymptote():
    """Tc -> 0.1827 omega sqrt(lambda) (Allen and Dynes 1975)."""
    tc = Eliashberg(einstein(1e4), 0.0, cutoff=5000).critical_temperature()
    assert tc * KELVIN / (50 * 100) == pytest.approx(0.1827, abs=1e-4)


def test_gap_closes_where_the_linear_equations_say():
    equations = Eliashberg(einstein(1.0), 0.1, cutoff=8)
    tc = equations.critical_temperature()
    fractions = (0.25, 0.5, 0.9, 0.98)
    gaps = [equations.gap(f * tc).edge for f in fractions]
    assert all(a > b > 0 for a, b in pairwise(gaps))
    assert equations.gap(1.02 * tc).edge == 0
    assert (gaps[2] / gaps[3]) ** 2 == pytest.approx((1 - 0.9) / (1 - 0.98), rel=0.15)  # square-root law at Tc
    assert 3.5 < 2 * gaps[0] / (KELVIN * tc) < 4.5


def test_weak_coupling_gap_ratio_is_that_of_bcs():
    equations = Eliashberg(einstein(0.35), 0.0, cutoff=6)
    tc = equations.critical_temperature()
    assert 2 * equations.gap(0.3 * tc).edge / (KELVIN * tc) == pytest.approx(3.53, rel=0.02)


def test_gaps_too_cold_for_the_solver_are_left_out(monkeypatch):
    monkeypatch.setattr("hint_recipes.crystals.superconductivity.eliashberg.MAX_FREQUENCIES", 200)
    found = critical_temperatures(einstein(0.35), TcSettings(mu_star=[0.0], eliashberg=True))
    tc, lowest = found["tc_eliashberg_K"]["0.0"], Eliashberg(einstein(0.35), 0.0).lowest_temperature
    temperatures = [row["temperature_K"] for row in found["gap"]]
    assert 0.2 * tc < lowest <= min(temperatures)
    assert max(temperatures) == pytest.approx(0.97 * tc)


def test_repulsion_is_brought_to_the_cutoff():
    spectrum = einstein(1.0)
    small, large = (Eliashberg(spectrum, 0.12, cutoff=c).critical_temperature() for c in (6, 12))
    assert large == pytest.approx(small, rel=0.02)
    bare = [Eliashberg(spectrum, 0.12, cutoff=c, rescale_mu=False).critical_temperature() for c in (6, 12)]
    assert bare[0] > small
    assert abs(bare[0] - bare[1]) > abs(large - small)
    with pytest.raises(InputError, match="mu"):
        Eliashberg(spectrum, 1.2)
    with pytest.raises(InputError, match="rescaled"):
        Eliashberg(spectrum, 0.4)
    with pytest.raises(InputError, match="cutoff"):
        Eliashberg(spectrum, 0.1, cutoff=1)


def test_quantum_espresso_file():
    """Against lambda that matdyn.x wrote into the file."""
    path = DATA / "a2F_222" / "a2F.dos3"
    spectrum = read_alpha2f(path)
    written = float(path.read_text().split("lambda =")[1].split()[0])
    assert spectrum.coupling == pytest.approx(written, abs=1e-4)
    assert spectrum.omega_log == pytest.approx(388.8, abs=0.1)
    assert spectrum.omega_2 == pytest.approx(453.1, abs=0.1)


@pytest.mark.parametrize("unit", list(FREQUENCY_UNITS))
def test_units_and_epw_columns(tmp_path, unit):
    reference = einstein(1.2)
    table = np.stack([reference.omega / FREQUENCY_UNITS[unit], reference.values * 2, reference.values], 1)
    path = tmp_path / "prefix.a2f"
    np.savetxt(path, table, header="w a2f and integrated 2*a2f/w for 1 smearing values")
    with path.open("a") as handle:
        handle.write(" Integrated el-ph coupling\n  # 1.2\n")
    assert read_alpha2f(path, unit=unit, column=2).coupling == pytest.approx(1.2, rel=1e-6)
    assert read_alpha2f(path, unit=unit).coupling == pytest.approx(2.4, rel=1e-6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1 0.1\n3 0.2\n2 0.3\n4 0.1\n", "rise"),
        ("1 0.1\n2 0.2\n2 0.3\n4 0.1\n", "rise"),
        ("1 0.1\n2 -0.2\n3 0.3\n", "negative"),
        ("-1 0.1\n2 0.2\n3 0.3\n4 0\n", "imaginary"),
        ("1 0.1\n2 nan\n3 0.3\n", "not finite"),
        ("1 0\n2 0\n3 0\n", "no weight"),
        ("1 0.1\n2 0.2 5\n3 0.3\n", "line 2"),
        ("1\n2\n3\n", "expected rows"),
        ("hello\n", "expected rows"),
    ],
)
def test_bad_spectra_are_refused(tmp_path, rows, message):
    path = tmp_path / "a2f.dat"
    path.write_text(rows)
    with pytest.raises(InputError, match=message):
        read_alpha2f(path)


def test_bad_options_are_refused(tmp_path):
    path = tmp_path / "a2f.dat"
    path.write_text("1 0.1\n2 -0.01\n3 0.3\n4 0.1\n")
    assert read_alpha2f(path, unit="meV", clip_negative=True).values.min() == 0
    with pytest.raises(InputError, match="unknown unit"):
        read_alpha2f(path, unit="furlong")
    with pytest.raises(InputError, match="column 3"):
        read_alpha2f(path, column=3)
    with pytest.raises(InputError, match="cannot read"):
        read_alpha2f(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"mu-star -0\.5"):
        TcSettings(mu_star=[-0.5])
    with pytest.raises(ConfigError, match="at least one --mu-star"):
        TcSettings(mu_star=[])
    with pytest.raises(InputError, match="give alpha2F files"):
        compute_tc({}, tmp_path)


def test_tc_below_the_reach_of_the_solver_is_said(tmp_path, monkeypatch):
    """Neither 0 K nor a picture without points."""
    monkeypatch.setattr("hint_recipes.crystals.superconductivity.eliashberg.MAX_FREQUENCIES", 40)
    result = compute_tc({"weak": einstein(0.3)}, tmp_path, TcSettings(mu_star=[0.12], eliashberg=True))
    summary = result.summary
    reach = Eliashberg(einstein(0.3), 0.12).lowest_temperature
    assert summary["tc_eliashberg_K"]["0.12"] is None
    assert summary["solver_reaches_K"]["0.12"] == pytest.approx(reach)
    assert f"below {reach:.2g} K (Migdal-Eliashberg)" in result.report()
    assert not (tmp_path / "gap.png").exists()
    assert f"below {reach:.2g}" in (tmp_path / "tc.csv").read_text()
    assert "1/mu*' = 1/mu* - ln 10" in summary["mu_star_convention"]


def test_gap_below_the_reach_of_the_solver_is_named(tmp_path, capsys):
    options = TcSettings(mu_star=[0.1], eliashberg=True, temperature=[1e-4, 20.0])
    summary = compute_tc({"einstein": einstein(1.0)}, tmp_path, options).summary
    assert [row["temperature_K"] for row in summary["gap"]] == [20.0]
    assert "no gap at 0.0001 K" in capsys.readouterr().err


def test_command_writes_tables_and_pictures(tmp_path):
    options = TcSettings(mu_star=[0.1], eliashberg=True, temperature=[10, 60])
    spectra = {"pdh": read_alpha2f(DATA / "a2F_222" / "a2F.dos3")}
    result = compute_tc(spectra, tmp_path, options)
    summary = result.summary
    assert summary["tc_K"]["0.1"] == pytest.approx(30.44, abs=0.02)
    assert summary["tc_eliashberg_K"]["0.1"] == pytest.approx(summary["tc_K"]["0.1"], rel=0.03)
    assert summary["gap"][0]["gap_meV"] > 4
    assert summary["gap"][1]["gap_meV"] == 0
    assert json.loads((tmp_path / "summary.json").read_text())["lambda"] == pytest.approx(1.035, abs=1e-3)
    for name in ("tc.csv", "gap.csv", "alpha2f.png", "tc.png", "gap.png", "alpha2f-pdh.csv"):
        assert (tmp_path / name).stat().st_size > 40
    assert "pdh: lambda 1.035" in result.report()
    with pytest.raises(InputError, match="earlier result"):
        compute_tc(spectra, tmp_path, options)
    assert compute_tc(spectra, tmp_path, options, overwrite=True).table == result.table


@pytest.mark.sscha
class TestCarriedOver:
    @pytest.fixture
    def run(self):
        pytest.importorskip("cellconstructor")
        from hint_recipes.crystals.superconductivity.electron_phonon import read_mode_couplings

        return read_mode_couplings(DATA / "a2F_222" / "elph_dir", DATA / "a2F_222" / "dyn", 3)

    def test_nothing_changes_on_the_same_phonons(self, run):
        from hint_recipes.crystals.superconductivity.electron_phonon import reproject

        couplings, harmonic = run
        same = reproject(couplings, harmonic, harmonic)
        np.testing.assert_allclose(same.couplings.sum(1), couplings.couplings.sum(1), rtol=2e-4, atol=1e-6)
        total = (couplings.weights @ couplings.couplings.sum(1)) / couplings.weights.sum()
        assert same.spectrum(1.0).coupling == pytest.approx(total, rel=2e-4)

    def test_scaled_force_constants(self, run):
        """All force constants times 1.44: lambda / 1.44, omega_log times 1.2."""
        from hint_recipes.crystals.superconductivity.electron_phonon import reproject

        couplings, harmonic = run
        first = reproject(couplings, harmonic, harmonic).spectrum(0.5)
        second = reproject(couplings, harmonic, harmonic.replace(1.44 * harmonic.hessian)).spectrum(0.6)
        assert second.coupling == pytest.approx(first.coupling / 1.44, rel=1e-5)
        assert second.omega_log == pytest.approx(first.omega_log * 1.2, rel=1e-3)

    def test_isotopes_leave_lambda(self, run):
        from hint_recipes.crystals.superconductivity.electron_phonon import reproject

        couplings, harmonic = run
        light = reproject(couplings, harmonic, harmonic).spectrum()
        heavy = reproject(couplings, harmonic, harmonic.with_masses({"H": 2.014})).spectrum()
        assert heavy.coupling == pytest.approx(light.coupling, rel=2e-3)
        assert heavy.omega_log < 0.8 * light.omega_log

    @pytest.mark.skipif(not shutil.which("matdyn.x"), reason="needs Quantum ESPRESSO")
    def test_stock_matdyn(self, run, tmp_path):
        """Exact rescaling through q2r.x and matdyn.x on their 2x2x2 grid."""
        from hint_recipes.crystals.superconductivity.matdyn import prepare_matdyn, run_matdyn

        _, harmonic = run
        values = {}
        for factor in (1.0, 1.44):
            script = prepare_matdyn(
                tmp_path / str(factor),
                DATA / "a2F_222" / "elph_dir",
                harmonic.replace(factor * harmonic.hessian),
                mesh=(4, 4, 4),
            )
            run_matdyn(script)
            line = next(x for x in (script.parent / "lambda").read_text().splitlines() if "0.0300" in x)
            values[factor] = float(line.split()[3]), float(line.split()[-1])
        assert values[1.44][0] == pytest.approx(values[1.0][0] / 1.44, abs=2e-4)
        assert values[1.44][1] == pytest.approx(values[1.0][1] * 1.2, rel=1e-4)

    @pytest.mark.parametrize("suffix", ["yaml", "npz"])
    def test_another_setting_and_the_masses_of_the_file(self, run, tmp_path, suffix):
        """PdD in other cell vectors than those of ph.x."""
        from pdh_study import isotope

        from hint_recipes.crystals.phonons.harmonic import read_force_constants, save_force_constants
        from hint_recipes.crystals.superconductivity.carried import carried_spectra
        from hint_recipes.crystals.superconductivity.electron_phonon import reproject

        couplings, harmonic = run
        own = read_force_constants(DATA / "a2F_222" / "dyn", isotope("D"))
        assert np.abs(own.primitive.cell - harmonic.primitive.cell).max() > 1
        save_force_constants(own, tmp_path, "pdd")
        found = carried_spectra(
            tmp_path, DATA / "a2F_222" / "elph_dir", DATA / "a2F_222" / "dyn", [tmp_path / f"pdd.{suffix}"],
            route="projected",
        )  # fmt: skip
        expected = reproject(couplings, harmonic, harmonic.with_masses({"H": 2.014})).spectrum(1.0)
        assert found["pdd"].coupling == pytest.approx(expected.coupling, rel=1e-4)
        assert found["pdd"].omega_log == pytest.approx(expected.omega_log, rel=1e-4)
        assert found["harmonic"].omega_log > 1.2 * found["pdd"].omega_log

    def test_route_is_chosen_by_what_is_there(self, run, tmp_path, monkeypatch, capsys):
        from hint_recipes.crystals.superconductivity.carried import choose_route

        directory = DATA / "a2F_222" / "elph_dir"
        monkeypatch.setenv("PATH", str(tmp_path))
        assert choose_route(directory) == "projected"
        assert "matdyn.x are not in PATH" in capsys.readouterr().err
        for name in ("q2r.x", "matdyn.x"):
            (tmp_path / name).write_text("#!/bin/sh\n")
            (tmp_path / name).chmod(0o755)
        assert choose_route(directory) == "matdyn"
        assert choose_route(tmp_path) == "projected"
        assert "ten files" in capsys.readouterr().err

    def test_convergence_table(self, run, tmp_path):
        """Ten broadenings and three cutoffs; the chosen ones are those of a single run."""
        from hint_recipes.crystals.superconductivity.convergence import convergence
        from hint_recipes.crystals.superconductivity.electron_phonon import reproject

        rows = convergence(
            tmp_path, DATA / "a2F_222" / "elph_dir", DATA / "a2F_222" / "dyn", [], 0.1, route="projected",
            eliashberg=True, cutoff=6.0,
        )  # fmt: skip
        assert [r["value"] for r in rows if r["varied"] == "broadening"] == list(range(1, 11))
        couplings, harmonic = run
        expected = reproject(couplings, harmonic, harmonic).spectrum(1.0)
        third = next(r for r in rows if r["varied"] == "broadening" and r["value"] == 3)
        assert third["lambda"] == pytest.approx(expected.coupling)
        assert third["tc_allen_dynes_K"] > 20
        cutoffs = [r["tc_eliashberg_K"] for r in rows if r["varied"] == "cutoff"]
        assert len(cutoffs) == 3
        assert max(cutoffs) / min(cutoffs) < 1.1
        for name in ("convergence.csv", "convergence.png"):
            assert (tmp_path / name).stat().st_size > 500

    def test_bad_input(self, run, tmp_path):
        from ase.build import bulk

        from hint_recipes.crystals.force_constants.force_constants import ForceConstants
        from hint_recipes.crystals.superconductivity.carried import carried_spectra
        from hint_recipes.crystals.superconductivity.electron_phonon import in_setting, read_mode_couplings
        from hint_recipes.crystals.superconductivity.matdyn import prepare_matdyn

        _, harmonic = run
        with pytest.raises(InputError, match="must be positive"):
            carried_spectra(tmp_path, DATA / "a2F_222" / "elph_dir", DATA / "a2F_222" / "dyn", [], smearing=0.0)
        with pytest.raises(InputError, match="no broadening 11"):
            read_mode_couplings(DATA / "a2F_222" / "elph_dir", DATA / "a2F_222" / "dyn", 11)
        with pytest.raises(InputError, match="not a coupling file"):
            read_mode_couplings(tmp_path, DATA / "a2F_222" / "dyn", 1)
        with pytest.raises(InputError, match="differ"):
            read_mode_couplings(DATA / "a2F_222" / "elph_dir", DATA / "dfpt_222_k12" / "dyn", 3)
        with pytest.raises(InputError, match="ten files"):
            prepare_matdyn(tmp_path, tmp_path, harmonic)
        with pytest.raises(InputError, match="another crystal"):
            in_setting(ForceConstants(bulk("Pd"), (1, 1, 1), np.eye(3)), harmonic.primitive)
