"""Every Hessian layout into every other and back."""

import numpy as np
import pytest
import torch
from ase.units import Bohr, Hartree, Rydberg
from hypothesis import given
from hypothesis import strategies as st

from hint_plugins import units
from hint_plugins.curvature.layouts import Layout, convert, num_atoms
from hint_plugins.units import HESSIAN_UNITS

layouts = st.sampled_from(list(Layout))


@given(n=st.integers(1, 5), source=layouts, target=layouts, use_torch=st.booleans())
def test_round_trip(n, source, target, use_torch):
    flat = np.random.default_rng(n).standard_normal((3 * n, 3 * n))
    start = convert(torch.as_tensor(flat) if use_torch else flat, Layout.FLAT, source)
    there = convert(start, source, target)
    back = convert(there, target, Layout.FLAT)
    assert isinstance(back, torch.Tensor) == use_torch
    assert num_atoms(tuple(there.shape), target) == n
    np.testing.assert_array_equal(np.asarray(back), flat)


@given(n=st.integers(1, 4), data=st.data())
def test_each_element_is_where_the_layout_says(n, data):
    i, j = (data.draw(st.integers(0, n - 1)) for _ in range(2))
    a, b = (data.draw(st.integers(0, 2)) for _ in range(2))
    flat = np.arange(9.0 * n * n).reshape(3 * n, 3 * n)
    value = flat[3 * i + a, 3 * j + b]
    assert convert(flat, "3N,3N", "9N2")[(3 * i + a) * 3 * n + 3 * j + b] == value
    assert convert(flat, "3N,3N", "3N,N,3")[3 * i + a, j, b] == value
    assert convert(flat, "3N,3N", "N,N,3,3")[i, j, a, b] == value
    assert convert(flat, "3N,3N", "N,3,N,3")[i, a, j, b] == value


@given(unit=st.sampled_from(sorted(HESSIAN_UNITS)), target=layouts)
def test_units(unit, target):
    flat = np.random.default_rng(0).standard_normal((6, 6))
    found = convert(convert(flat, "3N,3N", target, unit=unit), target, "3N,3N")
    np.testing.assert_allclose(found, flat * HESSIAN_UNITS[unit])


def test_unit_values():
    """Ha/Bohr^2 and Ry/Bohr^2 in eV/A^2, by CODATA."""
    assert HESSIAN_UNITS["Ha/Bohr^2"] == pytest.approx(97.1736, rel=1e-5)
    assert HESSIAN_UNITS["Ha/Bohr^2"] == Hartree / Bohr**2
    assert HESSIAN_UNITS["Ry/Bohr^2"] == pytest.approx(HESSIAN_UNITS["Ha/Bohr^2"] / 2, rel=1e-9)
    assert HESSIAN_UNITS["Ry/Bohr^2"] == Rydberg / Bohr**2


def test_input_is_not_changed():
    flat = np.eye(6)
    convert(flat, "3N,3N", "N,N,3,3", unit="Ha/Bohr^2")[:] = 0
    np.testing.assert_array_equal(flat, np.eye(6))


@pytest.mark.parametrize(
    ("array", "source", "message"),
    [
        (np.zeros((6, 5)), "3N,3N", "no Hessian in layout"),
        (np.zeros(37), "9N2", "no Hessian in layout"),
        (np.zeros((2, 3, 3, 2)), "N,3,N,3", "no Hessian in layout"),
        (np.zeros(0), "9N2", "no Hessian in layout"),
        (np.zeros((6, 6)), "N3N3", "known layouts"),
    ],
)
def test_bad_shapes(array, source, message):
    with pytest.raises(ValueError, match=message):
        convert(array, source, "3N,3N")


def test_bad_unit():
    with pytest.raises(ValueError, match="known units"):
        convert(np.eye(3), "3N,3N", "3N,3N", unit="mdyn/A")


def test_named_conversions():
    """CODATA 2018 values and textbook numbers, not ASE's."""
    assert pytest.approx(51.42207, rel=1e-6) == units.HARTREE_PER_BOHR
    assert pytest.approx(25.71104, rel=1e-6) == units.RYDBERG_PER_BOHR
    assert pytest.approx(1 / 23.06055, rel=1e-6) == units.KCAL
    assert pytest.approx(1 / 96.48533, rel=1e-6) == units.KJ
    assert pytest.approx(1822.8885, rel=1e-7) == units.ELECTRON_MASSES
    assert pytest.approx(521.4709, rel=1e-7) == units.CM1
    assert pytest.approx(33.35641, rel=1e-7) == units.THZ_TO_CM1
