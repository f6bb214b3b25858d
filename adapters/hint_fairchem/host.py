"""fairchem checkpoints for :class:`hint_plugins.potential.Potential`."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from hint_fairchem.files import WEIGHTS
from hint_plugins.curvature.engines import Engine, FiniteDifference, ForceView
from hint_plugins.labelling.engine import EngineError
from hint_plugins.potential.backends.protocol import PotentialError, Predictions
from hint_plugins.potential.products import exact_engine
from hint_plugins.structures.charges import stated

_MARK = b"MLIPInferenceCheckpoint"


class FairchemBackend:
    """A model of a fairchem checkpoint on one of its data sets; energies and forces as fairchem predicts them.

    Parameters
    ----------
    checkpoint
        Content of the file; its Hessian task, if any, is left out.
    name
        Of the file, for messages.
    dataset
        Which of its data sets (``omol``, ``omat`` ...); may be left out when there is one.
    device, dtype
        Where and in which precision to compute; the default dtype is float32, fairchem's own.

    Raises
    ------
    PotentialError
        If the data set is unknown or must be chosen.
    """

    batched = True

    def __init__(
        self, checkpoint: Any, name: str, dataset: str | None, device: torch.device, dtype: torch.dtype | None
    ) -> None:
        from fairchem.core.units.mlip_unit.api.inference import InferenceSettings
        from fairchem.core.units.mlip_unit.utils import get_backbone_class_from_checkpoint, load_inference_model

        from hint_fairchem.checkpoints import without_hint

        self.name, self.device, self.dtype = name, device, dtype or torch.float32
        without_hint(checkpoint)
        settings = InferenceSettings(compile=False, activation_checkpointing=False, base_precision_dtype=self.dtype)
        overrides = {"backbone": get_backbone_class_from_checkpoint(checkpoint).build_inference_settings(settings)}
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)  # buffers that are no part of the state get the precision too
        try:
            loaded, _ = load_inference_model(
                name, overrides, use_ema=checkpoint.ema_state_dict is not None, preloaded_checkpoint=checkpoint
            )
        finally:
            torch.set_default_dtype(before)
        self.model: Any = getattr(loaded, "module", loaded)
        self.model.setup_tasks(checkpoint.tasks_config)
        self.model.to(device=device, dtype=self.dtype).eval().requires_grad_(False)
        self.dataset = self._choose(dataset)
        self.tasks = {task.property: task for task in self.model.dataset_to_tasks[self.dataset]}
        for task in self.tasks.values():
            task.normalizer.to(device)
            if task.element_references is not None:
                task.element_references.to(device)
        if not {"energy", "forces"} <= set(self.tasks):
            raise PotentialError(f"{name} predicts {', '.join(self.tasks)} on {self.dataset}: no energy and forces")
        backbone = self.model.backbone
        self.direct = bool(backbone.regress_config.direct_forces)
        self.engine: Engine = FiniteDifference() if self.direct else exact_engine(self.device)
        self.sees_charge: bool = getattr(backbone, "sees_charge", True)
        self.cutoff: float | None = float(backbone.cutoff) if hasattr(backbone, "cutoff") else None
        count = getattr(backbone, "max_num_elements", None)
        self.elements: frozenset[int] | None = getattr(backbone, "elements", None)
        if self.elements is None and count:
            self.elements = frozenset(range(1, int(count)))

    def _choose(self, dataset: str | None) -> str:
        names = sorted(self.model.dataset_to_tasks)
        if dataset is None and len(names) == 1:
            return names[0]
        if dataset is None or dataset not in names:
            wrong = f"has no data set {dataset!r}" if dataset else "knows several data sets"
            raise PotentialError(f"{self.name} {wrong}; choose one as file#name: {', '.join(names)}")
        return dataset

    def data(self, structures: Sequence[Atoms]) -> Any:
        """The batch as fairchem's ``AtomicData``."""
        from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch

        samples = []
        for atoms in structures:
            bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            try:
                bare.info.update(stated(atoms))
            except EngineError as error:
                raise PotentialError(f"{atoms.get_chemical_formula()}: {error}") from error
            self.model.validate_atoms_data(bare, self.dataset)
            samples.append(
                AtomicData.from_ase(
                    bare, task_name=self.dataset, target_dtype=self.dtype, r_data_keys=["charge", "spin"]
                )
            )
        return atomicdata_list_to_batch(samples).to(self.device)

    def _forces_scale(self) -> float:
        return float(self.tasks["forces"].normalizer.rmsd)

    def evaluate(self, structures: Sequence[Atoms], stress: bool = False) -> Predictions:
        """See :class:`hint_plugins.potential.backends.protocol.Backend`."""
        data = self.data(structures)
        config = self.model.backbone.regress_config
        periodic = np.array([atoms.pbc.all() for atoms in structures])
        wanted = stress and bool(periodic.any())
        if wanted and self.direct:
            raise PotentialError(f"{self.name} predicts forces directly, so its stress is no derivative of the energy")
        if wanted and not periodic.all():
            return self._mixed(structures, periodic)
        before, config.stress = config.stress, wanted
        try:
            with torch.set_grad_enabled(not self.direct):
                outputs = self.model(data)
        finally:
            config.stress = before
        task = self.tasks["energy"]
        energies = task.normalizer.denorm(outputs[task.name]["energy"])
        if task.element_references is not None:
            energies = task.element_references.undo_refs(data, energies)
        forces = self._forces_scale() * self._output(outputs, "forces").view(-1, 3)
        pieces = forces.detach().double().cpu().split([len(atoms) for atoms in structures])
        stresses = np.full((len(structures), 6), np.nan) if stress else None
        if stresses is not None and wanted:
            tensor = float(task.normalizer.rmsd) * self._output(outputs, "stress").view(-1, 3, 3)
            stresses[:] = full_3x3_to_voigt_6_stress(tensor.detach().double().cpu().numpy())
        return Predictions(energies.detach().double().cpu().numpy().reshape(-1), [p.numpy() for p in pieces], stresses)

    def _mixed(self, structures: Sequence[Atoms], periodic: np.ndarray) -> Predictions:
        """Molecules and crystals together: a stress needs a cell, so they go apart."""
        energies, forces = np.zeros(len(structures)), [np.zeros((0, 3))] * len(structures)
        stresses = np.full((len(structures), 6), np.nan)
        for flag in (True, False):
            chosen = [int(k) for k in np.flatnonzero(periodic == flag)]
            part = self.evaluate([structures[k] for k in chosen], stress=bool(flag))
            energies[chosen] = part.energies
            for k, values in zip(chosen, part.forces, strict=True):
                forces[k] = values
            if part.stresses is not None:
                stresses[chosen] = part.stresses
        return Predictions(energies, forces, stresses)

    def _output(self, outputs: dict, kind: str) -> torch.Tensor:
        task = self.tasks.get(kind)
        name = task.name if task is not None else self.tasks["energy"].name.replace("energy", kind)
        return outputs[name][kind]

    def view(self, structures: Sequence[Atoms]) -> tuple[ForceView, list[int]]:
        """See :class:`hint_plugins.potential.backends.protocol.Backend`."""
        from hint_fairchem.graphs import ForceOutputs, Forces

        data = self.data(structures)
        task, scale = self.tasks["forces"], self._forces_scale()
        outputs = ForceOutputs([(task.name, "forces", frozenset(task.datasets))], scale)
        return ForceView(data.pos, Forces(self.model, data, outputs, scale)), [len(atoms) for atoms in structures]


def load_potential(path: str, device: torch.device, dtype: torch.dtype | None) -> FairchemBackend | None:
    """Read a fairchem inference checkpoint (UMA, eSEN, or of a HINT run), or the one in a checkpoint's folder.

    ``path`` may end in ``#dataset``.

    Returns
    -------
    FairchemBackend or None
        None if the file is not fairchem's.

    Raises
    ------
    PotentialError
        If it is fairchem's but cannot be used.
    """
    file, _, dataset = path.partition("#")
    if Path(file, WEIGHTS).is_file():  # a checkpoint's folder
        file = str(Path(file, WEIGHTS))
    if not zipfile.is_zipfile(file):
        return None
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "data.pkl"]
        if not any(_MARK in archive.read(name) for name in pickles):
            return None
    try:
        from hint_fairchem.checkpoints import read_checkpoint
    except ImportError as error:
        raise PotentialError(
            f"{file} is a fairchem checkpoint, but fairchem-core is not installed ({error}): "
            "pip install 'hint-plugins[fairchem]'"
        ) from error
    return FairchemBackend(read_checkpoint(file), file, dataset or None, device, dtype)
