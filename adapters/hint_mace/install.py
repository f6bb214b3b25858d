"""Wraps a handful of MACE's functions, each where it is defined, after checking that they are what we expect."""

from __future__ import annotations

import argparse
import inspect
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hint_mace.leaving import exit_with
from hint_mace.patching import OPTIONAL, IncompatibleHostError, check_host, find
from hint_plugins.curvature.selftest import SelfTestError
from hint_plugins.labels.hessian_label import LabelError
from hint_plugins.plugins import PluginError, describe_plugins, load_plugins
from hint_plugins.potential.memory import is_out_of_memory

if TYPE_CHECKING:
    from hint_mace.adapter import Adapter
    from hint_mace.session import Session


def install_or_exit(names: Sequence[str]) -> None:
    """:func:`install`, with errors as one line and exit status 2."""
    try:
        install(names)
    except (PluginError, IncompatibleHostError) as error:
        exit_with(error)


def install(names: Sequence[str]) -> Adapter:
    """Load the named plugins and wrap MACE.

    Parameters
    ----------
    names
        Plugin names, at least one.

    Returns
    -------
    Adapter

    Raises
    ------
    PluginError
        If a plugin is unknown or broken.
    IncompatibleHostError
        If a function of MACE does not look as expected.
    """
    check_host()
    from hint_mace.adapter import Adapter
    from hint_mace.checkpoint import wrap_checkpoints
    from hint_mace.models import wrap_models
    from hint_mace.tables import wrap_tables

    adapter = Adapter(load_plugins(names))
    wraps = (_wrap_parsers, _wrap_distributed, _wrap_labels, wrap_checkpoints, _wrap_training, wrap_tables, wrap_models)
    try:
        for wrap in wraps:
            wrap(adapter)
    except BaseException:  # all or nothing
        adapter.uninstall()
        raise
    return adapter


def _wrap_parsers(adapter: Adapter) -> None:
    from hint_mace.options import extend_parser

    def extended(original: Callable) -> Callable:
        return lambda: extend_parser(original(), adapter.manager)

    adapter.patches.function("build_default_arg_parser", extended, "mace.tools.arg_parser", "mace.tools")
    adapter.patches.function("build_preprocess_arg_parser", extended, "mace.tools.arg_parser", "mace.tools")

    def captured(original: Callable) -> Callable:
        def check_args(args: argparse.Namespace) -> Any:
            from hint_mace.checkpoint import given_settings

            adapter.settings = given_settings(args)  # MACE fills in and changes options as it goes on
            result, messages = original(args)
            adapter.args = result
            lines = [f"Plugins: {', '.join(describe_plugins(adapter.manager))}"]
            return result, [*messages, *((line, logging.INFO) for line in lines)]

        return check_args

    adapter.patches.function("check_args", captured, "mace.tools.arg_parser_tools", "mace.tools")


def _wrap_distributed(adapter: Adapter) -> None:
    """Data-parallel training on CPUs: MACE makes a process group for GPUs only, and wants a device number."""
    import torch
    from torch.nn.parallel import DistributedDataParallel

    def on_cpu(module: torch.nn.Module, *args: Any, device_ids: Any = None, **kwargs: Any) -> torch.nn.Module:
        return DistributedDataParallel(module, *args, **kwargs)

    def with_gloo(original: Callable) -> Callable:
        def init_distributed(args: argparse.Namespace) -> Any:
            result = original(args)
            if args.distributed and args.device == "cpu" and not torch.distributed.is_initialized():
                torch.distributed.init_process_group("gloo", rank=result[0], world_size=result[2])
                for name in ("mace.cli.run_train", "__main__"):  # torch's own class stays as it is
                    module = sys.modules.get(name)
                    if getattr(module, "DDP", None) is DistributedDataParallel:
                        adapter.patches.put(module, "DDP", on_cpu)
            return result

        return init_distributed

    if find(OPTIONAL[0]) is not None:
        adapter.patches.function("init_distributed", with_gloo, "mace.tools.distributed_tools")


