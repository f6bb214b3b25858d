"""Options that several commands for crystals read in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Cell = Annotated[Path, typer.Argument(help="Unit cell (any format of ASE; of several frames the last).")]
Primitive = Annotated[
    bool,
    typer.Option(
        help="Reduce the cell to its primitive cell first. Use it for conventional cells, whose bands are folded."
    ),
]
Mass = Annotated[
    list[str] | None,
    typer.Option(
        help="Mass of an isotope, SYMBOL=MASS in u (H=2.014); may be given several times "
        "[default: the masses of the file, else the natural ones]."
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        help="Reference method, given as --model is, for a correction of the free energy [default: no correction]. "
        "Use it where the model's own error matters."
    ),
]
