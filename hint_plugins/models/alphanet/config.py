"""Options of AlphaNet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

VARIANTS = ("smooth", "square", "bessel", "gauss")
PUBLISHED = ("square", "bessel", "gauss")
#: Length of tables by atomic number.
MAX_NUMBER = 119

_PUBLISHED_ONLY = frozenset(
    [
        "head",
        "hidden_channels_chi",
        "eps",
        "reduce_mode",
        "readout",
        "has_norm_before_flag",
        "has_norm_after_flag",
        "use_sigmoid",
        "rotary",
        "zbl",
    ]
)

#: Rows of the published embedding tables: atomic numbers up to 94.
PUBLISHED_ELEMENTS = 95


@dataclass(frozen=True)
class AlphaNetConfig:
    """Every option of the network.

    Attributes
    ----------
    variant
        ``smooth`` (default) for training; ``square``, ``bessel`` and ``gauss`` compute exactly what the
        published networks compute, their discontinuities included, and are meant for their weights.
    cutoff
        Radius of the neighbour list in Angstrom.
    num_layers
        Message-passing steps.
    hidden_channels
        Channels of the scalar and of the vector node features; divisible by 4.
    num_radial
        Radial basis functions.
    main_chi1
        Complex components of the phase state of an atom.
    mp_chi1
        Complex components of the phase message of an edge.
    chi2
        Complex components of the contracted edge tensor.
    elements
        Atomic numbers the network knows; others are refused. ``smooth`` only; the published networks have
        rows for all elements up to plutonium (Z = 94).
    frame_channels
        Vector channels that are resolved in the edge frames. ``smooth`` only.
    avg_neighbours
        Mean number of neighbours within the cutoff, which normalises the sums over neighbours; take it from
        the training data. ``smooth`` only.
    scale, shift
        Initial per-atom factor (dimensionless) and offset (eV) of the atomic energies. Set them per element
        from data with :meth:`AlphaNet.set_scale_shift`.
    head
        Rows of the edge tensor before contraction. Published variants only, as all options below.
    hidden_channels_chi
        Elements of the edge tensor; divisible by ``head``.
    eps
        Added to the distance in the unit vector, Angstrom (``square`` has 1e-9 whatever this says).
    reduce_mode
        ``sum`` or ``mean`` of the scalar messages over neighbours.
    readout
        ``sum`` or ``mean`` of atomic energies over a structure.
    has_norm_before_flag, has_norm_after_flag
        Layer norm on the aggregated messages, or on their phase part only.
    use_sigmoid
        Squash the energy by ``sigmoid(5 (E - 0.5))``.
    rotary
        Rotate the scalar features by the phases of the previous layer. False reproduces copies of the code in
        which that factor is reset in each layer.
    zbl
        Add the short-range screened nuclear repulsion.

    Raises
    ------
    ValueError
        Naming the option that does not fit.
    """

    variant: str = "smooth"
    cutoff: float = 5.0
    num_layers: int = 4
    hidden_channels: int = 128
    num_radial: int = 8
    main_chi1: int = 16
    mp_chi1: int = 24
    chi2: int = 8
    elements: tuple[int, ...] = tuple(range(1, 119))
    frame_channels: int = 32
    avg_neighbours: float = 16.0
    scale: float = 1.0
    shift: float = 0.0
    head: int = 16
    hidden_channels_chi: int = 96
    eps: float = 1e-10
    reduce_mode: str = "sum"
    readout: str = "sum"
    has_norm_before_flag: bool = True
    has_norm_after_flag: bool = False
    use_sigmoid: bool = False
    rotary: bool = True
    zbl: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(int(z) for z in self.elements))

        def require(condition: bool, message: str) -> None:
            if not condition:
                raise ValueError(f"AlphaNet config: {message}")

        require(self.variant in VARIANTS, f"variant must be one of {VARIANTS}, got {self.variant!r}")
        for name in (
            "num_layers",
            "hidden_channels",
            "num_radial",
            "main_chi1",
            "mp_chi1",
            "chi2",
            "frame_channels",
            "head",
            "hidden_channels_chi",
        ):
            value = getattr(self, name)
            require(isinstance(value, int) and value > 0, f"{name} must be a positive integer, got {value!r}")
        for name in ("cutoff", "avg_neighbours"):
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)!r}")
        require(self.hidden_channels % 4 == 0, f"hidden_channels must be divisible by 4: {self.hidden_channels}")
        require(
            len(set(self.elements)) == len(self.elements) > 0 and 0 < min(self.elements) <= max(self.elements) < 119,
            f"elements must be different atomic numbers in 1..118, got {self.elements}",
        )
        if not self.published:
            for field in dataclasses.fields(self):
                if field.name in _PUBLISHED_ONLY:
                    require(
                        getattr(self, field.name) == field.default,
                        f"{field.name} has no meaning in variant 'smooth', only in {PUBLISHED}",
                    )
            return
        require(
            self.hidden_channels_chi % self.head == 0,
            f"hidden_channels_chi ({self.hidden_channels_chi}) must be divisible by head ({self.head})",
        )
        require(
            self.hidden_channels >= self.head,
            f"hidden_channels ({self.hidden_channels}) must not be below head ({self.head})",
        )
        for name in ("reduce_mode", "readout"):
            value = getattr(self, name)
            require(value in ("sum", "mean"), f"{name} must be 'sum' or 'mean', got {value!r}")
        require(
            not (self.has_norm_before_flag and self.has_norm_after_flag),
            "has_norm_before_flag and has_norm_after_flag exclude each other",
        )

    @property
    def published(self) -> bool:
        """Whether this is one of the published networks."""
        return self.variant in PUBLISHED

    def to_dict(self) -> dict[str, Any]:
        """Plain data (for YAML or a checkpoint)."""
        return dataclasses.asdict(self) | {"elements": list(self.elements)}

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> AlphaNetConfig:
        """Read plain data.

        Raises
        ------
        ValueError
            For a name that is not an option, or a value that does not fit.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ValueError(f"AlphaNet config: no option called {unknown[0]!r}; there are {sorted(known)}")
        return cls(**options)