def _wrap_labels(adapter: Adapter) -> None:
    from mace.data import AtomicData, HDF5Dataset
    from mace.data.lmdb_dataset import LMDBDataset

    from hint_mace.data import STORED, check_taken, named_frames, read_into, require_numbers, take_labels
    from hint_mace.energies import structure_of

    row = ["structure"]
    prepared: list[str] = []

    def reading(original: Callable) -> Callable:
        def config_from_atoms(atoms: Any, *args: Any, **kwargs: Any) -> Any:
            source = atoms.info.setdefault("hint_source", f"{row[0]} ({atoms.get_chemical_formula()})")
            try:
                config = original(atoms, *args, **kwargs)
                require_numbers(config, source)
                adapter.energies.add(config, atoms, source)
                return read_into(config, atoms, adapter.manager)
            except LabelError as error:
                exit_with(error)
            except (TypeError, ValueError) as error:
                exit_with(LabelError(f"{source} cannot be read: {error}"))

        return config_from_atoms

    adapter.patches.function("config_from_atoms", reading, "mace.data.utils", "mace.data", "mace.data.lmdb_dataset")

    def with_row(original: Callable) -> Callable:
        def __getitem__(self: Any, index: int) -> Any:
            files = getattr(self.AseDB, "config", {}).get("src", "database")
            row[0] = f"{files if isinstance(files, str) else ' + '.join(map(str, files))}, structure {index}"
            try:
                return original(self, index)
            finally:
                row[0] = "structure"

        return __getitem__

    adapter.patches.method(LMDBDataset, "__getitem__", with_row)

    def with_place(original: Callable) -> Callable:
        def __getitem__(self: Any, index: int) -> Any:
            prepared.append(f"{self.file_path}, structure {index}")
            try:
                return original(self, index)
            finally:
                prepared.pop()

        return __getitem__

    adapter.patches.method(HDF5Dataset, "__getitem__", with_place)

    def named(original: Callable) -> Callable:
        def load_from_xyz(*args: Any, **kwargs: Any) -> Any:
            with named_frames():
                return original(*args, **kwargs)

        return load_from_xyz

    adapter.patches.function("load_from_xyz", named, "mace.data.utils", "mace.data")

    def with_labels(original: Callable) -> Callable:
        def from_config(cls: type, config: Any, *args: Any, **kwargs: Any) -> Any:
            labels = take_labels(config)
            if prepared:
                try:
                    require_numbers(config, prepared[-1])
                    adapter.energies.add(config, structure_of(config), prepared[-1])
                    labels = check_taken(config, labels, prepared[-1], adapter.manager)
                except LabelError as error:
                    exit_with(error)
            data = original(cls, config, *args, **kwargs)
            if labels:
                data.__dict__[STORED] = labels
            return data

        return from_config

    adapter.patches.method(AtomicData, "from_config", with_labels)


def _out_of_memory(session: Session, error: RuntimeError) -> MemoryError:
    """What to change when a step did not fit."""
    args = session.args
    first = str(error).strip().split("\n")[0]
    return MemoryError(
        f"{session.when}: out of memory on {session.device} ({first}). Lower --batch_size (now {args.batch_size}; "
        f"--valid_batch_size in a validation) or --hessian_num_probes, or take --hessian_engine reverse, which needs "
        "least memory among the exact engines, or finite_difference, which needs less still. Checkpoints are kept: "
        "--restart_latest goes on from the last one"
    )


def _wrap_training(adapter: Adapter) -> None:
    from hint_mace.checkpoint import CheckpointError
    from hint_mace.session import Session
    from hint_plugins.objective.metrics import NotFiniteError

    def training(original: Callable) -> Callable:
        signature = inspect.signature(original)

        def train(*args: Any, **kwargs: Any) -> None:
            call = dict(signature.bind(*args, **kwargs).arguments)
            try:
                adapter.session = session = Session(adapter, call)
                adapter.energies.tell()
                adapter.manager.hook.training_started(run=session.run())
            except (SelfTestError, CheckpointError, ValueError) as error:
                exit_with(error)
            try:
                original(**call)
            except (SelfTestError, CheckpointError) as error:
                exit_with(error)
            except NotFiniteError as error:
                exit_with(error, status=1)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                exit_with(_out_of_memory(session, error), status=1)
            finally:
                adapter.session, adapter.trained = None, session
                adapter.manager.hook.training_finished(run=session.run())

        return train

    adapter.patches.function("train", training, "mace.tools.train", "mace.tools")

    def epoch(original: Callable) -> Callable:
        def train_one_epoch(*args: Any, **kwargs: Any) -> None:
            session = adapter.session
            if session is None:
                return original(*args, **kwargs)
            with session.epoch_under_way(kwargs["epoch"]):
                return original(*args, **kwargs)

        return train_one_epoch

    adapter.patches.function("train_one_epoch", epoch, "mace.tools.train")

    def evaluating(original: Callable) -> Callable:
        def evaluate(*args: Any, **kwargs: Any) -> Any:
            loss, metrics = original(*args, **kwargs)
            session = adapter.session
            if session is not None:
                loss = session.validate(kwargs["data_loader"], loss, metrics)
            return loss, metrics

        return evaluate

    adapter.patches.function("evaluate", evaluating, "mace.tools.train")
