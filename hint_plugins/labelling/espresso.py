"""Label engine: plane-wave DFT with pw.x of Quantum ESPRESSO, driven by an input file of the user."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.units import Bohr, Rydberg

from hint_plugins.labelling.engine import EngineError, Evaluation, Scalar
from hint_plugins.labelling.periodicity import check_vacuum, with_vacuum
from hint_plugins.labelling.pw_input import (
    PwTemplate,
    Species,
    for_species,
    is_true,
    namelist_text,
    number,
    read_template,
    starting_magnetization,
    valence,
)
from hint_plugins.runs.processes import tethered
from hint_plugins.structures.charges import stated

#: Variables of &SYSTEM that belong to the number of atoms or the cell of the template.
EXTENSIVE = (
    "nbnd",
    "tot_charge",
    "tot_magnetization",
    "nr1",
    "nr2",
    "nr3",
    "nr1s",
    "nr2s",
    "nr3s",
    "nr1b",
    "nr2b",
    "nr3b",
)
#: What labels need of &CONTROL.
CONTROL = {
    "calculation": "'scf'",
    "restart_mode": "'from_scratch'",
    "tprnfor": ".true.",
    "tstress": ".true.",
    "outdir": "'./out'",
    "disk_io": "'nowf'",
}


class EspressoEngine:
    """Energies, forces and stress of pw.x; cell, atoms and k-points come from the structure.

    Supercell Hessians are made from finite displacements, with ``--symmetry`` only the symmetry-distinct ones.
    Force constants of ph.x and q2r.x are read by ``hint convert --format qe-fc``. Displacements are 0.01 A.

    Every variable and card of the template reaches pw.x as it stands, in the template's order of species, except cell,
    atoms and the settings that labels need; what cannot be carried over is refused. An element with several species
    takes them from the template's ``ATOMIC_POSITIONS`` if it lists the structure's elements in the structure's order,
    or from the signs of ``initial_magmoms``. ``initial_magmoms`` replace the template's ``starting_magnetization``,
    and a charge or multiplicity that the structure states becomes ``tot_charge`` and ``tot_magnetization``.

    Parameters
    ----------
    template
        A pw.x input file.
    pseudo_dir
        Directory of the pseudopotentials; by default that of the template.
    command
        How to start pw.x, for example ``mpirun -np 4 pw.x``.
    kspacing
        Distance of k-points in 1/A (with 2 pi), instead of the template's grid: the way to use one template for cells
        of several sizes.
    scratch
        Directory for the files of pw.x; removed when a structure is done.
    vacuum
        Width (A) of the vacuum to be built in directions that are not periodic; without it such structures are refused.
    """

    step = 0.01
    probe_step = 0.01
    #: pw.x subtracts the net force, so that the sum rule holds whatever the quality of the forces.
    removes_net_force = True

    def __init__(
        self,
        template: str,
        pseudo_dir: str | None = None,
        command: str = "pw.x",
        kspacing: float | None = None,
        scratch: str | None = None,
        vacuum: float | None = None,
    ) -> None:
        path = Path(template)
        if not path.is_file():
            raise ValueError(f"no such pw.x input file: {path}")
        self.template = read_template(path.read_text())
        if shutil.which(command.split()[0]) is None:
            raise ValueError(f"{command.split()[0]!r} is not installed, or not on the PATH")
        given = Path(pseudo_dir or self.template.value("control", "pseudo_dir") or ".")
        self.pseudo_dir = (given if given.is_absolute() or pseudo_dir else path.parent / given).resolve()
        files = {species.pseudopotential for species in self.template.species}
        missing = sorted(name for name in files if not (self.pseudo_dir / name).is_file())
        if missing:
            raise ValueError(f"no pseudopotential {missing[0]!r} in {self.pseudo_dir}")
        self.kspacing, self.kpoints = kspacing, _kpoints(self.template, kspacing)
        self.command, self.scratch, self.vacuum = command, scratch, check_vacuum(vacuum)

    def provenance(self) -> dict[str, Scalar]:
        from ase.calculators.espresso import EspressoProfile

        files = sorted({species.pseudopotential for species in self.template.species})
        digest = hashlib.blake2b(digest_size=8)
        for name in files:
            digest.update((self.pseudo_dir / name).read_bytes())
        system = {
            k: v for k, v in self.template.namelists.get("system", {}).items() if k not in ("ibrav", "nat", "ntyp")
        }
        settings = repr((self.template.namelists, self.template.species, sorted(self.template.cards.items())))
        return {
            "method": self.template.value("system", "input_dft") or "pseudopotentials' functional",
            "code": "pw.x",
            "version": EspressoProfile(self.command, self.pseudo_dir).version(),
            "pseudopotentials": " ".join(files),
            "pseudopotentials_hash": digest.hexdigest(),
            "template_hash": hashlib.blake2b(settings.encode(), digest_size=8).hexdigest(),
            "conv_thr_Ry": number(self.template.value("electrons", "conv_thr") or "1e-6"),
            "kpoints": str({"kspacing": self.kspacing / (2 * np.pi)} if self.kspacing else self.kpoints),
            **{name: _scalar(value) for name, value in system.items() if "(" not in name},
        }

    def surface(self, atoms: Atoms) -> EspressoSurface:
        return EspressoSurface(self, atoms)


class EspressoSurface:
    """One structure under :class:`EspressoEngine`; units as in :class:`~hint_plugins.labelling.engine.Surface`."""

    def __init__(self, engine: EspressoEngine, atoms: Atoms) -> None:
        template = engine.template
        unknown = sorted(set(atoms.get_chemical_symbols()) - {species.symbol for species in template.species})
        if unknown:
            raise EngineError(f"the template has no pseudopotential for {', '.join(unknown)}")
        if atoms.cell.rank != 3 and engine.vacuum is None:
            raise EngineError("pw.x needs a cell; put molecules in a box, or let it be built with --set vacuum=15 (A)")
        self.engine = engine
        self.boxed = not atoms.pbc.all()
        self.atoms = with_vacuum(atoms, engine.vacuum, "pw.x")
        moments = atoms.get_initial_magnetic_moments() if atoms.has("initial_magmoms") else np.zeros(len(atoms))
        try:
            self.labels = _labels(template, atoms, moments)
            self.kept = [species for species in template.species if species.label in self.labels]
            self.system, self.cards = for_species(template, [species.label for species in self.kept])
            self._set_charge_and_spin(atoms, moments)
        except ValueError as error:
            raise EngineError(str(error)) from error
        self.system |= {"ibrav": "0", "nat": str(len(atoms)), "ntyp": str(len(self.kept))}
        self.scf_correction = 0.0

    @property
    def details(self) -> dict[str, Scalar]:
        """``charge``, and the largest error (eV/A) that pw.x estimates for its forces from their self-consistency."""
        charge = number(self.system.get("tot_charge", "0"))
        found: dict[str, Scalar] = {"charge": charge if charge % 1 else int(charge)}
        found["scf_force_correction_eV_per_A"] = self.scf_correction
        return found | ({"vacuum_A": self.engine.vacuum} if self.boxed and self.engine.vacuum else {})

    def _set_charge_and_spin(self, atoms: Atoms, moments: np.ndarray) -> None:
        """What the structure states replaces the template's starts and must not contradict its constraints."""
        template, system = self.engine.template, self.system
        given = stated(atoms)
        magnetic = template.value("system", "nspin") == "2" or is_true(template.value("system", "noncolin"))
        for name, key, value in (
            ("charge", "tot_charge", given.get("charge")),
            ("spin", "tot_magnetization", given["spin"] - 1 if "spin" in given else None),
        ):
            if value is None:
                continue
            if key in system and abs(number(system[key]) - value) > 1e-6:
                raise ValueError(f"the structure's {name} asks for {key} = {value}, and the template has {system[key]}")
            if key == "tot_magnetization" and template.value("system", "nspin") != "2":
                if value:
                    raise ValueError(f"the structure has multiplicity {value + 1}, and the template is not nspin = 2")
            elif value or key in system or key == "tot_magnetization":
                system[key] = str(value)
        size = template.value("system", "nat")
        tied = [key for key in system if key in EXTENSIVE and system[key] == template.namelists["system"].get(key)]
        if tied and size is not None and int(number(size)) != len(atoms):
            raise ValueError(
                f"the template's {', '.join(tied)} belong to its own {size} atoms, and the structure has {len(atoms)}"
            )
        if not np.any(moments):
            return
        if not magnetic:
            raise ValueError("the structure has initial_magmoms, and the template is neither nspin = 2 nor noncolin")
        if moments.ndim > 1:
            raise ValueError(
                "initial_magmoms as vectors cannot be handed to pw.x; give angle1 and angle2 in the template"
            )
        by_label: dict[str, list[float]] = defaultdict(list)
        for label, moment in zip(self.labels, moments, strict=True):
            by_label[label].append(float(moment))
        texts = {s.label: (self.engine.pseudo_dir / s.pseudopotential).read_text(errors="replace") for s in self.kept}
        start = starting_magnetization(by_label, {label: valence(text) for label, text in texts.items()})
        for key in [key for key in system if key.startswith("starting_magnetization")]:
            del system[key]
        system |= {f"starting_magnetization({i})": start[s.label] for i, s in enumerate(self.kept, start=1)}

    def text(self) -> str:
        """The input file at the positions that ``atoms`` has now."""
        template, atoms = self.engine.template, self.atoms
        control = template.namelists.get("control", {}) | CONTROL | {"pseudo_dir": f"'{self.engine.pseudo_dir}'"}
        parts = [namelist_text(template.namelists | {"control": control, "system": self.system}), "ATOMIC_SPECIES"]
        parts += [f"{s.label} {s.mass} {s.pseudopotential}" for s in self.kept]
        parts += ["", *_kpoint_rows(self.engine, atoms), "", "CELL_PARAMETERS angstrom"]
        parts += [" ".join(f"{x:.14f}" for x in row) for row in np.asarray(atoms.cell)]
        parts += ["", "ATOMIC_POSITIONS angstrom"]
        parts += [
            f"{label} " + " ".join(f"{x:.14f}" for x in r)
            for label, r in zip(self.labels, atoms.positions, strict=True)
        ]
        for name, (option, rows) in self.cards.items():
            if name != "K_POINTS":
                parts += ["", f"{name} {option}".strip(), *rows]
        return "\n".join(parts) + "\n"

    def evaluate(self, positions: np.ndarray) -> Evaluation:
        from ase.calculators.espresso import EspressoProfile, EspressoTemplate

        engine, files = self.engine, EspressoTemplate()
        self.atoms.positions = positions
        with tempfile.TemporaryDirectory(prefix="hint-pw-", dir=engine.scratch) as name:
            directory = Path(name)
            try:
                (directory / files.inputname).write_text(self.text())
                command = shlex.join(tethered(shlex.split(engine.command)))
                files.execute(directory, EspressoProfile(command, engine.pseudo_dir))
                results = files.read_results(directory)
                self._note_correction((directory / files.outputname).read_text(errors="replace"))
                stress = None if self.boxed else results.get("stress")
                return Evaluation(float(results["energy"]), results["forces"], stress)
            except Exception as error:  # pw.x stops, or ASE cannot read what it wrote
                raise EngineError(_why(directory, error)) from error

    def _note_correction(self, output: str) -> None:
        found = re.findall(r"Total SCF correction\s*=\s*([\d.EeDd+-]+)", output)
        if found:
            self.scf_correction = max(self.scf_correction, number(found[-1]) * Rydberg / Bohr)

    def hessian(self) -> None:
        return None


