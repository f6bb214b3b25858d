"""Every Hessian layout into every other and back."""

import numpy as np
import pytest
import torch
from ase.units import Bohr, Hartree, Rydberg
from hypothesis import given
from hypothesis import strategies as st

from hint_plugins.curvature.layouts import UNITS, Layout, convert, num_atoms

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


@given(unit=st.sampled_from(sorted(UNITS)), target=layouts)
def test_units(unit, target):
    flat = np.random.default_rng(0).standard_normal((6, 6))
    found = convert(convert(flat, "3N,3N", target, unit=unit), target, "3N,3N")
    np.testing.assert_allclose(found, flat * UNITS[unit])


def test_unit_values():
    """Ha/Bohr^2 and Ry/Bohr^2 in eV/A^2, by CODATA."""
    assert UNITS["Ha/Bohr^2"] == pytest.approx(97.1736, rel=1e-5)
    assert UNITS["Ha/Bohr^2"] == Hartree / Bohr**2
    assert UNITS["Ry/Bohr^2"] == pytest.approx(UNITS["Ha/Bohr^2"] / 2, rel=1e-9)
    assert UNITS["Ry/Bohr^2"] == Rydberg / Bohr**2


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
