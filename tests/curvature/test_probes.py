import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hint_plugins.curvature.probes import draw_probes, structure_rng
from hint_plugins.registries import registries


@pytest.mark.parametrize("law", list(registries().probe_laws))
def test_laws_have_zero_mean_and_unit_covariance(law):
    dim, draws = 6, 4000
    rng = np.random.default_rng(0)
    z = np.concatenate([draw_probes(law, 3, dim, rng) for _ in range(draws)])
    error = 6 * np.sqrt(dim / (3 * draws))  # six standard errors of the widest law (columns)
    covariance = z.T @ z / len(z)
    assert np.abs(covariance - np.eye(dim)).max() < error
    if law != "columns":  # a one-hot probe has a sign of no consequence
        assert np.abs(z.mean(axis=0)).max() < error


@settings(max_examples=40, deadline=None)
@given(
    law=st.sampled_from(sorted(registries().probe_laws)),
    count=st.integers(1, 9),
    dim=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_shapes_and_determinism(law, count, dim, seed):
    first = draw_probes(law, count, dim, np.random.default_rng(seed))
    again = draw_probes(law, count, dim, np.random.default_rng(seed))
    assert first.shape == (count, dim)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)


def test_orthogonal_probes_are_orthogonal_and_columns_do_not_repeat():
    z = draw_probes("orthogonal", 5, 9, np.random.default_rng(1))
    np.testing.assert_allclose(z @ z.T, 9 * np.eye(5), atol=1e-12)
    columns = draw_probes("columns", 9, 9, np.random.default_rng(1))
    assert sorted(columns.argmax(axis=1)) == list(range(9))
    np.testing.assert_allclose(columns.max(axis=1), 3.0)


def test_structure_rng_depends_on_seed_epoch_and_index_only():
    draws = {
        (s, e, i): draw_probes("gaussian", 1, 4, structure_rng(s, e, i)).tobytes()
        for s in (0, 1)
        for e in (0, 1)
        for i in (0, 1)
    }
    assert len(set(draws.values())) == len(draws)
    assert draws[1, 1, 1] == draw_probes("gaussian", 1, 4, structure_rng(1, 1, 1)).tobytes()


def test_bad_requests_are_named():
    with pytest.raises(ValueError, match="unknown probe law 'uniform'"):
        draw_probes("uniform", 1, 3, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least 1"):
        draw_probes("gaussian", 0, 3, np.random.default_rng(0))
