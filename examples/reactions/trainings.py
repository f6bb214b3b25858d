"""One training of the study in a folder of its own: the command, the budget, what it cost."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import options
import yaml
from labels import share_name
from matrix import Matrix, Run
from stages import command, refuse_changes, stage

from hint_plugins.errors import InputError
from hint_plugins.labels.hessian_label import SUFFIXES
from hint_plugins.runs.files import replacing
from hint_plugins.storage.store import read_structures

METER = Path(__file__).with_name("meter")


class Trainings:
    """Where data and trainings are, and on which device they run.

    Parameters
    ----------
    data
        Made by ``dataset.py``.
    out
        Of the trainings.
    matrix
        What is trained.
    device
        cpu or cuda.
    """

    def __init__(self, data: Path, out: Path, matrix: Matrix, device: str) -> None:
        self.data, self.out, self.matrix, self.device = data.resolve(), out.resolve(), matrix, device
        self._calibrating = threading.Lock()  # trainings under way at the same time may want the same measurement

    def pretraining(self, model: str, seed: int) -> Path:
        """Folder of a pre-training."""
        return self.out / f"{model}-pretraining-s{seed}"

    def train_file(self, run: Run) -> Path:
        """Training structures of a run.

        Raises
        ------
        InputError
            If the data set has none for this selection, share or seed.
        """
        stored = run.m if run.law == "stored" else None
        file = self.data / "good" / run.selection / f"seed{run.seed}" / share_name(run.share, stored)
        if not file.is_file():
            raise InputError(f"{file}: no such file; make the data set with this selection, share, probes and seed")
        return file

    def pretrain(self, model: str, seed: int) -> Path:
        """Train on the cheap level; the finished model."""
        folder, settings = self.pretraining(model, seed), self.matrix.pretraining
        files = (self.data / "pretraining" / "train.xyz", self.data / "pretraining" / "valid.xyz")
        flags = self._flags(files[0])
        batch_size = self._sizes(model).get("batch_size", options.MODELS[model]["batch_size"])
        num_epochs = max(1, round(settings["steps"] / -(-len(flags) // batch_size)))
        hessian = {
            "hessian_weight": settings["weight"],
            "hessian_num_probes": settings["m"],
            "hessian_ramp_end": -(-num_epochs // 2),
        }
        return self._train(folder, model, files, num_epochs, seed, hessian, {"pretraining": settings})

    def tune(self, run: Run) -> Path:
        """Train on the good level, from the weights of a finished pre-training if the run wants them."""
        files = (self.train_file(run), self.data / "good" / "valid" / "labels.xyz")
        start = None
        if run.pretrained:
            start = self.pretraining(run.model, run.seed) / "model.model"
            if not start.is_file():
                raise InputError(f"{start}: no such file; the pre-training is not finished")
        flags = self._flags(files[0])
        batch_size = self._sizes(run.model).get("batch_size", options.MODELS[run.model]["batch_size"])
        cpu = self._calibrated(run, files, flags, batch_size, start) if run.limit[0] == "cpu" else None
        num_epochs = options.epochs(run, flags, batch_size, cpu)
        hessian = options.hessian_options(run, num_epochs)
        return self._train(
            self.out / run.name, run.model, files, num_epochs, run.seed, hessian, {"run": asdict(run)}, start
        )

    def refuse_changes(self) -> None:
        """Raise ``InputError`` where a training that was begun has other settings than the matrix now asks for."""
        wanted = {run.name: (run.model, {"run": asdict(run)}) for run in self.matrix.runs}
        for run in self.matrix.runs:
            name = self.pretraining(run.model, run.seed).name
            wanted[name] = (run.model, {"pretraining": self.matrix.pretraining})
        for name, (model, record) in wanted.items():
            file = self.out / name / "stage.json"
            if file.is_file():
                was = json.loads(file.read_text())["options"]
                refuse_changes(file.parent, was, record | self._settings(model) | {"epochs": was["epochs"]})

    def _settings(self, model: str) -> dict[str, Any]:
        """What all trainings of a model have in common."""
        sizes = self._sizes(model)
        network = {"network": options.network(sizes)} if model == "alphanet" else {}
        return {"settings": options.COMMON | options.MODELS[model] | sizes | network}

    def _calibrated(
        self, run: Run, files: tuple[Path, Path], flags: list[bool], batch_size: int, start: Path | None
    ) -> float:
        """Processor time of an epoch, measured once for all seeds and losses: a training of one epoch."""
        same = replace(run, seed=1, loss="mse", weight=0.1, curriculum="constant", budget="steps:1")
        folder = self.out / "calibrations" / same.name
        hessian = options.hessian_options(same, 1)
        with self._calibrating:
            self._train(folder, run.model, files, 1, same.seed, hessian, {"calibration": asdict(same)}, start)
        cost = json.loads((folder / "cost.json").read_text())
        return cost["cpu_seconds"] * options.epoch_cost(run, flags, batch_size)[0] / max(1, cost["steps"])

    def _train(
        self,
        folder: Path,
        model: str,
        files: tuple[Path, Path],
        num_epochs: int,
        seed: int,
        hessian: dict[str, Any],
        record: dict[str, Any],
        start: Path | None = None,
    ) -> Path:
        sizes = self._sizes(model)
        words = options.training_words(
            "model",
            model,
            files=files,
            e0s=self.data / "pretraining" / "e0s.json",
            num_epochs=num_epochs,
            seed=seed,
            device=self.device,
            hessian=hessian,
            start=start,
            sizes=sizes,
        )

        def make() -> dict[str, Any]:
            with replacing(folder / "net.yaml") as temporary:
                temporary.write_text(yaml.safe_dump(options.network(sizes)))
            command(folder, *words, env={"PYTHONPATH": _with_meter()})
            cost = json.loads((folder / "results" / "model_cost.json").read_text())
            with replacing(folder / "cost.json") as temporary:
                temporary.write_text(json.dumps(cost))
            for checkpoint in (folder / "checkpoints").glob("*"):
                checkpoint.unlink()
            return {"cost": cost, "command": words}

        # The device changes the last digits only: a training may go on elsewhere.
        stage(folder, record | self._settings(model) | {"epochs": num_epochs}, make)
        return folder / "model.model"

    def _sizes(self, model: str) -> dict[str, Any]:
        return self.matrix.models.get(model, {})

    @staticmethod
    def _flags(path: Path) -> list[bool]:
        """Which structures carry second derivatives."""
        return [any("REF_hessian" + s in atoms.info for s in SUFFIXES) for atoms in read_structures(path)]


def _with_meter() -> str:
    """PYTHONPATH with the plugin that measures costs."""
    return os.pathsep.join(filter(None, [str(METER), os.environ.get("PYTHONPATH", "")]))