def _labels(template: PwTemplate, atoms: Atoms, moments: np.ndarray) -> list[str]:
    """The species of every atom."""
    symbols = atoms.get_chemical_symbols()
    by_symbol: dict[str, list[Species]] = defaultdict(list)
    for species in template.species:
        by_symbol[species.symbol].append(species)
    several = [symbol for symbol in dict.fromkeys(symbols) if len(by_symbol[symbol]) > 1]
    if not several:
        return [by_symbol[symbol][0].label for symbol in symbols]
    known = {species.label: species.symbol for species in template.species}
    if [known.get(label) for label in template.positions] == symbols:
        return list(template.positions)
    names = [species.label for species in template.species]
    start = [template.value("system", f"starting_magnetization({i + 1})") for i in range(len(names))]
    sign = {label: np.sign(number(value or "0")) for label, value in zip(names, start, strict=True)}
    found = []
    for symbol, moment in zip(symbols, moments if moments.ndim == 1 else np.zeros(len(atoms)), strict=True):
        fitting = [
            s.label for s in by_symbol[symbol] if len(by_symbol[symbol]) == 1 or sign[s.label] == np.sign(moment)
        ]
        if len(fitting) != 1:
            raise ValueError(
                f"the template has several species of {symbol} ({', '.join(s.label for s in by_symbol[symbol])}), and "
                "neither its ATOMIC_POSITIONS (elements in the structure's order) nor the signs of initial_magmoms say "
                "which atom is which"
            )
        found.append(fitting[0])
    return found


