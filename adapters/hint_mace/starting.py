"""The start of MACE's commands: options of the plugins, and data-parallel training on CPUs."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from hint_mace.checkpoint import given_settings
from hint_mace.options import extend_parser
from hint_mace.patching import OPTIONAL, find
from hint_plugins.plugins import describe_plugins

if TYPE_CHECKING:
    from hint_mace.adapter import Adapter


def wrap_parsers(adapter: Adapter) -> None:
    """Add the options of the plugins to MACE's, and keep what the user gave."""

    def extended(original: Callable) -> Callable:
        return lambda: extend_parser(original(), adapter.manager)

    adapter.patches.function("build_default_arg_parser", extended, "mace.tools.arg_parser", "mace.tools")
    adapter.patches.function("build_preprocess_arg_parser", extended, "mace.tools.arg_parser", "mace.tools")

    def captured(original: Callable) -> Callable:
        def check_args(args: argparse.Namespace) -> Any:
            adapter.settings = given_settings(args)  # MACE fills in and changes options as it goes on
            result, messages = original(args)
            adapter.args = result
            lines = [f"Plugins: {', '.join(describe_plugins(adapter.manager))}"]
            return result, [*messages, *((line, logging.INFO) for line in lines)]

        return check_args

    adapter.patches.function("check_args", captured, "mace.tools.arg_parser_tools", "mace.tools")


def wrap_distributed(adapter: Adapter) -> None:
    """Data-parallel training on CPUs: MACE makes a process group for GPUs only, and wants a device number."""

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
