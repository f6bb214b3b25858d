"""Settings of whoever reads labels: their names in a file, and the limits of their checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from hint_plugins.labels.limits import MAX_ASYMMETRY, MAX_SUM_RULE
from hint_plugins.settings import Settings

if TYPE_CHECKING:
    from hint_plugins.labels.keys import Keys


class LabelKeys(Settings):
    """Names of the labels in a file, as options."""

    energy_key: str = Field("REF_energy", description="Name of the energy (eV) in info.")
    forces_key: str = Field("REF_forces", description="Name of the forces (eV/A) in arrays.")
    stress_key: str = Field(
        "REF_stress", description="Name of the stress (eV/A^3) in info, six numbers (xx, yy, zz, yz, xz, xy) or 3x3."
    )
    hessian_key: str = Field(
        "REF_hessian",
        description="Name of the Hessian in info, (3N)^2 numbers in eV/A^2; parts of a Hessian have the same name with "
        "_columns, _column_indices, _probes, _products, _block, _block_indices behind it.",
    )

    def keys(self) -> Keys:
        """The same names without the word key."""
        from hint_plugins.labels.keys import Keys

        return Keys(**{name.removesuffix("_key"): value for name, value in self.model_dump().items()})


class AllLabelKeys(LabelKeys):
    """Names of the labels in a file, virials included, as options."""

    virials_key: str = Field(
        "REF_virials", description="Name of the virials (eV) in info; they are read as the stress -virials/volume."
    )


class CheckSettings(Settings):
    """Limits of the checks that can be set; the others follow from published labels."""

    max_asymmetry: float = Field(
        MAX_ASYMMETRY,
        ge=0,
        description="Largest accepted max|H - H^T| / max|H| of a whole Hessian. Raise it for Hessians by finite "
        "differences of noisy forces.",
    )
    max_sum_rule: float = Field(
        MAX_SUM_RULE,
        ge=0,
        description="Largest accepted |sum over atoms of a row of H| / max|H|. Raise it for labels from codes with a "
        "grid in space, whose energy changes when all atoms move together.",
    )
