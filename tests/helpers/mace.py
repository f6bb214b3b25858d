"""Tiny MACE models and batches."""

from __future__ import annotations

import numpy as np
import torch
from mace import data, modules
from mace.data import AtomicData, KeySpecification
from mace.data.utils import config_from_atoms
from mace.tools import AtomicNumberTable
from mace.tools.default_keys import DefaultKeys  # noqa: F401

from hint_mace.data import STORED, Collate, read_into, take_labels
from hint_plugins.plugins import load_plugins
from hint_plugins.training.hint import HintPlugin

Z = AtomicNumberTable([1, 6, 7, 8, 29])
CUTOFF = 3.0


def tiny_mace(scale_shift: bool = True, interaction: str = "RealAgnosticResidualInteractionBlock", seed: int = 0):
    """A (ScaleShift)MACE with 8 channels in float64."""
    from e3nn import o3

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(seed)
    kind = modules.interaction_classes[interaction]
    settings = {
        "r_max": CUTOFF,
        "num_bessel": 5,
        "num_polynomial_cutoff": 5,
        "max_ell": 2,
        "interaction_cls": kind,
        "interaction_cls_first": kind,
        "num_interactions": 2,
        "num_elements": len(Z),
        "hidden_irreps": o3.Irreps("4x0e+4x1o"),
        "MLP_irreps": o3.Irreps("4x0e"),
        "gate": torch.nn.functional.silu,
        "atomic_energies": np.zeros(len(Z)),
        "avg_num_neighbors": 4.0,
        "atomic_numbers": Z.zs,
        "correlation": 2,
        "radial_type": "bessel",
    }
    if scale_shift:
        return modules.ScaleShiftMACE(**settings, atomic_inter_scale=1.3, atomic_inter_shift=0.1)
    return modules.MACE(**settings)


def manager_with(**options):
    """Plugin manager whose ``hint`` plugin has the given options; gives (manager, plugin)."""
    manager = load_plugins(["hint"])
    plugin = manager.get_plugin("hint")
    assert isinstance(plugin, HintPlugin)
    manager.hook.configure(values=options)
    return manager, plugin


def atomic_data(atoms, manager):
    """MACE's data object with the labels that the plugins read."""
    keys = data.update_keyspec_from_kwargs(KeySpecification(), {"energy_key": "REF_energy", "forces_key": "REF_forces"})
    config = read_into(config_from_atoms(atoms, keys), atoms, manager)
    labels = take_labels(config)
    out = AtomicData.from_config(config, z_table=Z, cutoff=CUTOFF)
    if labels:
        out.__dict__[STORED] = labels
    return out


def collated(structures, manager, epoch=0):
    """A batch with its labelled structures, as the training loader makes it."""
    return Collate(manager, epoch)([(i, atomic_data(atoms, manager)) for i, atoms in enumerate(structures)])
