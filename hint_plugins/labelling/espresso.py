"""Label engine: plane-wave DFT with pw.x of Quantum ESPRESSO, driven by an input file of the user."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms

from hint_plugins.labelling.engine import EngineError, Evaluation, Scalar
from hint_plugins.labelling.periodicity import check_vacuum, with_vacuum
from hint_plugins.labelling.pw_input import for_species, is_true, namelist_text, number, read_template
from hint_plugins.labelling.pw_kpoints import kpoint_rows, read_kpoints
from hint_plugins.labelling.pw_output import reason_of_failure, scf_correction
from hint_plugins.labelling.pw_state import set_charge_and_multiplicity, set_moments, species_labels
from hint_plugins.runs.processes import tethered

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
        self.kspacing, self.kpoints = kspacing, read_kpoints(self.template, kspacing)
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
            self.labels = species_labels(template, atoms, moments)
            self.kept = [species for species in template.species if species.label in self.labels]
            self.system, self.cards = for_species(template, [species.label for species in self.kept])
            set_charge_and_multiplicity(self.system, template, atoms)
            files = {species.label: engine.pseudo_dir / species.pseudopotential for species in self.kept}
            set_moments(self.system, template, moments, self.labels, files)
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

    def text(self) -> str:
        """The input file at the positions that ``atoms`` has now."""
        template, atoms = self.engine.template, self.atoms
        control = template.namelists.get("control", {}) | CONTROL | {"pseudo_dir": f"'{self.engine.pseudo_dir}'"}
        parts = [namelist_text(template.namelists | {"control": control, "system": self.system}), "ATOMIC_SPECIES"]
        parts += [f"{s.label} {s.mass} {s.pseudopotential}" for s in self.kept]
        parts += ["", *kpoint_rows(self.engine.kpoints, self.engine.kspacing, atoms), "", "CELL_PARAMETERS angstrom"]
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
                said = (directory / files.outputname).read_text(errors="replace")
                self.scf_correction = max(self.scf_correction, scf_correction(said))
                stress = None if self.boxed else results.get("stress")
                return Evaluation(float(results["energy"]), results["forces"], stress)
            except Exception as error:  # pw.x stops, or ASE cannot read what it wrote
                raise EngineError(reason_of_failure(directory, error)) from error

    def hessian(self) -> None:
        return None


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