def _why(directory: Path, error: Exception) -> str:
    """What pw.x itself says about its failure."""
    for name in ("espresso.pwo", "CRASH", "espresso.err"):
        path = directory / name
        text = path.read_text(errors="replace") if path.is_file() else ""
        if "convergence NOT achieved" in text:
            return "pw.x did not converge"
        lines = text.splitlines()
        for index, line in enumerate(lines):
            if line.strip().startswith(("Error in routine", "from ")):
                return "pw.x: " + " ".join(entry.strip() for entry in lines[index : index + 2])
    if isinstance(error, subprocess.CalledProcessError):
        written = [directory / name for name in ("espresso.pwo", "espresso.err")]
        said = [line for path in written if path.is_file() for line in path.read_text(errors="replace").splitlines()]
        last = next((line.strip() for line in reversed(said) if line.strip()), "it printed nothing")
        return f"pw.x ended with status {error.returncode}: {last}"
    return f"pw.x failed: {type(error).__name__}: {error}"


def _scalar(raw: str) -> Scalar:
    """A Fortran value as what a label's provenance holds."""
    text = raw.strip("'\" ")
    if text.lower().strip(".") in ("true", "false", "t", "f"):
        return is_true(text)
    try:
        value = number(text)
    except ValueError:
        return text
    return int(value) if value == int(value) and not re.search(r"[.eEdD]", text) else value


