"""``hint mace-train``: MACE's trainer with plugins, without the start-up hook."""

from __future__ import annotations

import sys

import typer


def mace_train(context: typer.Context) -> None:
    """Train with MACE and the hint plugin (all options of mace_run_train; --help lists them).

    The same as ``mace_run_train --plugins hint``, for environments that do not run start-up files.
    """
    from hint_mace.boot import requested
    from hint_mace.install import install_or_exit

    arguments = list(context.args)
    names = requested(["mace_run_train", *arguments], {}) or ["hint"]
    if not any(arg.startswith("--plugins") for arg in arguments):
        arguments += ["--plugins", ",".join(names)]
    sys.argv = ["mace_run_train", *arguments]
    import mace.data  # noqa: F401

    install_or_exit(names)
    from mace.cli.run_train import main

    main()


mace_train.typer_settings = {  # type: ignore[attr-defined]
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
}
