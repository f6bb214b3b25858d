"""alpha2F on other phonons through stock Quantum ESPRESSO: ``q2r.x`` and ``matdyn.x``."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hint_plugins.errors import InputError
from hint_plugins.runs.processes import tethered
from hint_recipes.crystals.force_constants.cellconstructor import to_cellconstructor
from hint_recipes.crystals.force_constants.dynamical_matrices import write_dynamical_matrices
from hint_recipes.crystals.force_constants.force_constants import ForceConstants


def prepare_matdyn(
    directory: Path,
    elph_dir: str | Path,
    anharmonic: ForceConstants,
    *,
    mesh: Sequence[int] = (12, 12, 12),
    points: int = 200,
) -> Path:
    """Write what stock ``q2r.x`` and ``matdyn.x`` need for alpha2F on other phonons.

    Parameters
    ----------
    directory
        Receives ``dyn*`` (anharmonic), a copy of ``elph_dir``, ``q2r.in``, ``matdyn.in`` and ``run.sh``.
    elph_dir
        With ``a2Fmatdyn.*`` of ten broadenings (``el_ph_nsigma=10``: q2r.x and matdyn.x count on ten).
    anharmonic
        Force constants in the setting of the electron-phonon run (:func:`in_setting`).
    mesh
        (3,) points of the dense q mesh along the reciprocal vectors (``nk1, nk2, nk3`` of matdyn.x), to which phonons
        and coupling are interpolated.
    points
        Energies at which alpha2F is written (``ndos``).

    Returns
    -------
    Path
        ``run.sh``.

    Raises
    ------
    InputError
        If there are not ten ``a2Fmatdyn`` files.
    """
    directory, elph_dir = Path(directory), Path(elph_dir)
    files = sorted(elph_dir.glob("a2Fmatdyn.*"))
    if len(files) != 10:
        raise InputError(
            f"{elph_dir}: expected ten files a2Fmatdyn.*, found {len(files)}: "
            "run ph.x with el_ph_nsigma=10, then q2r.x with la2F=.true."
        )
    write_dynamical_matrices(to_cellconstructor(anharmonic), directory / "dyn")
    (directory / "elph_dir").mkdir(exist_ok=True)
    for file in files:
        shutil.copy(file, directory / "elph_dir" / file.name)
    (directory / "q2r.in").write_text("&input\n fildyn='dyn', zasr='crystal', flfrc='anharmonic.fc'\n/\n")
    nk = ", ".join(f"nk{i + 1}={n}" for i, n in enumerate(mesh))
    (directory / "matdyn.in").write_text(
        "anharmonic alpha2F\n&input\n asr='crystal', flfrc='anharmonic.fc', flfrq='matdyn.freq',\n"
        " la2F=.true., dos=.true.,\n"
        f" fldos='matdyn.dos', {nk}, ndos={points}\n/\n"
    )
    script = directory / "run.sh"
    script.write_text(
        '#!/bin/sh\nset -e\ncd "$(dirname "$0")"\nq2r.x < q2r.in > q2r.out\nmatdyn.x < matdyn.in > matdyn.out\n'
    )
    script.chmod(0o755)
    return script


def run_matdyn(script: Path) -> list[Path]:
    """Run a prepared directory; give its ``a2F.dos1 ... a2F.dos10``.

    Raises
    ------
    InputError
        If Quantum ESPRESSO is not installed or fails.
    """
    if not (shutil.which("q2r.x") and shutil.which("matdyn.x")):
        raise InputError(f"q2r.x and matdyn.x are not in PATH: run {script} where Quantum ESPRESSO is installed")
    done = subprocess.run(tethered(["sh", script]), capture_output=True, text=True, check=False)
    files = [script.parent / f"a2F.dos{i}" for i in range(1, 11)]
    missing = [f.name for f in files if not f.exists()]
    if done.returncode or missing:
        raise InputError(
            f"{script} failed (see q2r.out, matdyn.out beside it): {done.stderr.strip() or ', '.join(missing)}"
        )
    return files
