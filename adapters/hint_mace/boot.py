"""Start-up hook: gives ``mace_run_train`` the option ``--plugins``.

A start-up file imports this module in processes whose command line (or ``HINT_PLUGINS``) asks for plugins. It imports
nothing and does nothing unless the command is one of MACE's.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def requested(argv: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Plugin names asked for by ``--plugins a,b``, the ``--config`` file or ``HINT_PLUGINS``.

    Empty unless the command is one of MACE's.
    """
    if not any("mace" in arg or "run_train" in arg for arg in argv):
        return []
    names = ""
    for position, arg in enumerate(argv):
        value = argv[position + 1] if position + 1 < len(argv) else ""
        if arg == "--plugins":
            names = value
        elif arg.startswith("--plugins="):
            names = arg.partition("=")[2]
        elif arg == "--config" and not names:
            names = _from_yaml(value)
        elif arg.startswith("--config=") and not names:
            names = _from_yaml(arg.partition("=")[2])
    return [name.strip() for name in (names or environ.get("HINT_PLUGINS", "")).split(",") if name.strip()]


def _from_yaml(path: str) -> str:
    """Value of the line ``plugins: a,b`` of a config file; nothing more of YAML is needed here."""
    try:
        with open(path, encoding="utf-8") as handle:
            for line in handle:
                if line.startswith("plugins:"):
                    return line.partition(":")[2].split("#")[0].strip().strip("\"'[]")
    except OSError:
        pass
    return ""


def main() -> None:
    """Arm the hook if this process asks for plugins."""
    names = requested(sys.orig_argv, os.environ)
    if names and "mace.data" not in sys.modules:
        from hint_mace.hook import arm

        arm(names)
