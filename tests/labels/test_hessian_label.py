import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hint_plugins.labels.hessian_label import HessianLabel, LabelError


def symmetric(n, seed=0):
    a = np.random.default_rng(seed).standard_normal((3 * n, 3 * n))
    return a + a.T


def make(kind, n, seed=0):
    h = symmetric(n, seed)
    rng = np.random.default_rng(seed)
    if kind == "full":
        return h, HessianLabel.full(h)
    if kind == "columns":
        index = rng.permutation(3 * n)[: max(1, n)]
        return h, HessianLabel.columns(index, h[:, index].T)
    z = rng.integers(0, 2, (2, 3 * n)) * 2.0 - 1
    return h, HessianLabel.projections(z, z @ h.T, n)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["full", "columns", "projections"]),
    n=st.integers(1, 5),
    m=st.integers(1, 7),
    law=st.sampled_from(["rademacher", "gaussian", "columns", "orthogonal"]),
    seed=st.integers(0, 999),
)
def test_pairs_are_products_with_the_matrix(kind, n, m, law, seed):
    h, label = make(kind, n, seed)
    z, hz = label.pairs(m, law, np.random.default_rng(seed))
    assert z.shape == hz.shape == (m, 3 * n)
    np.testing.assert_allclose(hz, z @ h, atol=1e-10 * max(1.0, np.abs(z).max() * np.abs(h).max() * 3 * n))


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(["full", "columns", "projections"]), n=st.integers(1, 5), seed=st.integers(0, 99))
def test_storage_round_trip(kind, n, seed):
    _, label = make(kind, n, seed)
    info = {"other": 1}
    label.to_info(info, "KEY")
    again = HessianLabel.from_info(info, n, "KEY")
    assert again.kind == kind
    np.testing.assert_array_equal(again.products, label.products)
    if kind != "full":
        np.testing.assert_array_equal(again.directions, label.directions)
    assert HessianLabel.from_info({"other": 1}, n, "KEY") is None


def test_column_estimates_are_unbiased():
    """The mean of ||dH z||^2 over draws from stored columns is that of the whole matrix, over columns and draws."""
    n = 2
    d = symmetric(n)
    rng = np.random.default_rng(0)
    values = []
    for _ in range(3000):
        index = rng.permutation(3 * n)[:2]
        label = HessianLabel.columns(index, d[:, index].T)
        _, dz = label.pairs(1, "rademacher", rng)
        values.append((dz**2).sum())
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - (d**2).sum()) < 5 * error


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"K": np.zeros(10)}, "10 numbers; 2 atoms need 9N.2 = 36"),
        ({"K_columns": np.zeros(6)}, "K_column_indices is missing"),
        ({"K_products": np.zeros(6)}, "K_probes is missing"),
        ({"K_probes": np.zeros(7), "K_products": np.zeros(6)}, "multiple of 3N"),
        ({"K_columns": np.zeros(6), "K_column_indices": [9]}, "distinct and in"),
        ({"K_columns": np.zeros(9), "K_column_indices": [0]}, "of 3 atoms on a structure of 2"),
        ({"K_columns": np.zeros(6), "K_column_indices": [0.5]}, "must be integers"),
        ({"K_columns": np.zeros(6), "K_column_indices": [np.nan]}, "must be integers"),
        ({"K_columns": np.zeros(6), "K_column_indices": ["a"]}, "not made of numbers"),
        ({"K_columns": "1.0D-13 2.0", "K_column_indices": [0]}, "'1.0D-13', Fortran's form"),
        ({"K": np.zeros(36) * 1j}, "complex"),
        ({"K": "[1, 2"}, "not made of numbers"),
        ({"K": {"a": 1}}, "not made of numbers"),
        ({"K": [None] * 36}, "not made of numbers"),
        ({"K": [[1.0], [2.0, 3.0]]}, "unequal length"),
        ({"K": np.ones(36, dtype=bool)}, "not made of numbers"),
        ({"K_probes": ["x"] * 6, "K_products": np.zeros(6)}, "not made of numbers"),
    ],
)
def test_malformed_labels_say_what_is_wrong(info, reason):
    with pytest.raises(LabelError, match=reason):
        HessianLabel.from_info(info, 2, "K")
