"""Patches of MACE and of torch in one place: signatures that are expected, wrappers put in, and the way back.

wrapt is not used: its wrappers keep no record of what was replaced, so our own record would be needed all the same.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
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
    "torch.nn.parallel.DistributedDataParallel": ("module", "device_ids"),
    "torch.jit.load": ("map_location",),
    "ase.io.read": ("filename",),
}

#: What MACE 0.3.13 lacks; data-parallel training on CPUs needs it.
OPTIONAL = ("mace.tools.distributed_tools.init_distributed",)


class IncompatibleHostError(HintError, RuntimeError):
    """This version of MACE is not the one the adapter was written for."""


def check_host() -> None:
    """Compare the signatures of everything that is wrapped or relied on with :data:`EXPECTED`.

    Raises
    ------
    IncompatibleHostError
        If one is missing or lacks a parameter; the message names it and the versions.
    """
    for dotted, wanted in EXPECTED.items():
        target = find(dotted)
        if target is None and dotted in OPTIONAL:
            continue
        have = tuple(inspect.signature(target).parameters) if callable(target) else None
        if have is None or not set(wanted) - {"self"} <= set(have):
            missing = "is missing" if have is None else f"has parameters {have}, expected {wanted}"
            raise IncompatibleHostError(
                f"{_versions(dotted)}: {dotted} {missing}. This adapter supports mace-torch>=0.3.13,<0.4; "
                "install such a version, or run without --plugins"
            )


def _versions(dotted: str) -> str:
    """Version of MACE and, for a function of another package, of that."""
    import mace

    package = dotted.split(".")[0]
    host = f"mace-torch {getattr(mace, '__version__', 'unknown')}"
    if package == "mace":
        return host
    return f"{host} with {package} {getattr(sys.modules.get(package), '__version__', 'unknown')}"


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


#: In a record of a patch: the attribute was not the object's own before.
_ABSENT = object()


class Patches:
    """Attributes that were replaced, in order, and the way back.

    Attributes
    ----------
    record
        For each patch: the module, class or object, the name, what was there, and what is there now.
    """

    def __init__(self) -> None:
        self.record: list[tuple[Any, str, Any, Any]] = []

    def put(self, owner: Any, name: str, value: Any) -> None:
        """Make ``value`` the attribute ``name`` of ``owner``."""
        self.record.append((owner, name, vars(owner).get(name, _ABSENT), value))
        setattr(owner, name, value)

    def function(self, name: str, wrapper: Callable[[Callable], Callable], *modules: str) -> None:
        """Put ``wrapper(original)`` in place of the function ``name`` in every one of ``modules`` that holds it."""
        original = getattr(_module(modules[0]), name)
        wrapped = functools.wraps(original)(wrapper(original))
        for module in modules:
            if getattr(_module(module), name, None) is original:
                self.put(_module(module), name, wrapped)

    def method(self, owner: type, name: str, wrapper: Callable[[Callable], Callable]) -> None:
        """Put ``wrapper(original)`` in place of a method of a class; it stays a static or class method if it is one."""
        original = vars(owner)[name]
        kind = type(original) if isinstance(original, (staticmethod, classmethod)) else lambda function: function
        function = getattr(original, "__func__", original)
        self.put(owner, name, kind(functools.wraps(function)(wrapper(function))))

    def undo(self) -> None:
        """Restore every attribute, the last patch first.

        Modules of MACE that were imported in the meantime took wrappers with ``from ... import``; they get the
        originals too.
        """
        while self.record:
            owner, name, original, wrapped = self.record.pop()
            if original is _ABSENT:
                delattr(owner, name)
                continue
            setattr(owner, name, original)
            for module in _host_modules() if isinstance(owner, ModuleType) else ():
                if vars(module).get(name) is wrapped:
                    setattr(module, name, original)


def _host_modules() -> list[ModuleType]:
    """Loaded modules of MACE, and the script that runs."""
    return [
        module
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType) and (name == "__main__" or name.split(".")[0] == "mace")
    ]


@contextlib.contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within, ``value`` is the attribute ``name`` of ``owner``."""
    patches = Patches()
    patches.put(owner, name, value)
    try:
        yield
    finally:
        patches.undo()


def _module(name: str) -> ModuleType:
    return sys.modules.get(name) or importlib.import_module(name)
