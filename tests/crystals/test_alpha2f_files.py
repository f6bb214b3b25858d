"""Spectral functions in files: the unit and the columns that the file states, and what is refused."""

import numpy as np
import pytest

from hint_plugins.errors import InputError
from hint_recipes.crystals.superconductivity.alpha2f import Alpha2F
from hint_recipes.crystals.superconductivity.alpha2f_file import read_alpha2f
from hint_recipes.crystals.superconductivity.alpha2f_header import FREQUENCY_UNITS
from hint_recipes.crystals.superconductivity.settings import TcSettings
from hint_recipes.crystals.superconductivity.study import compute_tc, read_spectra


def reference():
    """Two peaks up to 60 meV."""
    omega = np.linspace(0.0, 60.0, 601)[1:]
    peaks = [(0.5, 20.0, 3.0), (0.3, 45.0, 4.0)]
    values = sum(a * np.exp(-0.5 * ((omega - w) / s) ** 2) for a, w, s in peaks)
    values[-1] = 0.0
    return Alpha2F(omega, np.where(values < 1e-6, 0.0, values))


def write(path, header, unit, columns, trailer=""):
    omega = reference().omega / FREQUENCY_UNITS[unit]
    rows = "\n".join(" ".join(f"{x:.10e}" for x in row) for row in np.column_stack([omega, *columns]))
    path.write_text("\n".join([*header, rows, trailer]) + "\n")
    return path


HEADERS = {
    "THz": [
        "# E(THz)     0.005", "# frequency (THz)  alpha2F", "# omega [THz]", "# freq. in THz", "# E_THz a2F", "# w/THz",
        "# Frequency, THz", "# unit: THz", "# energies (terahertz)",
    ],
    "meV": [
        " w[meV] a2f and integrated 2*a2f/w for    1 smearing values", "# E (meV)", "# energy in meV", "# (meV)  a2F",
        "# w [MEV]", "# frequency unit: meV", "# Frequencies are in meV", "# w meV  a2F",
    ],
    "Ry": ["# frequencies in Rydberg", "# omega(Ry)", "# E [Ryd]"],
    "cm-1": ["# freq(cm-1)", "# w (cm^-1)", "# omega [cm^{-1}]", "# frequency (1/cm)", "# omega (cm^(-1))",
        "# E in cm^-1"],
    "eV": ["# energy (eV)", "# w [ eV ]"],
    "Ha": ["# omega (Hartree)", "# frequency in Ha"],
    "K": ["# omega (K)", "# frequency in Kelvin"],
}  # fmt: skip


@pytest.mark.parametrize(("unit", "header"), [(unit, line) for unit, lines in HEADERS.items() for line in lines])
def test_units_of_the_header(tmp_path, unit, header):
    path = write(tmp_path / "a.dat", [header], unit, [reference().values], "# Electron smearing (eV) 0.1")
    found = read_alpha2f(path)
    assert found.omega_log == pytest.approx(reference().omega_log, rel=1e-6)
    assert found.coupling == pytest.approx(reference().coupling, rel=1e-6)
    assert f"frequencies in {unit} (as the file says)" in found.read_as
    assert read_alpha2f(path, unit=unit).coupling == found.coupling
    with pytest.raises(InputError, match=f"are in {unit}, --unit says"):
        read_alpha2f(path, unit="meV" if unit != "meV" else "THz")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("# E (furlong)", "'furlong' of its frequencies is not known"),
        ("# omega (a.u.)", r"'a\.u\.' of its frequencies is not known"),
        ("# omega (rad/ps)", "'rad/ps' of its frequencies is not known"),
        ("# E (meV)   frequency (THz)", "several units"),
        ("", "does not state the unit"),
        ("# alpha2F of the run of Monday", "does not state the unit"),
        ("# a2F in K space", "does not state the unit"),
        ("# frequency K resolved", "does not state the unit"),
    ],
)
def test_units_that_are_not_understood(tmp_path, header, message):
    path = write(tmp_path / "a.dat", [header], "meV", [reference().values])
    with pytest.raises(InputError, match=message):
        read_alpha2f(path)
    assert read_alpha2f(path, unit="meV").coupling == pytest.approx(reference().coupling, rel=1e-6)


