"""What the adapter wraps of MACE: the signatures it expects, finding a function, and putting a wrapper in its place."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from hint_plugins.errors import HintError

#: Parameters that the wrapped functions must have, by dotted name.
EXPECTED: dict[str, tuple[str, ...]] = {
    "mace.tools.arg_parser.build_default_arg_parser": (),
    "mace.tools.arg_parser.build_preprocess_arg_parser": (),
    "mace.tools.arg_parser_tools.check_args": ("args",),
    "mace.tools.distributed_tools.init_distributed": ("args",),
    "mace.tools.train.train": (
        *("model", "loss_fn", "train_loader", "valid_loaders", "optimizer", "lr_scheduler", "start_epoch"),
        *("max_num_epochs", "checkpoint_handler", "logger", "device", "swa", "ema", "rank"),
    ),
    "mace.tools.train.train_one_epoch": ("model", "loss_fn", "data_loader", "epoch"),
    "mace.tools.train.evaluate": ("model", "loss_fn", "data_loader", "output_args", "device"),
    "mace.tools.checkpoint.CheckpointIO.load": ("self", "path", "device"),
    "mace.tools.checkpoint.CheckpointIO._parse_checkpoint_path": ("self", "path"),
    "mace.tools.checkpoint.CheckpointIO._get_checkpoint_filename": ("self", "epochs", "swa_start"),
    "mace.tools.checkpoint.CheckpointBuilder.create_checkpoint": ("state",),
    "mace.tools.checkpoint.CheckpointBuilder.load_checkpoint": ("state", "checkpoint", "strict"),
    "mace.tools.checkpoint.CheckpointHandler.save": ("self", "state", "epochs", "keep_last"),
    "mace.tools.tables_utils.create_error_table": ("table_type", "all_data_loaders", "model"),
    "mace.data.lmdb_dataset.LMDBDataset.__getitem__": ("self", "index"),
    "mace.data.hdf5_dataset.HDF5Dataset.__getitem__": ("self", "index"),
    "mace.data.utils.load_from_xyz": ("file_path", "key_specification"),
    "mace.data.utils.config_from_atoms": ("atoms", "key_specification"),
    "mace.data.atomic_data.AtomicData.from_config": ("config", "z_table", "cutoff", "heads"),
    "mace.tools.model_script_utils._build_model": ("args", "model_config", "model_config_foundation", "heads"),
    "mace.tools.scripts_utils.get_params_options": ("args", "model"),
}


#: What MACE 0.3.13 lacks; data-parallel training on CPUs needs it.
OPTIONAL = ("mace.tools.distributed_tools.init_distributed",)


class IncompatibleHostError(HintError, RuntimeError):
    """This version of MACE is not the one the adapter was written for."""


def check_host() -> None:
    """Compare the signatures of everything that will be wrapped with :data:`EXPECTED`."""
    import mace

    version = getattr(mace, "__version__", "unknown")
    for dotted, wanted in EXPECTED.items():
        target = find(dotted)
        if target is None and dotted in OPTIONAL:
            continue
        have = tuple(inspect.signature(target).parameters) if target is not None else None
        if have is None or not set(wanted) - {"self"} <= set(have):
            missing = "is missing" if have is None else f"has parameters {have}, expected {wanted}"
            raise IncompatibleHostError(
                f"mace-torch {version}: {dotted} {missing}. This adapter supports mace-torch>=0.3.13,<0.4; "
                "install such a version, or run without --plugins"
            )


def find(dotted: str) -> Any:
    """Object at a dotted path; modules hidden behind a function of the same name are found too."""
    parts = dotted.split(".")
    for split in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:split])
        try:
            target: Any = sys.modules.get(name) or importlib.import_module(name)
        except ImportError:
            continue
        if not isinstance(target, ModuleType):
            continue
        for attribute in parts[split:]:
            target = getattr(target, attribute, None)
        return target
    return None


def replace(name: str, wrapper: Callable[[Callable], Callable], *modules: str) -> None:
    """Put ``wrapper(original)`` in place of the function ``name`` in every module that holds it."""
    original = getattr(_module(modules[0]), name)
    wrapped = functools.wraps(original)(wrapper(original))
    for module in modules:
        if getattr(_module(module), name, None) is original:
            setattr(_module(module), name, wrapped)


def _module(name: str) -> ModuleType:
    return sys.modules.get(name) or importlib.import_module(name)
