"""Hessian labels on their way through a host: read and checked once, drawn as probes and products in every epoch.

A stored label keeps the arrays of :meth:`HessianLabel.to_info` under the prefix :data:`LABEL`; what is drawn from it
for one step has names of its own (:mod:`hint_plugins.training.protocol`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
from ase import Atoms

from hint_plugins.config import ConfigError, HintConfig
from hint_plugins.curvature.probes import sees_structure, structure_rng
from hint_plugins.labels.checks import check_label
from hint_plugins.labels.hessian_label import HessianLabel, LabelError
from hint_plugins.objective.parts import groups_of, pairs_of_part, require_part
from hint_plugins.structures.frozen import free_components, only
from hint_plugins.training.protocol import DRAWN_PROBES, DRAWN_PRODUCTS

log = logging.getLogger(__name__)

#: Default key of a label in a structure file.
KEY = HintConfig.model_fields["hessian_key"].default
#: Prefix of a label's arrays while they ride through the host.
LABEL = "hessian"
#: Seed and counter of the validation probes: fixed for every run and epoch.
VALIDATION_SEED, VALIDATION_EPOCH = 20_260_325, 2**20


def label_keys(config: HintConfig) -> tuple[str, ...]:
    """Where a label is looked for: under the chosen key; the default one is called ``hessian`` in databases."""
    return (KEY, "hessian") if config.hessian_key == KEY else (config.hessian_key,)


class LabelReader:
    """Labels of structures, checked before they are trained on.

    Attributes
    ----------
    dropped
        Sources of the structures whose labels did not pass.
    """

    def __init__(self) -> None:
        self.dropped: set[str] = set()

    def read(self, config: HintConfig, atoms: Atoms, forces: np.ndarray | None) -> dict[str, np.ndarray] | None:
        """The arrays of the label that a structure carries; None without one, or when it is dropped.

        Parameters
        ----------
        config
            Key of the label, law of the probes, and what to do with a bad label.
        atoms
            The structure.
        forces
            Those that the host trains on, eV/A.

        Raises
        ------
        LabelError
            For a bad label, unless bad ones are to be dropped.
        """

        part, groups = config.hessian_part, None

        def find() -> HessianLabel | None:
            nonlocal groups
            found = (HessianLabel.from_info(atoms.info, len(atoms), key) for key in label_keys(config))
            label = next((label for label in found if label is not None), None)
            if label is not None and part != "all":
                groups = groups_of(part, atoms, config.hessian_part_key)
                require_part(part, label, groups, free_components(atoms))
            return label

        label = self._judged(config, atoms, forces, find)
        if label is None:
            return None
        stored: dict[str, np.ndarray] = {f"{LABEL}_pbc": np.array(atoms.pbc, dtype=np.int8)}
        label.to_info(stored, LABEL)
        free = free_components(atoms)
        if not free.all():
            stored[f"{LABEL}_free"] = free.astype(np.int8)
        if groups is not None:
            stored[f"{LABEL}_{part}"] = groups
        if sees_structure(config.hessian_probes):
            stored |= {LABEL + name: values for name, values in _structure_arrays(atoms).items()}
        return stored

    def passes(
        self, config: HintConfig, labels: Mapping[str, np.ndarray], atoms: Atoms, forces: np.ndarray | None
    ) -> bool:
        """Whether arrays that :meth:`read` once gave hold a label, and one that passes its checks."""
        return self._judged(config, atoms, forces, lambda: stored_label(labels, len(atoms))) is not None

    def _judged(
        self, config: HintConfig, atoms: Atoms, forces: np.ndarray | None, find: Callable[[], HessianLabel | None]
    ) -> HessianLabel | None:
        """The label that ``find`` gives, once it has passed its checks; None without one, or when it is dropped."""
        source = atoms.info.get("hint_source", atoms.get_chemical_formula())
        try:
            label = find()
            if label is None:
                return None
            only(atoms, label.known)  # refuses constraints that leave no block of free atoms
            reasons = check_label(label, atoms, forces).reasons
        except LabelError as error:
            reasons = [str(error)]
        if not reasons:
            return label
        message = f"bad Hessian label: {source}: {'; '.join(reasons)}"
        if config.hessian_on_bad_label == "error":
            raise LabelError(f"{message}. Mend the label, or train without the bad ones: hessian_on_bad_label drop")
        if source not in self.dropped:
            log.warning("%s (label dropped)", message)
        self.dropped.add(source)
        return None


def stored_label(labels: Mapping[str, np.ndarray], num_atoms: int) -> HessianLabel | None:
    """The label in arrays of :meth:`LabelReader.read`; None where they hold none."""
    return HessianLabel.from_info(labels, num_atoms, LABEL)


def draw(
    config: HintConfig, labels: Mapping[str, np.ndarray], num_atoms: int, epoch: int | None, index: int, seed: int
) -> dict[str, np.ndarray] | None:
    """Probes and products of a stored label for one epoch; None where there is no label.

    Parameters
    ----------
    config
        Law and number of the probes, and the part of the Hessian that is compared.
    labels
        Arrays of :meth:`LabelReader.read`.
    num_atoms
        N.
    epoch
        None for validation, whose probes are the same in every run and epoch.
    index
        Of the structure in its data set.
    seed
        Of the run.

    Returns
    -------
    dict
        The drawn arrays, both (N, m, 3); components that are frozen, unknown or of no interest are NaN in the products.

    Raises
    ------
    ConfigError
        If the label cannot be probed by this law.
    """
    label = stored_label(labels, num_atoms)
    if label is None:
        return None
    counters = (VALIDATION_SEED, VALIDATION_EPOCH) if epoch is None else (seed, epoch)
    law = config.hessian_probes
    structure = _structure(labels) if sees_structure(law) else None
    try:
        rng = structure_rng(*counters, index)
        z, hz = label.pairs(config.hessian_num_probes, law, rng, structure)
    except ValueError as error:
        raise ConfigError(f"hessian_probes {law}: {error}") from None
    free = np.asarray(labels.get(f"{LABEL}_free", np.ones(3 * num_atoms))).reshape(-1).astype(bool)
    if (part := config.hessian_part) != "all":
        if f"{LABEL}_{part}" not in labels:
            raise ConfigError(f"hessian_part {part}: prepared data must be prepared with the same option")
        groups = np.asarray(labels[f"{LABEL}_{part}"]).reshape(-1)
        z, hz = pairs_of_part(part, label, groups, free, z, rng)
    elif not free.all():
        z, hz = _of_free_atoms(label, z, hz, free)
    return {DRAWN_PROBES: _per_atom(z), DRAWN_PRODUCTS: _per_atom(hz)}


def _of_free_atoms(
    label: HessianLabel, z: np.ndarray, hz: np.ndarray, free: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Probes and products (m, 3N) where only the components ``free`` (3N,) move and are compared.

    A whole Hessian or a block is probed along free components; columns and projections keep the directions they were
    made with. Products of frozen components become NaN, which the loss leaves out.
    """
    if label.kind in ("full", "block"):
        z = np.where(free, z, 0.0)
        hz = label.times(z)
    return z, np.where(free, hz, np.nan)


def _structure_arrays(atoms: Atoms) -> dict[str, np.ndarray]:
    """What a probe law may ask about a structure, as arrays that ride with its label."""
    return {
        "_numbers": atoms.numbers,
        "_positions": atoms.positions,
        "_cell": atoms.cell.array,
        "_masses": atoms.get_masses(),
    }


def _structure(labels: Mapping[str, np.ndarray]) -> Atoms | None:
    """The structure of :func:`_structure_arrays`; None where the label was read for another law."""
    if f"{LABEL}_numbers" not in labels:
        return None
    names = ("numbers", "positions", "cell", "masses", "pbc")
    return Atoms(**{name: np.asarray(labels[f"{LABEL}_{name}"]) for name in names})


def _per_atom(values: np.ndarray) -> np.ndarray:
    """(m, 3N) as (N, m, 3), which batches concatenate along atoms."""
    return np.ascontiguousarray(values.reshape(len(values), -1, 3).transpose(1, 0, 2))
