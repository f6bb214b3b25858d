"""Which trainings the study consists of: a file of blocks, each the product of its lists."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from hint_plugins.errors import InputError

MODELS = ("alphanet", "mace")
LAWS = ("rademacher", "gaussian", "orthogonal", "columns", "stored")
LOSSES = ("mse", "mae", "huber", "norm")
CURRICULA = ("ramp", "constant")
BATCHES = ("plain", "half", "recycle")
BUDGETS = ("steps", "products", "cpu")


@dataclass(frozen=True)
class Run:
    """One training on good labels, and its place in the study.

    Attributes
    ----------
    model
        ``alphanet`` (the variant ``smooth``) or ``mace``.
    pretrained
        Begin with the weights of a pre-training on the cheap level; there is one a model and seed.
    selection
        Which structures have good labels.
    share
        Per cent of them with a Hessian.
    law, m
        Of the probes; ``stored``: fixed products in place of whole Hessians.
    loss, weight
        Of the Hessian loss.
    curriculum
        ``ramp`` (the weight rises over the first half of the run) or ``constant``.
    batches
        How structures with a Hessian are dealt: ``plain`` shuffling; ``half`` of a batch that holds any; ``recycle``:
        half of every batch, repeated within the epoch.
    budget
        ``steps:N``, ``products:N`` or ``cpu:SECONDS``; fixes the number of epochs.
    seed
        Of first weights, order, probes, and of which structures have a Hessian.
    """

    model: str = "alphanet"
    pretrained: bool = True
    selection: str = "energy-top"
    share: float = 10.0
    law: str = "rademacher"
    m: int = 5
    loss: str = "mse"
    weight: float = 0.1
    curriculum: str = "ramp"
    batches: str = "half"
    budget: str = "steps:2000"
    seed: int = 1

    def __post_init__(self) -> None:
        kind, _, amount = str(self.budget).partition(":")
        choices = {"model": MODELS, "law": LAWS, "loss": LOSSES, "curriculum": CURRICULA, "batches": BATCHES}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(f"unknown {name} {getattr(self, name)!r}: choose {', '.join(known)}")
        if kind not in BUDGETS or not amount.replace(".", "").isdigit() or float(amount) <= 0:
            raise InputError(f"the budget {self.budget!r} is not steps:N, products:N or cpu:SECONDS")
        if not self.share and kind == "products":
            raise InputError("a training without Hessians makes no products: give its budget in steps or cpu")

    @property
    def limit(self) -> tuple[str, float]:
        """Kind and amount of the budget."""
        kind, _, amount = self.budget.partition(":")
        return kind, float(amount)

    @property
    def name(self) -> str:
        """Of its folder."""
        parts = [self.model, "pre" if self.pretrained else "new", self.selection, f"h{self.share:g}"]
        if self.share:
            parts += [f"{self.law}{self.m}", f"{self.loss}{self.weight:g}", self.curriculum, self.batches]
        return "-".join([*parts, self.budget.replace(":", ""), f"s{self.seed}"])


@dataclass(frozen=True)
class Matrix:
    """The trainings of the study.

    Attributes
    ----------
    runs
        In the order of the queue: the first seed of all blocks, then the second.
    blocks
        Name of a block to the names of its runs; blocks may share some.
    pretraining
        Its settings: ``steps``, ``m``, ``weight``.
    models
        Sizes that replace those of :data:`options.MODELS`, by model.
    """

    runs: list[Run]
    blocks: dict[str, list[str]]
    pretraining: dict[str, Any]
    models: dict[str, dict[str, Any]] = field(default_factory=dict)


def without_hessians(run: Run) -> Run:
    """A run of share 0 with the settings of the Hessian loss at their defaults, so that equal runs have equal names."""
    neutral = Run()
    names = ("law", "m", "loss", "weight", "curriculum", "batches")
    return run if run.share else replace(run, **{name: getattr(neutral, name) for name in names})


def read_matrix(path: Path, only: list[str] | None = None) -> Matrix:
    """Read ``blocks`` (name to fields of :class:`Run`, each a value or a list), ``seeds``, ``pretraining``, ``models``.

    A block may be a list of such products, for lists that belong together.

    Raises
    ------
    InputError
        For an unknown field, value or block.
    """
    content = yaml.safe_load(path.read_text())
    known = {f.name for f in fields(Run)}
    seeds, blocks, runs = content.get("seeds", [1]), {}, {}
    wanted = only or list(content["blocks"])
    for name in wanted:
        if name not in content["blocks"]:
            raise InputError(f"{path}: no block {name!r}; there are {', '.join(content['blocks'])}")
        products = content["blocks"][name]
        blocks[name] = []
        for product in products if isinstance(products, list) else [products]:
            if unknown := set(product) - known:
                raise InputError(f"{path}, block {name}: unknown {', '.join(sorted(unknown))}")
            lists = {k: v if isinstance(v, list) else [v] for k, v in ({"seed": seeds} | product).items()}
            for values in itertools.product(*lists.values()):
                run = without_hessians(Run(**dict(zip(lists, values, strict=True))))
                runs.setdefault(run.name, run)
                blocks[name].append(run.name)
        blocks[name] = list(dict.fromkeys(blocks[name]))
    order = sorted(runs.values(), key=lambda run: run.seed)  # stable: blocks keep their order within a seed
    pretraining = {"steps": 20000, "m": 1, "weight": 0.1} | content.get("pretraining", {})
    return Matrix(order, blocks, pretraining, content.get("models", {}))


def row(run: Run) -> dict[str, Any]:
    """The run as columns of a table."""
    return {"run": run.name, **asdict(run)}
