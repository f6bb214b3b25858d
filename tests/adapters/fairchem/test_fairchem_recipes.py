"""Studies of ``hint`` on a fairchem checkpoint, through the command line itself."""

import csv

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.io import write
from helpers.fairchem_run import save
from typer.testing import CliRunner

from hint_plugins.cli.main import app
from hint_plugins.objective.metrics import frequencies
from hint_plugins.potential import Potential
from hint_plugins.units import CM1


@pytest.fixture
def checkpoint(make_run, tmp_path):
    return save(make_run(start=False), tmp_path / "toy.pt")


def hint(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


def table(path):
    with path.open() as handle:
        return list(csv.DictReader(handle))


def test_gibbs(checkpoint, tmp_path):
    """The zero-point energy is that of the checkpoint's own exact Hessian."""
    water = molecule("H2O")
    write(tmp_path / "water.xyz", water)
    out = tmp_path / "gibbs"
    hint("gibbs", tmp_path / "water.xyz", "--model", checkpoint, "--out", out, "--no-relax", "--dtype", "float64")
    potential = Potential.load(checkpoint, "cpu", "float64")
    waves = frequencies(potential.hessian(water), water)
    (row,) = table(out / "gibbs.csv")
    assert float(row["zpe"]) == pytest.approx(0.5 * waves[waves > 0].sum() * units.invcm, rel=1e-4)
    assert int(row["n_imaginary"]) == (waves < 0).sum()
    assert float(row["energy"]) == pytest.approx(potential.evaluate([water]).energies[0], abs=1e-6)


def test_phonons(checkpoint, tmp_path):
    """On the mesh of the supercell they are the eigenvalues of the supercell's Hessian."""
    copper = bulk("Cu", a=3.6)
    write(tmp_path / "copper.cif", copper)
    out = tmp_path / "phonons"
    hint("phonons", tmp_path / "copper.cif", "--model", checkpoint, "--out", out, "--supercell", 2, 2, 2,
         "--dtype", "float64", "--mesh", 2, 2, 2)  # fmt: skip
    supercell = copper * (2, 2, 2)
    hessian = Potential.load(checkpoint, "cpu", "float64").hessian(supercell)
    values = np.linalg.eigvalsh(hessian) / copper.get_masses()[0]
    expected = np.sign(values) * np.sqrt(np.abs(values)) * CM1
    found = np.sort([float(row["cm1"]) for row in table(out / "frequencies.csv")])
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
