"""Settings of the stochastic self-consistent harmonic approximation (SSCHA) and of a ranking with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hint_plugins.settings import Settings
from hint_recipes.crystals.repetitions import MATRIX_METAVAR, METAVAR, Stages, Supercell


class Minimisation(Settings):
    """How the free energy of one crystal is minimised; the defaults are those of the HINT paper (arXiv:2603.25373)."""

    supercell: Supercell = Field(
        (2, 2, 2),
        description="Repetitions of the unit cell in the supercell of the last stage, or nine numbers: phonopy's "
        "supercell matrix, row by row. Raise it until the results no longer change.",
        json_schema_extra={"metavar": MATRIX_METAVAR, "text": "2x2x2"},
    )
    stage: Stages = Field(
        (),
        description="Smaller supercell that is converged first, e.g. 1x1x1; its matrix, interpolated, is the start of "
        "the next. May be given several times. Use it when the last supercell is expensive.",
        json_schema_extra={"metavar": METAVAR, "text": []},
    )
    configurations: int = Field(
        500,
        description="Configurations of a population; an even number, since each comes with its mirror image. Raise it "
        "for smaller errors, or when a minimisation fails.",
    )
    min_populations: int = Field(
        2, ge=1, description="Smallest number of populations per stage. Raise it to see whether results stay."
    )
    max_populations: int = Field(
        30,
        ge=1,
        description="Largest number of populations per stage. Raise it to continue an unconverged run.",
    )
    final_configurations: int = Field(
        0,
        description="Configurations (even) of the fresh ensemble that gives free energy, stress and all errors at the "
        "end; 0 takes as many as in a population. Raise it for smaller errors.",
    )
    step: float = Field(
        0.002,
        gt=0,
        description="Starting step of dynamical matrix and positions in the minimisation (no unit); the line search "
        "adapts it. Raise it (0.02, 0.2) when a population takes many minimisation steps, lower it when one fails.",
    )
    kong_liu: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Smallest share of effective configurations (Kong-Liu ratio): below it a new population is drawn, "
        "and no result is accepted. Raise it when the last population and the fresh ensemble do not agree.",
    )
    meaningful_factor: float = Field(
        0.001,
        gt=0,
        description="A run is converged when the gradient is below this multiple of its statistical error. "
        "Raise it (0.1) to end the minimisations earlier.",
    )
    bulk_modulus: float = Field(
        100.0,
        gt=0,
        description="Estimate of the bulk modulus, GPa, whose inverse sets the size of the first cell step. "
        "Raise it when the cell overshoots, lower it when the cell hardly moves.",
    )
    reference_configurations: int = Field(
        20,
        description="Configurations (mirror pairs, at least 4) that the reference method of --reference evaluates. "
        "Raise it when the error of the correction is too large.",
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="Seed of the random numbers. Change it to see how far results scatter."
    )

    def as_asked(self) -> dict[str, Any]:
        """Supercells as ``config.yaml`` keeps them."""
        return {"supercell": self.supercell, "stage": ["x".join(map(str, stage)) for stage in self.stage] or None}

    @field_validator("configurations")
    @classmethod
    def _even(cls, value: int) -> int:
        if value < 2 or value % 2:
            raise ValueError("the number of configurations must be even and at least 2")
        return value

    @field_validator("final_configurations")
    @classmethod
    def _even_or_none(cls, value: int) -> int:
        if value < 0 or value == 2 or value % 2:
            raise ValueError("the number of final configurations must be even and at least 4, or 0")
        return value


class SschaSettings(Minimisation):
    """Settings of an SSCHA run; populations draw their random numbers from ``(seed, stage, population)``."""

    temperature: float = Field(0.0, ge=0, description="Temperature, K. 0 leaves zero-point motion alone.")
    representation: Literal["auto", "normal", "sqrt", "root4"] = Field(
        "auto",
        description="Variable of the minimisation: normal (the matrix itself), sqrt, root4 (its roots, which stay "
        "positive), or auto: root4 with large steps and a Kong-Liu ratio of 0.2 in the first population after a start "
        "with imaginary modes, normal otherwise. Use sqrt or root4 when a minimisation runs into imaginary modes.",
    )
    relax_positions: bool = Field(
        True, description="Let the centroids relax; the symmetry of the start is kept. Switch it off for fixed sites."
    )
    relax_cell: bool = Field(
        False,
        description="Relax the cell to --pressure; the symmetry of the start is kept. Use it for thermal expansion and "
        "structures under pressure.",
    )
    fix_volume: bool = Field(
        False,
        description="With --relax-cell: relax the shape of the cell at constant volume, for an equation of state.",
    )
    pressure: float = Field(
        0.0, description="Target pressure of --relax-cell, GPa. Change it for a crystal under pressure."
    )
    stress: bool = Field(
        False,
        description="Evaluate stresses also with a fixed cell, so that the anharmonic pressure is reported. Use it to "
        "see the pressure of a cell that is not relaxed.",
    )
    start_from: Path | None = Field(
        None,
        description="Starting force constants: prefix of dyn files, phonopy yaml, q2r .fc, or .npz [default: those of "
        "the model]. Use it to start from a neighbouring temperature or from stiffer phonons.",
    )
    born: Path | None = Field(
        None,
        description="Born effective charges and dielectric tensor, for bands, the free energy on the dense mesh and "
        "the step from one --stage to the next: BORN or yaml of phonopy, q2r .fc, dyn1 of ph.x, vasprun.xml or OUTCAR "
        "of VASP [default: those of the --start-from file, if it holds any]. Give it for every crystal that is not a "
        "metal and not elemental.",
    )
    floor: float = Field(
        20.0,
        description="Lowest frequency of the start, cm^-1: imaginary and softer modes are raised to it. Raise it when "
        "the first population fails.",
    )
    hessian_configurations: int = Field(
        0,
        description="Configurations (even) for the Hessian of the free energy, which tells whether the crystal is "
        "stable; 0 leaves it out. Converged soft modes need 5,000 to 10,000.",
    )
    four_phonon: bool = Field(
        False,
        description="Include the fourth-order term in the Hessian of the free energy; needs (3 N)^4 x 8 bytes for N "
        "atoms in the supercell. Use it where a soft mode is strongly anharmonic.",
    )
    on_bad: Literal["drop", "stop"] = Field(
        "drop",
        description="What to do with a configuration that the model cannot evaluate or that exceeds --max-energy or "
        "--max-force: drop leaves it out and says so (at most a fifth of an ensemble), stop ends the run. Use stop "
        "when no configuration may be left out.",
    )
    max_energy: float = Field(
        5.0,
        description="Largest distance of a configuration's energy from the median of its ensemble, eV per atom. "
        "Raise it when good configurations are dropped.",
    )
    max_force: float = Field(
        500.0, description="Largest force component of a configuration, eV/A. Raise it when good ones are dropped."
    )


class RankSettings(Minimisation):
    """Settings of a ranking of candidate structures by their anharmonic Gibbs free energies."""

    temperature: float = Field(300.0, ge=0, description="Temperature, K. 0 leaves zero-point motion alone.")
    pressure: float = Field(0.0, description="Pressure, GPa. Change it for crystals under pressure.")
    relax_cell: bool = Field(
        True, description="Relax the cells to the pressure. Switch it off to compare the cells as they are given."
    )
    supercell_length: float | None = Field(
        None,
        gt=0,
        description="Choose the repetitions of each candidate so that its supercell reaches at least this far in every "
        "direction, A (instead of --supercell). Use it when the unit cells have different sizes.",
    )

    check_supercell: Supercell | None = Field(
        None,
        description="Smaller supercell in which each candidate is run too: by how much a difference of free energies "
        "changes from it to --supercell becomes part of its error. Use it when the order of the candidates is close.",
        json_schema_extra={"metavar": MATRIX_METAVAR, "text": None},
    )
    check_length: float | None = Field(
        None,
        gt=0,
        description="The same with --supercell-length: length that the smaller supercells reach at least, A.",
    )

    @model_validator(mode="after")
    def _one_check(self) -> RankSettings:
        if self.check_supercell is not None and (self.check_length is not None or self.supercell_length is not None):
            raise ValueError("check_supercell goes with supercell, check_length with supercell_length")
        if self.check_length is not None and self.supercell_length is None:
            raise ValueError("check_length needs supercell_length")
        return self

    @property
    def checked(self) -> bool:
        """Whether each candidate is also run in a smaller supercell."""
        return self.check_supercell is not None or self.check_length is not None

    def check(self) -> RankSettings:
        """The settings of the runs in the smaller supercells."""
        own = {"stage": (), "check_supercell": None, "check_length": None}
        if self.check_length is not None:
            return self.changed(**own, supercell_length=self.check_length)
        return self.changed(**own, supercell=self.check_supercell)

    def as_asked(self) -> dict[str, Any]:
        """Supercells as ``config.yaml`` keeps them."""
        return {**super().as_asked(), "check_supercell": self.check_supercell}

    def sscha(self) -> SschaSettings:
        """The settings of each candidate's run."""
        shared = {name: value for name, value in dict(self).items() if name in SschaSettings.model_fields}
        return SschaSettings(**shared, stress=True)
