"""The acoustic sum rule: a common shift of all atoms raises no forces."""

from __future__ import annotations

import numpy as np

from hint_plugins.curvature.layouts import Layout, convert


def acoustic_sum_rule(hessian: np.ndarray) -> np.ndarray:
    """Project uniform translations out of a Hessian (3N, 3N): ``P H P``, ``P = 1 - sum_a |a><a|``.

    For a symmetric matrix that is the nearest one (Frobenius norm) that obeys the rule.
    """
    blocks = convert(hessian, Layout.FLAT, Layout.ASE)
    blocks = blocks - blocks.mean(axis=0, keepdims=True)
    blocks = blocks - blocks.mean(axis=2, keepdims=True)
    return convert(blocks, Layout.ASE, Layout.FLAT)