def test_file_of_lambda_x(tmp_path):
    """Broadenings in the header, THz; against own sums and the formula of Allen and Dynes."""
    columns = [factor * reference().values for factor in (0.5, 0.8, 1.0)]
    path = write(tmp_path / "alpha2F.dat", ["# E(THz)     0.005     0.010     0.015"], "THz", columns)
    spectrum = read_spectra([path], column=3)["alpha2F.dat"]
    found = compute_tc({"alpha2F.dat": spectrum}, tmp_path / "tc", TcSettings(mu_star=[0.1]))
    assert "alpha2F.dat: frequencies in THz (as the file says), column 3 of 3 (0.015)" in found.report()
    result = found.summary
    assert "THz" in result["read_as"]
    w, a = reference().omega, reference().values
    coupling = 2 * np.trapezoid(a / w, w)
    log = np.exp(2 / coupling * np.trapezoid(a * np.log(w) / w, w)) / 0.08617333
    second = np.sqrt(2 / coupling * np.trapezoid(a * w, w)) / 0.08617333
    f1 = (1 + (coupling / (2.46 * 1.38)) ** 1.5) ** (1 / 3)
    f2 = 1 + (second / log - 1) * coupling**2 / (coupling**2 + (1.82 * 1.63 * second / log) ** 2)
    tc = f1 * f2 * log / 1.2 * np.exp(-1.04 * (1 + coupling) / (coupling - 0.1 * (1 + 0.62 * coupling)))
    assert result["lambda"] == pytest.approx(coupling, rel=1e-6)
    assert result["omega_log_K"] == pytest.approx(log, rel=1e-5)
    assert result["tc_K"]["0.1"] == pytest.approx(tc, rel=1e-5)


@pytest.mark.parametrize("smearings", [1, 10])
def test_columns_of_epw(tmp_path, smearings):
    """The second half of the columns is lambda(w); the header may announce more smearings than are written."""
    spectra = [reference().values * (1 + 0.1 * i) for i in range(2)]
    integrals = [Alpha2F(reference().omega, values).cumulative_coupling() for values in spectra]
    header = f" w[meV] a2f and integrated 2*a2f/w for {smearings:4d} smearing values"
    path = write(
        tmp_path / "pb.a2f", [header], "meV", [*spectra, *integrals], " Integrated el-ph coupling\n  #  0.7  0.8"
    )
    assert read_alpha2f(path, column=2).coupling == pytest.approx(1.1 * reference().coupling, rel=1e-6)
    for column in (3, 4):
        with pytest.raises(InputError, match="never falls, so it is lambda"):
            read_alpha2f(path, column=column)


def test_columns_of_single_modes(tmp_path):
    header = ["", "# frequencies in Rydberg", "# DOS normalized to E in Rydberg: a2F_total, a2F(mode) "]
    path = write(tmp_path / "a2F.dos3", header, "Ry", [reference().values, 0.4 * reference().values], " lambda = 1")
    assert read_alpha2f(path).coupling == pytest.approx(reference().coupling, rel=1e-6)
    with pytest.raises(InputError, match="column 2 is alpha2F of a single mode"):
        read_alpha2f(path, column=2)


@pytest.mark.parametrize(("stated", "real"), [("meV", "Ry"), ("meV", "eV"), ("eV", "meV"), ("Ry", "THz")])
def test_frequencies_that_no_crystal_has(tmp_path, stated, real):
    path = write(tmp_path / "a.dat", [f"# E ({stated})"], real, [reference().values])
    with pytest.raises(InputError, match="its highest phonon energy is"):
        read_alpha2f(path)
