"""Probe laws: random directions with zero mean and unit covariance (Hutchinson).

With ``E[z z^T] = 1`` the expectation of ``||A z||^2`` is ``||A||_F^2`` for every law, so the laws differ
in variance only. HINT (arXiv:2603.25373) uses Rademacher probes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
from ase import Atoms

from hint_plugins.registries import registries, resolve

#: ``(count, dim, rng)`` to probes ``(count, dim)``; a law with a fourth parameter named ``structure`` gets the atoms.
ProbeLaw = Callable[..., np.ndarray]


def rademacher(count: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Independent signs: the least variance among laws with independent entries."""
    return rng.integers(0, 2, size=(count, dim)).astype(np.float64) * 2.0 - 1.0


def gaussian(count: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Independent standard normal entries."""
    return rng.standard_normal((count, dim))


def columns(count: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Scaled unit vectors ``sqrt(dim) e_j`` (one column of the Hessian each), no column twice in a round."""
    order = np.concatenate([rng.permutation(dim) for _ in range(-(-count // dim))])[:count]
    probes = np.zeros((count, dim))
    probes[np.arange(count), order] = np.sqrt(dim)
    return probes


def orthogonal(count: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of Haar-random orthogonal matrices times ``sqrt(dim)``: probes that never repeat each other."""
    blocks = []
    for start in range(0, count, dim):
        rows = min(dim, count - start)
        q, r = np.linalg.qr(rng.standard_normal((dim, rows)))
        blocks.append((q * np.sign(np.diagonal(r))).T)
    return np.concatenate(blocks) * np.sqrt(dim)


def probe_law(name: str) -> ProbeLaw:
    """The law of this name (:attr:`hint_plugins.registries.Registries.probe_laws`).

    Raises
    ------
    ValueError
        If there is none.
    """
    known = registries().probe_laws
    if name not in known:
        raise ValueError(f"unknown probe law {name!r}: known laws are {', '.join(sorted(known))}")
    law: ProbeLaw = resolve(known[name])
    return law


def sees_structure(law: str) -> bool:
    """Whether a law asks for the structure (a parameter named ``structure``)."""
    return "structure" in inspect.signature(probe_law(law)).parameters


def draw_probes(law: str, count: int, dim: int, rng: np.random.Generator, structure: Atoms | None = None) -> np.ndarray:
    """Draw ``count`` probes of length ``dim``.

    Parameters
    ----------
    law
        Its name; plugins may add laws with ``register_probe_laws``.
    count
        Number of probes, m >= 1.
    dim
        Length of a probe, 3N.
    rng
        Source of randomness.
    structure
        The atoms that the probes displace, for laws that ask for them.

    Returns
    -------
    numpy.ndarray
        ``(count, dim)`` float64.

    Raises
    ------
    ValueError
        If the law is unknown, ``count < 1``, the law needs a structure and there is none, or the law gives another
        shape or numbers that are not finite.
    """
    function = probe_law(law)
    if count < 1:
        raise ValueError(f"the number of probes must be at least 1, got {count}")
    if not sees_structure(law):
        probes = np.asarray(function(count, dim, rng), dtype=np.float64)
    elif structure is None:
        raise ValueError(
            f"probe law {law!r} needs the structure, and here there is none: labels of single columns take laws that "
            "do without, and prepared data must be prepared with this law"
        )
    else:
        probes = np.asarray(function(count, dim, rng, structure=structure), dtype=np.float64)
    if probes.shape != (count, dim) or not np.isfinite(probes).all():
        raise ValueError(f"probe law {law!r} gave {probes.shape} numbers, wanted are {(count, dim)} finite ones")
    return probes


def structure_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Generator of the probes of one structure in one epoch.

    Counter-based: the draw depends on (seed, epoch, structure) alone, so it is the same for every number of
    processes and workers, and a restarted run continues with the probes of an unbroken one.
    """
    return np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), (epoch << 40) ^ index]))
