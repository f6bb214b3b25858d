"""The measurements of ``benchmarks/gpu.py``: each function gives the rows of one table."""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mace  # noqa: F401  (before e3nn: it sets how torch.load reads)
import numpy as np
import torch
from training_step import ELEMENTS, ENGINES, Trainer, crystal, make_data

Row = dict[str, Any]
#: Sizes by name: the published sizes, and small ones that show on a CPU that everything runs.
CHANNELS = {"full": 128, "small": 4}


def _arguments(options: argparse.Namespace, **more: Any) -> argparse.Namespace:
    settings = {
        "device": options.device,
        "channels": CHANNELS[options.size],
        "dtype": "float32",
        "system": "molecules",
        "batch_size": 8,
        "structures": 64,
    }
    return argparse.Namespace(**{**settings, **more})


def _seconds(work: Callable[[], Any], device: str, repeats: int = 2) -> float:
    """Median wall time of ``work``, after one run that pays for compilation."""
    times = []
    for _ in range(repeats + 1):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _peak(work: Callable[[], Any], device: str) -> float | None:
    """Most memory (MiB) that ``work`` needs on the GPU beyond what is there before it; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _last_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[-1][:120]


@contextlib.contextmanager
def _default_dtype(name: str) -> Iterator[torch.dtype]:
    before, dtype = torch.get_default_dtype(), getattr(torch, name)
    torch.set_default_dtype(dtype)
    try:
        yield dtype
    finally:
        torch.set_default_dtype(before)


def step_table(options: argparse.Namespace) -> Iterator[Row]:
    """Wall time of a MACE training step with the Hessian loss, as ratio to the step without it."""
    cases = [
        ("molecules", "float32", 8, 1.0),
        ("molecules", "float32", 64, 1.0),
        ("crystals", "float32", 8, 1.0),
        ("molecules", "float32", 64, 0.01),
        ("molecules", "float64", 8, 1.0),
    ]
    for system, dtype, batch, share in cases if options.size == "full" else cases[:1]:
        with _default_dtype(dtype):
            yield from _steps_of(options, system, dtype, batch, share)


def _epoch(trainer: Trainer, batches: list[list[int]]) -> None:
    for batch in batches:
        trainer.step(batch)


def _steps_of(
    options: argparse.Namespace,
    system: str,
    dtype: str,
    batch: int,
    share: float,
    engines: Sequence[str] = ENGINES,
    convert: Callable[[Any], Any] | None = None,
) -> Iterator[Row]:
    from hint_plugins.curvature.engines import get_engine

    structures = 2 * batch if share == 1 else max(round(1 / share), 4 * batch)
    args = _arguments(options, system=system, dtype=dtype, batch_size=batch, structures=structures)
    plain = Trainer(args, share, {})
    ours = Trainer(args, share, {"hessian_engine": "reverse", "hessian_num_probes": 1})
    for trainer in (plain, ours):
        if convert is not None:
            trainer.model = convert(trainer.model)
            trainer.optimizer = torch.optim.Adam(trainer.model.parameters(), lr=1e-4)
    batches = plain.batches()
    for _ in range(3):  # kernels are compiled in the first runs
        _epoch(plain, batches)
        _epoch(ours, ours.batches())
    memory = _peak(functools.partial(_epoch, plain, batches), args.device)
    for engine, probes in itertools.product(engines, (1, 5)):
        ours.plugin.engine, ours.plugin.engine_name = get_engine(engine), engine
        ours.plugin.config = ours.plugin.config.model_copy(update={"hessian_num_probes": probes})
        chosen = ours.batches()
        row: Row = {"system": system, "dtype": dtype, "batch": batch, "labelled": share, "engine": engine, "m": probes}
        try:
            row["plain_step_s"] = _seconds(functools.partial(_epoch, plain, batches), args.device) / len(batches)
            row["step_s"] = _seconds(functools.partial(_epoch, ours, chosen), args.device) / len(chosen)
            row["ratio"] = row["step_s"] / row["plain_step_s"]
            more = _peak(functools.partial(_epoch, ours, chosen), args.device)
            row["extra_MiB"] = None if more is None or memory is None else more - memory
        except RuntimeError as error:
            row["note"] = _last_line(error)
        yield row


@functools.cache
def _models(size: str) -> dict[str, Callable[[tuple[int, ...]], Any]]:
    """Makers of energy models for given elements."""
    from training_step import build

    from hint_mace.host import MaceEnergyModel
    from hint_plugins.models.alphanet import AlphaNet

    def mace_model(elements: tuple[int, ...]) -> Any:
        system = next(name for name, numbers in ELEMENTS.items() if tuple(numbers) == elements)
        return MaceEnergyModel(build(argparse.Namespace(channels=CHANNELS[size], device="cpu", system=system))[0])

    def alphanet(elements: tuple[int, ...]) -> Any:
        torch.manual_seed(0)
        layers, hidden = (4, 128) if size == "full" else (2, 8)
        return AlphaNet(num_layers=layers, hidden_channels=hidden, elements=elements, cutoff=5.0)

    return {"MACE": mace_model, "AlphaNet": alphanet}


def _potential(options: argparse.Namespace, name: str, system: str, dtype: str) -> Any:
    from hint_plugins.potential import Potential
    from hint_plugins.potential.backends.energy_models import EnergyModelBackend

    with _default_dtype("float64"):
        model = _models(options.size)[name](tuple(ELEMENTS[system]))
    return Potential(EnergyModelBackend(copy.deepcopy(model), name, options.device, getattr(torch, dtype)))


def precision_table(options: argparse.Namespace) -> Iterator[Row]:
    """Relative error of Hessian products by engine and precision, TF32 off and on, against float64 `reverse`."""
    from hint_plugins.curvature.engines import get_engine

    generator = torch.Generator().manual_seed(0)
    for name, system in itertools.product(("MACE", "AlphaNet"), ELEMENTS):
        atoms = make_data(2, 1.0, system)
        exact = None
        for dtype, tf32 in (("float64", False), ("float32", False), ("float32", True)):
            backend = _potential(options, name, system, dtype).backend
            if exact is None:
                count = sum(len(a) for a in atoms)
                probes = torch.randn(4, count, 3, dtype=torch.float64, generator=generator).sign()
                exact = get_engine("reverse")(backend.view(atoms)[0], probes.to(options.device), False)
            for engine in ENGINES:
                label = "float32 + TF32" if tf32 else dtype
                row: Row = {"model": name, "system": system, "precision": label, "engine": engine}
                torch.backends.cuda.matmul.allow_tf32 = tf32
                try:
                    view = backend.view(atoms)[0]
                    found = get_engine(engine)(view, probes.to(options.device, view.positions.dtype), False)
                    row["error"] = float((found.double() - exact).norm() / exact.norm())
                except RuntimeError as error:
                    row["note"] = _last_line(error)
                finally:
                    torch.backends.cuda.matmul.allow_tf32 = False
                yield row


def selftest_table(options: argparse.Namespace) -> Iterator[Row]:
    """Third derivatives on the device against central differences, float64."""
    from hint_plugins.diagnosis.derivatives import check_potential, check_training

    for name, system in itertools.product(("MACE", "AlphaNet"), ELEMENTS):
        potential = _potential(options, name, system, "float64")
        atoms = make_data(2, 1.0, system)
        first, third = check_potential(potential, atoms), check_training(potential, atoms)
        assert third is not None
        yield (
            {"model": name, "system": system}
            | {key: first[key] for key in ("forces_error", "hvp_error", "stress_error", "asymmetry")}
            | {"loss_gradient_error": third["gradient_error"], "ok": first["ok"] and third["ok"]}
        )


def hessian_table(options: argparse.Namespace) -> Iterator[Row]:
    """Whole Hessians a second by size of the structures, engine as :class:`Potential` chooses it, and by name."""
    from ase.build import molecule

    counts = {6: 48, 12: 24, 24: 8, 48: 2} if options.size == "full" else {6: 2}
    for name, (size, count) in itertools.product(("MACE", "AlphaNet"), counts.items()):
        potential = _potential(options, name, "molecules", "float64")
        structures = []
        for k in range(count):
            atoms = molecule("C2H4")
            while len(atoms) < size:
                part = molecule("C2H4")
                part.positions += [0, 0, 3.5 * len(atoms) / 6]
                atoms += part
            atoms.rattle(0.03, seed=k)
            structures.append(atoms)
        for engine in (None, "reverse", "replicate", "vmap", "finite_difference"):
            row: Row = {"model": name, "atoms": size, "structures": count, "engine": engine or "default"}
            work = functools.partial(potential.hessians, structures, engine=engine)
            try:
                work()  # besides the run that _seconds leaves out: batches grow and kernels are compiled
                row["per_second"] = count / _seconds(work, options.device, 1)
                row["peak_MiB"] = _peak(work, options.device)
            except RuntimeError as error:
                row["note"] = _last_line(error)
            yield row


def ensemble_table(options: argparse.Namespace) -> Iterator[Row]:
    """Energies, forces and stresses of an ensemble of rattled crystals: batched against one by one."""
    count = 128 if options.size == "full" else 2
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(count):
        atoms = crystal()
        atoms.positions += 0.05 * rng.standard_normal(atoms.positions.shape)
        frames.append(atoms)
    for name, dtype in itertools.product(("MACE", "AlphaNet"), ("float64", "float32")):
        potential = _potential(options, name, "crystals", dtype)
        batched = functools.partial(potential.evaluate, frames, stress=True)
        few = frames[: max(1, count // 8)]
        seconds = _seconds(batched, options.device, 2) / count
        single = _seconds(lambda p=potential, f=few: [p.evaluate([a], stress=True) for a in f], options.device, 1)
        yield {
            "model": name,
            "dtype": dtype,
            "structures": count,
            "batched_per_second": 1 / seconds,
            "one_by_one_per_second": len(few) / single,
            "ratio": single / len(few) / seconds,
            "peak_MiB": _peak(batched, options.device),
        }


def kernels_table(options: argparse.Namespace) -> Iterator[Row]:
    """MACE on OpenEquivariance and cuEquivariance, where they are there: derivatives (float64) and training step."""
    from importlib import import_module
    from importlib.metadata import version

    from hint_mace.host import MaceEnergyModel
    from hint_plugins.diagnosis.derivatives import check_training
    from hint_plugins.potential import Potential
    from hint_plugins.potential.backends.energy_models import EnergyModelBackend

    known = {"openequivariance": "convert_e3nn_oeq", "cuequivariance_torch": "convert_e3nn_cueq"}
    for package, module in known.items():
        try:
            import_module(package)
        except ImportError as error:
            yield {"kernels": package, "note": f"not run: {error}"}
            continue
        convert = functools.partial(import_module(f"mace.cli.{module}").run, device=options.device)
        name = f"{package} {version(package.replace('_', '-'))}"
        try:
            with _default_dtype("float64"):
                model = MaceEnergyModel(
                    convert(_potential(options, "MACE", "molecules", "float64").backend.model.model)
                )
                backend = EnergyModelBackend(model, name, options.device, torch.float64)
                found = check_training(Potential(backend), make_data(2, 1.0))
                assert found is not None
            row = {key: found[key] for key in ("hvp_error", "gradient_error", "ok")}
            yield {"kernels": name, **row, "note": "; ".join(found["guilty"])[:160]}
            engines = ("reverse", "replicate", "finite_difference_one_sided")
            with _default_dtype("float32"):
                for step in _steps_of(options, "molecules", "float32", 64, 1.0, engines, convert):
                    yield {"kernels": name} | {k: v for k, v in step.items() if k not in ("system", "labelled")}
        except Exception as error:  # a table of what works: an error is a finding
            yield {"kernels": name, "note": f"{type(error).__name__}: {error}"[:200]}


#: Tables in their order: title and function.
TABLES: dict[str, tuple[str, Callable[[argparse.Namespace], Iterator[Row]]]] = {
    "selftest": ("Derivatives on the device", selftest_table),
    "precision": ("Precision of Hessian products", precision_table),
    "steps": ("Training step", step_table),
    "hessians": ("Whole Hessians", hessian_table),
    "ensembles": ("Ensembles", ensemble_table),
    "kernels": ("Equivariant kernels", kernels_table),
}
