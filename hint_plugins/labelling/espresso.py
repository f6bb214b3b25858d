"""Label engine: plane-wave DFT with pw.x of Quantum ESPRESSO, driven by an input file of the user."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hint_plugins.labelling.engine import EngineError, Evaluation, Scalar


class EspressoEngine:
    """Energies, forces and stress of pw.x; cell, atoms and k-points come from the structure.

    Supercell Hessians are made from finite displacements, with ``--symmetry`` only the symmetry-distinct ones.
    Force constants of ph.x and q2r.x are read by ``hint convert --format qe-fc``. Displacements are 0.01 A.

    Parameters
    ----------
    template
        A pw.x input file: its namelists, ``ATOMIC_SPECIES`` and ``K_POINTS`` are used, its cell and atoms are not.
    pseudo_dir
        Directory of the pseudopotentials; by default that of the template.
    command
        How to start pw.x, for example ``mpirun -np 4 pw.x``.
    kspacing
        Distance of k-points in 1/A (with 2 pi), instead of the template's grid: the way to use one template for cells
        of several sizes.
    scratch
        Directory for the files of pw.x; removed when a structure is done.
    """

    step = 0.01
    probe_step = 0.01

    def __init__(
        self,
        template: str,
        pseudo_dir: str | None = None,
        command: str = "pw.x",
        kspacing: float | None = None,
        scratch: str | None = None,
    ) -> None:
        from ase.io.espresso import read_fortran_namelist

        path = Path(template)
        if not path.is_file():
            raise ValueError(f"no such pw.x input file: {path}")
        with path.open() as handle:
            namelists, cards = read_fortran_namelist(handle)
        if shutil.which(command.split()[0]) is None:
            raise ValueError(f"{command.split()[0]!r} is not installed, or not on the PATH")
        control = namelists.setdefault("control", {})
        control |= {"calculation": "scf", "tprnfor": True, "tstress": True, "outdir": "./out", "disk_io": "nowf"}
        given = Path(pseudo_dir or control.get("pseudo_dir", "."))
        control.pop("pseudo_dir", None)
        self.pseudo_dir = (given if given.is_absolute() or pseudo_dir else path.parent / given).resolve()
        system = namelists.setdefault("system", {})
        for name in [n for n in system if n in ("nat", "ntyp", "a", "b", "c") or n.startswith(("celldm", "cos"))]:
            del system[name]
        system["ibrav"] = 0
        self.namelists = namelists
        self.pseudopotentials = _species(cards)
        missing = [f for f in self.pseudopotentials.values() if not (self.pseudo_dir / f).is_file()]
        if missing:
            raise ValueError(f"no pseudopotential {missing[0]!r} in {self.pseudo_dir}")
        self.kpoints: dict[str, Any] = {"kspacing": kspacing / (2 * np.pi)} if kspacing else _kpoints(cards)
        self.command, self.scratch = command, scratch

    def provenance(self) -> dict[str, Scalar]:
        from ase.calculators.espresso import EspressoProfile

        digest = hashlib.blake2b(digest_size=8)
        for name in sorted(self.pseudopotentials.values()):
            digest.update((self.pseudo_dir / name).read_bytes())
        system = self.namelists["system"]
        keep = {k: v for k, v in system.items() if k != "ibrav" and isinstance(v, str | int | float | bool)}
        return {
            "method": str(system.get("input_dft", "pseudopotentials' functional")),
            "code": "pw.x",
            "version": EspressoProfile(self.command, self.pseudo_dir).version(),
            "pseudopotentials": " ".join(sorted(self.pseudopotentials.values())),
            "pseudopotentials_hash": digest.hexdigest(),
            "kpoints": str(self.kpoints),
            **keep,
        }

    def surface(self, atoms: Atoms) -> EspressoSurface:
        return EspressoSurface(self, atoms)


class EspressoSurface:
    """One structure under :class:`EspressoEngine`; units as in :class:`~hint_plugins.labelling.engine.Surface`."""

    def __init__(self, engine: EspressoEngine, atoms: Atoms) -> None:
        unknown = sorted(set(atoms.get_chemical_symbols()) - set(engine.pseudopotentials))
        if unknown:
            raise EngineError(f"the template has no pseudopotential for {', '.join(unknown)}")
        if atoms.cell.rank != 3:
            raise EngineError("pw.x needs a cell; put molecules in a box")
        self.engine = engine
        self.atoms = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)

    def evaluate(self, positions: np.ndarray) -> Evaluation:
        from ase.calculators.espresso import Espresso, EspressoProfile

        engine = self.engine
        self.atoms.positions = positions
        with tempfile.TemporaryDirectory(prefix="hint-pw-", dir=engine.scratch) as directory:
            calculator = Espresso(
                profile=EspressoProfile(engine.command, engine.pseudo_dir),
                directory=directory,
                input_data={name: dict(values) for name, values in engine.namelists.items()},
                pseudopotentials=engine.pseudopotentials,
                **engine.kpoints,
            )
            try:
                calculator.calculate(self.atoms, ["energy", "forces", "stress"], [])
                results = calculator.results
                return Evaluation(float(results["energy"]), results["forces"], results.get("stress"))
            except Exception as error:  # pw.x stops, or ASE cannot read what it wrote
                raise EngineError(_why(Path(directory), error)) from error

    def hessian(self) -> None:
        return None


def _why(directory: Path, error: Exception) -> str:
    """What pw.x itself says about its failure."""
    for name in ("espresso.pwo", "CRASH", "espresso.err"):
        path = directory / name
        text = path.read_text(errors="replace") if path.is_file() else ""
        if "convergence NOT achieved" in text:
            return "pw.x did not converge"
        lines = text.splitlines()
        for number, line in enumerate(lines):
            if line.strip().startswith(("Error in routine", "from ")):
                return "pw.x: " + " ".join(entry.strip() for entry in lines[number : number + 2])
    return f"pw.x failed: {type(error).__name__}: {error}"


def _species(cards: list[str]) -> dict[str, str]:
    rows = _card(cards, "ATOMIC_SPECIES")[1]
    found = {parts[0]: parts[2] for parts in map(str.split, rows) if len(parts) >= 3}
    if not found:
        raise ValueError("the template has no ATOMIC_SPECIES with pseudopotentials")
    return found


def _kpoints(cards: list[str]) -> dict[str, Any]:
    option, rows = _card(cards, "K_POINTS")
    if "gamma" in option.lower():
        return {"kpts": None}
    if "automatic" in option.lower() and rows:
        grid = [int(x) for x in rows[0].split()]
        return {"kpts": tuple(grid[:3]), "koffset": tuple(grid[3:6])}
    raise ValueError("the template's K_POINTS must be automatic or gamma (or give kspacing)")


def _card(cards: list[str], name: str) -> tuple[str, list[str]]:
    """First line and following lines of a card."""
    heads = ("ATOMIC_", "K_POINTS", "CELL_", "OCCUPATIONS", "CONSTRAINTS", "HUBBARD", "SOLVENTS", "ADDITIONAL_")
    for number, line in enumerate(cards):
        if line.strip().upper().startswith(name):
            rows = []
            for row in cards[number + 1 :]:
                if row.strip().upper().startswith(heads):
                    break
                if row.strip():
                    rows.append(row)
            return line, rows
    return "", []
