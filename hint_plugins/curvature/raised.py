"""In which module of a model an error arose: in its forward pass, or in a derivative of what it computed."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

#: Base classes of every module: their lines are on every path.
_EVERYWHERE = (nn.Module, torch.jit.ScriptModule, torch.jit.RecursiveScriptModule, object)
_FRAME = re.compile(r'^ *File "(?P<file>[^"]+)", line (?P<line>\d+), in .+\n(?P<code> +.+\n)?', re.MULTILINE)


def where_raised(model: nn.Module, work: Callable[[], object]) -> str:
    """Module and line at which ``work``, which derives the model's energy and raises, goes wrong.

    It is run once more under torch's anomaly mode, which knows the forward operation that a failing derivative
    belongs to.

    Parameters
    ----------
    model
        Whose modules are named.
    work
        What raises.

    Returns
    -------
    str
        Name, class and line of the innermost module; several names where modules of one class cannot be told apart;
        "" if the error does not come again or no module is on its path.
    """
    with warnings.catch_warnings(record=True) as told, torch.autograd.set_detect_anomaly(True, check_nan=False):
        warnings.simplefilter("always")
        try:
            work()
        except Exception as error:
            raised = error
        else:
            return ""
    named = {id(module): name for name, module in model.named_modules()}
    found = ""
    trace = raised.__traceback__
    while trace is not None:  # the module itself is on the stack if its forward pass raised
        frame, line = trace.tb_frame, trace.tb_lineno
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module) and id(module) in named and _belongs(frame.f_code.co_filename, line, module):
            found = _place(f"{named[id(module)]}: {type(module).__name__}", frame.f_code.co_filename, line)
        trace = trace.tb_next
    return found or _from_forward(model, [str(warning.message) for warning in told])


def _from_forward(model: nn.Module, messages: list[str]) -> str:
    """The innermost module on the path of the forward call that anomaly mode named last."""
    for message in reversed(messages):
        for frame in reversed(list(_FRAME.finditer(message))):
            file, line = frame["file"], int(frame["line"])
            fitting = [(name, m) for name, m in model.named_modules() if name and _belongs(file, line, m)]
            if fitting:
                names = " or ".join(name for name, _ in fitting[:3]) + (" ..." if len(fitting) > 3 else "")
                return _place(f"{names}: {type(fitting[0][1]).__name__}", file, line, (frame["code"] or "").strip())
    return ""


def _place(what: str, file: str, line: int, code: str = "") -> str:
    return f"{what} ({Path(file).name}, line {line}{': ' if code else ''}{code})"


def _belongs(file: str, line: int, module: nn.Module) -> bool:
    """Whether a line of source is in the class of ``module``."""
    return any(first <= line < last and file == where for where, first, last in _sources(type(module)))


def _sources(kind: type) -> Iterator[tuple[str, int, int]]:
    for base in kind.__mro__:
        if base in _EVERYWHERE or not issubclass(base, nn.Module):
            continue
        try:
            lines, first = inspect.getsourcelines(base)
            yield str(inspect.getsourcefile(base)), first, first + len(lines)
        except (OSError, TypeError):  # no source: made at run time
            continue
