"""``hint fairchem-train`` and ``hint export-fairchem``: training, and checkpoints that plain fairchem reads."""

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
    from hint_plugins.errors import InputError

    try:
        from hint_fairchem.export import export_checkpoint
    except ImportError as error:
        raise InputError(f"fairchem-core is not installed ({error}): pip install 'hint-plugins[fairchem]'") from error
    done = export_checkpoint(checkpoint, out, overwrite)
    print(f"{done.target}: removed {', '.join(done.removed) or 'nothing (it was a stock checkpoint)'}")
    for name in done.remaining:
        print(f"note: the model is made of {name}, so hint-plugins must be installed where it is used")


def fairchem_train(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A fairchem YAML, or the name of a shipped one.")],
) -> None:
    """Train with a fairchem config: fairchem -c CONFIG [KEY=VALUE ...], with what is wrong in one sentence.

    CONFIG is a file, or the name of one of the shipped configs (minimal.yaml, realistic.yaml, kitchen-sink.yaml,
    direct.yaml).
    """
    from hint_plugins.errors import InputError

    try:
        from hint_fairchem.train import train
    except ImportError as error:
        raise InputError(f"fairchem-core is not installed ({error}): pip install 'hint-plugins[fairchem]'") from error
    shipped = Path(__file__).parent / "configs" / config.name
    train(shipped if not config.exists() and config.name == str(config) and shipped.is_file() else config, context.args)


fairchem_train.typer_settings = {  # type: ignore[attr-defined]
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True}
}
