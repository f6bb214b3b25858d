"""``python -m helpers.pretend_run RUNS.json``: trainings with MACE, one after the other, on a pretend GPU.

RUNS.json holds ``{name: [word, ...]}`` with the words of each command line after ``mace_run_train``; they run in the
working directory. Each is a process of its own (a fork: the libraries are imported once), which has a GPU if it asks
for one. It writes NAME.out, the program's output, and NAME.json: the exit ``status``; ``steps``, a list of
``[launches, waits, copies]`` for every optimiser step (L-BFGS: every epoch) from the batch on the host to the new
weights; where in these steps the host ``waits`` and ``copies``, ``{place: number}``.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.pretend_counts import Counts
from helpers.pretend_gpu import pretend_gpu, register


class Steps:
    """Counts of every optimiser step of MACE's loop."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.steps: list[tuple[int, int, int]] = []
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()

    def counted(self, function: Callable) -> Callable:
        """``function`` as a step that is counted."""

        @functools.wraps(function)
        def step(*args: Any, **kwargs: Any) -> Any:
            before = self.counts.totals, Counter(self.counts.waits), Counter(self.counts.copies)
            result = function(*args, **kwargs)
            self.steps.append(self.counts.totals.since(before[0]))
            self.waits += self.counts.waits - before[1]
            self.copies += self.counts.copies - before[2]
            return result

        return step


def run(name: str, words: list[str]) -> None:
    """One training, in this process."""
    from hint_mace.boot import requested
    from hint_mace.install import install_or_exit

    sys.argv = ["mace_run_train", *words]
    loop = sys.modules["mace.tools.train"]  # behind a function of the same name
    status: Any = 0
    with contextlib.ExitStack() as stack:
        counts = stack.enter_context(pretend_gpu()) if "cuda" in words else Counts()
        steps = Steps(counts)
        for step in ("take_step", "take_step_lbfgs"):
            setattr(loop, step, steps.counted(getattr(loop, step)))
        try:
            plugins = requested(sys.argv, {})
            if plugins:
                install_or_exit(plugins)
            from mace.cli.run_train import main as run_train  # only now: it takes functions from other modules

            run_train()
        except SystemExit as stop:
            status = stop.code or 0
        except BaseException:
            traceback.print_exc()
            status = 1
    record = {"status": status, "steps": steps.steps, "waits": steps.waits, "copies": steps.copies}
    Path(f"{name}.json").write_text(json.dumps(record, indent=1))


def main() -> None:
    """All trainings of the file that the command line names."""
    from hint_mace.install import check_host

    register()
    check_host()  # imports nearly all that a training needs
    for name, words in json.loads(Path(sys.argv[1]).read_text()).items():
        child = os.fork()
        if not child:
            with open(f"{name}.out", "w") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                run(name, words)
                sys.stdout.flush()
                os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
