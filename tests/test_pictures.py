"""Every picture of the commands: readable, with units, and with the numbers of the tables beside it."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.figures import faults, keep_figures, texts
from helpers.structures import labelled_set

from hint_plugins.evaluation.parity import QUANTITIES, plot_parity
from hint_plugins.training.plots import plot_history

LONG = "a model with a rather long name that says much about its training-stagetwo-compiled-float64.model"


@pytest.fixture
def figures(monkeypatch):
    return keep_figures(monkeypatch)


def heights(axes) -> list[float]:
    return [bar.get_height() for group in axes.containers for bar in group]


@pytest.mark.parametrize("names", [list(QUANTITIES), ["energy", "forces"], ["products"]])
@pytest.mark.parametrize("title", ["emt", LONG])
def test_parity(tmp_path, figures, names, title):
    rng = np.random.default_rng(0)
    scales = {"energy": 0.5, "frequencies": 1500}
    reference = {name: rng.normal(-2300 if name == "energy" else 0, scales.get(name, 10), 300) for name in names}
    points = {name: np.stack([x, x + 0.1]) for name, x in reference.items()}
    summary = {key: 0.123 for _, _, key in QUANTITIES.values()}
    plot_parity(points, tmp_path / "parity.png", summary, title)
    assert not faults(figures[0])


def test_parity_of_one_point_and_of_nothing(tmp_path, figures):
    plot_parity({"energy": np.array([[1.0], [1.0]])}, tmp_path / "one.png", {})
    assert not faults(figures[0])
    plot_parity({}, tmp_path / "none.png", {})
    assert len(figures) == 1


def test_numbers_of_the_parity_plot_are_those_of_the_summary(tmp_path, figures):
    """Molecules of different size: the mean over structures is not the mean over the points shown."""
    from typer.testing import CliRunner

    from hint_plugins.cli.main import app
    from hint_plugins.storage.store import write_structures

    frames = labelled_set(6, every=1)
    for atoms in frames:
        atoms.info["REF_hessian"] = atoms.info["REF_hessian"] * 1.01
    write_structures(tmp_path / "test.xyz", frames)
    words = ["evaluate", "emt", str(tmp_path / "test.xyz"), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, words).exit_code == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    titles = {axes.get_xlabel(): axes.get_title() for axes in figures[-1].axes}
    for name in ("energy", "forces", "hessian", "eigenvalues", "frequencies"):
        label, unit, key = QUANTITIES[name]
        assert f"MAE {summary[key]:.3g} {unit}, " in titles[f"reference {label}"]


@pytest.mark.parametrize("heads", [[None], ["low level", "high level"]])
@pytest.mark.parametrize("count", [1, 30])
def test_history(tmp_path, figures, heads, count):
    history = [
        {"epoch": 2 * k, "hessian_weight": 0.1, "hvp_mae": 2.0 / (1 + k)}
        | {"hessian_mae": 1.0 / (1 + k), "frequency_mae_cm1": 300.0 / (1 + k), "eigenvalue_mae": 1.0}
        | ({"head": head} if head else {})
        for k in range(count)
        for head in heads
    ]
    plot_history(history, tmp_path / "history.png")
    assert [fault for fault in faults(figures[0]) if count > 1 or "single value" not in fault] == []
    assert all(f"head {head}" in texts(figures[0]) for head in heads if head)


def test_history_of_a_run_without_metrics(tmp_path, figures):
    plot_history([{"epoch": k, "hessian_weight": 0.1 * k} for k in range(3)], tmp_path / "history.png")
    assert not faults(figures[0])


def test_map(tmp_path, figures):
    from hint_plugins.selection.choose import Selection
    from hint_plugins.selection.plot import plot_map

    rng = np.random.default_rng(0)
    taken = np.arange(90) % 3 == 0
    for width in (1, 2):
        points = rng.normal(size=(90, width))
        chosen = Selection(taken, taken & (np.arange(90) % 2 == 0), np.ones(90), ["H2O"] * 90, points, 0.9)
        plot_map(chosen, tmp_path / f"map{width}.png")
    assert not faults(figures[0])
    assert not faults(figures[1])
    assert "energy, forces, Hessian (15)" in texts(figures[1])


def demo_rows(sizes, seeds):
    from hint_recipes.demo.tables import ERRORS

    rng = np.random.default_rng(0)
    return [
        {"training": kind, "seed": seed, "structures": size, "labelled": size}
        | {key: 300 * rng.random() / size for key in ERRORS}
        for kind in ("E/F", "E/F/H")
        for size in sizes
        for seed in range(seeds)
    ]


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("sizes", [(6,), (3, 6, 12, 24)])
def test_demo(tmp_path, figures, sizes, seeds):
    """Every error of the table is drawn, also one that got worse, and one size gives bars with their numbers."""
    from hint_recipes.demo.plots import plot_comparison
    from hint_recipes.demo.tables import ERRORS, compare

    rows = demo_rows(sizes, seeds)
    plot_comparison(rows, tmp_path / "comparison.png")
    assert not faults(figures[0])
    assert [axes.get_ylabel() for axes in figures[0].axes] == list(ERRORS.values())
    table = {(row["structures"], row["error"]): row for row in compare(rows)}
    for axes, key in zip(figures[0].axes, ERRORS, strict=True):
        means = [table[size, key][kind] for kind in ("ef", "efh") for size in sizes]
        shown = heights(axes) if len(sizes) == 1 else [y for line in axes.lines for y in line.get_ydata()]
        assert shown == pytest.approx(means)
        assert axes.get_ylim()[0] == 0


def search_result(name, reason=None, followed=True):
    from hint_recipes.molecules.transition_states.result import SearchResult

    frames = []
    for x, energy in zip(np.linspace(0, 2, 9), [-1, -0.9, -0.5, 0.2, 0.6, 0.3, -0.4, -1.2, -1.3], strict=True):
        atoms = Atoms("HCN", [[0, 0, -1.07 - x], [0, 0, 0], [0, 0, 1.15]])
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
        frames.append(atoms)
    record = {"name": name, "intended": reason is None, "reason": reason, "imaginary_cm1": 1234.0}
    record["reactant_energy"] = -1.1  # another conformer than the first frame
    return SearchResult(record, frames, frames[4], frames if followed else None)


@pytest.mark.parametrize(("name", "reason"), [("HCN to HNC", None), (LONG, "endpoint_not_minimum")])
@pytest.mark.parametrize("followed", [True, False])
def test_profile(tmp_path, figures, name, reason, followed):
    """The zero is the relaxed reactant, as in the table of barriers; the star stands at the barrier."""
    from hint_plugins.units import KCAL
    from hint_recipes.molecules.transition_states.plots import plot_profile

    plot_profile(search_result(name, reason, followed), tmp_path / "profile.png")
    assert not faults(figures[0])
    drawn = figures[0].axes[0].lines[0].get_ydata()
    assert (drawn[0], max(drawn)) == pytest.approx((0.1 / KCAL, 1.7 / KCAL))
    if followed:
        assert figures[0].axes[0].lines[1].get_ydata() == pytest.approx([1.7 / KCAL])


@pytest.mark.parametrize("models", [["emt"], ["emt", LONG, "c", "d", "e"]])
def test_success(tmp_path, figures, models):
    from hint_recipes.molecules.transition_states.plots import plot_success

    summaries = {name: {"n_reactions": 9, "n_path": 8, "n_ts": 7, "n_intended": 5 - k} for k, name in enumerate(models)}
    plot_success(summaries, tmp_path / "success.png")
    assert not faults(figures[0])
    assert heights(figures[0].axes[0])[:3] == [8, 7, 5]


@pytest.mark.parametrize("count", [1, 12])
@pytest.mark.parametrize("models", [["emt"], ["emt", LONG]])
def test_stability(tmp_path, figures, models, count):
    from hint_recipes.molecules.stability.plots import plot_stability

    rows = [{"name": f"{LONG[: 8 * k]}{k}", "temperature_K": 500.0 + k, "survived": k == 1} for k in range(count)]
    plot_stability(dict.fromkeys(models, rows), tmp_path / "stability.png")
    assert not faults(figures[0])
    assert "survived the whole ramp" in texts(figures[0])
    assert heights(figures[0].axes[0])[:count] == [row["temperature_K"] for row in rows]


def test_fingerprint(tmp_path, figures):
    from hint_recipes.molecules.paths.fingerprint import Fingerprint, plot_fingerprint

    x = np.linspace(0, 3, 11)
    waves = np.stack([2000 - 3400 * np.exp(-((x - 1.5) ** 2)), 2000 + 0 * x, 3300 - 300 * x], axis=1)
    found = Fingerprint(x, np.sin(x), waves, waves[:, :2], np.zeros((11, 9, 9)))
    plot_fingerprint(found, tmp_path / "fingerprint.png", title=LONG)
    assert not faults(figures[0])


@pytest.mark.parametrize("models", [["emt"], ["emt", LONG]])
def test_gibbs_errors(tmp_path, figures, models):
    """The bars are the mean absolute errors of ``summary.json``."""
    from hint_recipes.molecules.thermochemistry.plots import plot_gibbs_errors
    from hint_recipes.molecules.thermochemistry.reactions import errors_against

    rows = [
        {"name": f"{role}{k}", "role": role, "reaction": None, "energy": 0.1 * k, "gibbs": 0.2 * k}
        | {"gibbs_correction": 0.1 * k}
        for k, role in enumerate(["reactant", "ts", "product", "ts"])
    ]
    zero = [row | dict.fromkeys(("energy", "gibbs", "gibbs_correction"), 0.0) for row in rows]
    differences, maes = errors_against(rows, zero)
    plot_gibbs_errors(dict.fromkeys(models, differences), tmp_path / "errors.png")
    assert not faults(figures[0])
    for axes, key in zip(figures[0].axes, ("gibbs_mae", "gibbs_correction_mae"), strict=True):
        assert heights(axes)[:2] == pytest.approx([maes[f"{key}_minima"], maes[f"{key}_ts"]])


def test_phonons(tmp_path, figures):
    pytest.importorskip("phonopy")
    from hint_plugins.potential import Potential
    from hint_recipes.crystals.force_constants.from_potential import force_constants_from_potential
    from hint_recipes.crystals.phonons.harmonic import harmonic
    from hint_recipes.crystals.phonons.plots import plot_bands, plot_dos, plot_thermal

    constants = force_constants_from_potential(Potential.load("emt"), bulk("Pd", a=3.9), (2, 2, 2))
    result = harmonic(constants, mesh=(2, 2, 2), temperatures=[0.0, 300.0], points=5)
    for names in (["emt"], ["emt", LONG, "reference"]):
        plot_bands(dict.fromkeys(names, result.bands), tmp_path / "bands.png")
        plot_dos(dict.fromkeys(names, result), tmp_path / "dos.png")
        plot_thermal(dict.fromkeys(names, result), tmp_path / "thermal.png")
    assert [faults(figure) for figure in figures] == [[]] * 6


def test_critical_temperature(tmp_path, figures):
    from hint_recipes.crystals.superconductivity.alpha2f import from_modes
    from hint_recipes.crystals.superconductivity.settings import TcSettings
    from hint_recipes.crystals.superconductivity.study import compute_tc

    spectra = {
        name: from_modes(np.array([[e]]), np.array([[1.0]]), np.ones(1), smearing=1.0)
        for name, e in (("PdH harmonic", 50.0), (LONG, 60.0))
    }
    compute_tc(spectra, tmp_path, TcSettings(mu_star=[0.1, 0.13], eliashberg=True, cutoff=6))
    assert len(figures) == 3
    assert [faults(figure) for figure in figures] == [[]] * 3


def test_convergence_of_tc(tmp_path, figures):
    from hint_recipes.crystals.superconductivity.convergence import _plot

    rows = [
        {"source": name, "varied": "broadening", "value": k, "lambda": 1 + 0.1 * k, "tc_allen_dynes_K": 10.0 + k}
        for name in ("PdH harmonic", LONG)
        for k in range(1, 11)
    ]
    _plot(rows, 0.125, tmp_path / "convergence.png")
    assert not faults(figures[0])


def test_sscha_history(tmp_path, figures):
    from hint_recipes.crystals.sscha.output import write_history
    from hint_recipes.crystals.sscha.state import State

    steps = [
        {"stage": 0, "population": k // 5, "free_energy_eV": -1 + 0.01 / (1 + k), "error_eV": 0.001}
        | {"gradient_over_error": 10 / (1 + k), "kong_liu": 1 - 0.02 * k}
        for k in range(15)
    ]
    write_history(tmp_path, State(None, steps=steps, history=[{"population": 0}]), -1.2)
    assert not faults(figures[0])


@pytest.mark.parametrize("count", [1, 7])
def test_rank(tmp_path, figures, count):
    from hint_recipes.crystals.sscha.rank_table import compare, plot_ranking

    rows = [
        {"name": f"phase {k}" if k else LONG, "gibbs_eV_per_atom": 3e-3 * k, "error_eV_per_atom": 1e-4}
        for k in range(count)
    ]
    compare(rows)
    plot_ranking(rows, tmp_path / "ranking.png")
    assert not faults(figures[0])


def test_line_scan(tmp_path, figures):
    from hint_recipes.crystals.finetune.line_scan import plot_scan

    x = np.linspace(-0.4, 0.4, 41)
    points = [{"amplitude_A": a, "energy": a**2} for a in x[::10]]
    plot_scan(x, {"harmonic reference": x**2, LONG: x**2 + x**4}, points, -312.0, tmp_path / "line_scan.png")
    assert not faults(figures[0])


def test_the_helper_sees_what_is_wrong(figures, tmp_path):
    """Otherwise the tests above say nothing."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.plot([6, 6], [1, 2], label="data")
    axes.set(xlabel="structures", ylabel="an energy whose name is longer than the picture is high (eV)")
    axes.legend()
    figure.suptitle("one title", y=0.95)
    axes.set_title("another title", y=1.0)
    figure.savefig(tmp_path / "bad.png", dpi=100)
    found = "\n".join(faults(figures[0]))
    for words in ("clipped", "single value", "'structures' has no unit", "legend lies over data", "lies over"):
        assert words in found


def test_the_demo_says_in_words_what_rose(tmp_path):
    from hint_recipes.demo.tables import KEYS, compare, sentences, with_units

    rows = demo_rows((6,), 1)
    for row in rows:
        row |= {"hessian_mae": 3.0, "energy_mae_per_atom": 0.2}
        if row["training"] == "E/F/H":
            row |= {"hessian_mae": 1.5, "energy_mae_per_atom": 0.3}
    words = "\n".join(sentences(compare(rows)))
    assert "6 structures per reaction, 6 with a Hessian" in words
    assert "the Hessian MAE falls from 3 to 1.5 eV/Å², 0.50 times as much" in words
    assert "the energy MAE rises from 0.2 to 0.3 eV/atom, 1.50 times as much" in words
    assert set(KEYS.values()) <= set(with_units(rows)[0])


@pytest.mark.parametrize(
    ("value", "text"), [(1066.2, "1066"), (543.21, "543"), (20.04, "20"), (0.49612, "0.496"), (1.5e-5, "1.5e-05")]
)
def test_numbers_on_bars(value, text):
    from hint_plugins.runs.figures import three_digits

    assert three_digits(value) == text
