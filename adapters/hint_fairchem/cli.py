"""``hint export-fairchem``: a checkpoint of a HINT run as one that plain fairchem reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_fairchem(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", help="inference_ckpt.pt of a HINT run, or its folder (runs/.../checkpoints/final)."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write, e.g. my-model.pt.")],
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Make a HINT-trained checkpoint readable by plain fairchem.

    The Hessian task is taken out; weights, heads and normalisers stay, so predictions are the same. The result
    loads with load_predict_unit and FAIRChemCalculator where hint-plugins is not installed.
    """
    from hint_plugins.cli.common import InputError

    try:
        from hint_fairchem.export import export_checkpoint
    except ImportError as error:
        raise InputError(f"fairchem-core is not installed ({error}): pip install 'hint-plugins[fairchem]'") from error
    done = export_checkpoint(checkpoint, out, overwrite)
    print(f"{done.target}: removed {', '.join(done.removed) or 'nothing (it was a stock checkpoint)'}")
    for name in done.remaining:
        print(f"note: the model is made of {name}, so hint-plugins must be installed where it is used")