def _kpoints(template: PwTemplate, kspacing: float | None) -> dict[str, Any]:
    """Grid and shift of ``K_POINTS``; empty with ``kspacing``, ``kpts`` None for the routines of the Gamma point."""
    if kspacing:
        if "ADDITIONAL_K_POINTS" in template.cards:
            raise ValueError(
                "the template's ADDITIONAL_K_POINTS belong to its own grid: leave out kspacing, or the card"
            )
        return {}
    option, rows = template.cards.get("K_POINTS", ("", []))
    if "gamma" in option.lower() and not rows:
        return {"kpts": None}
    if "automatic" in option.lower() and len(rows) == 1:
        grid = [int(x) for x in rows[0].split()[:6]]
        if len(grid) == 6:
            return {"kpts": tuple(grid[:3]), "koffset": tuple(grid[3:6])}
    raise ValueError(
        "the template's K_POINTS must be automatic or gamma (or give kspacing)"
        + (f"; its lines are {rows}" if rows else "")
    )


def _kpoint_rows(engine: EspressoEngine, atoms: Atoms) -> list[str]:
    from ase.io.espresso import kspacing_to_grid

    if engine.kspacing:
        grid, shift = kspacing_to_grid(atoms, engine.kspacing / (2 * np.pi)), (0, 0, 0)
    elif engine.kpoints["kpts"] is None:
        return ["K_POINTS gamma"]
    else:
        grid, shift = engine.kpoints["kpts"], engine.kpoints["koffset"]
    return ["K_POINTS automatic", f"{' '.join(map(str, grid))}  {' '.join(map(str, shift))}"]
