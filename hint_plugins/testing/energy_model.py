"""What every energy model must do. Subclass :class:`EnergyModelSuite` and pytest runs all of it on your model.

    from hint_plugins.testing.energy_model import EnergyModelSuite

    class TestMine(EnergyModelSuite):
        elements = (1, 6, 8)

        def make(self):
            return MyModel().double()

The numbers in the tests are eV and Angstrom. Derivatives are compared with central differences in float64, whose
error is about 1e-9 of the scale of the quantity for the steps used.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import ClassVar

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.spatial.transform import Rotation

from hint_plugins.models import Graph, energy_and_forces, energy_forces_stress, graph_from_atoms

#: The CPU, and the GPU where there is one.
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
TURN = Rotation.from_euler("zyx", [0.7, -0.4, 1.1]).as_matrix()


def hessian(model, graph: Graph) -> torch.Tensor:
    """Whole Hessian (3N, 3N) of the summed energy of a batch, one row at a time."""
    graph = graph.with_positions(graph.positions.detach().clone().requires_grad_())
    forces = energy_and_forces(model, graph, create_graph=True)[1]
    rows = [torch.autograd.grad(-f, graph.positions, retain_graph=True)[0].flatten() for f in forces.flatten()]
    return torch.stack(rows)


def hessian_loss(model, graph: Graph, probe: torch.Tensor) -> torch.Tensor:
    """Half the squared Hessian product plus energies and forces, as training uses them."""
    graph = graph.with_positions(graph.positions.detach().clone().requires_grad_())
    energy, forces = energy_and_forces(model, graph, create_graph=True)
    (product,) = torch.autograd.grad(-(forces * probe).sum(), graph.positions, create_graph=True)
    return 0.5 * product.square().sum() + forces.square().sum() + energy.sum()


@lru_cache(maxsize=4)
def _made(suite: type[EnergyModelSuite]) -> torch.nn.Module:
    torch.manual_seed(0)
    return suite().make().double().eval()


class EnergyModelSuite:
    """Tests of one model; see the module's docstring."""

    #: Atomic numbers the model knows; two of them are enough.
    elements: ClassVar[tuple[int, ...]]
    #: Set to False for a model that tells mirror images apart.
    mirror_symmetric: ClassVar[bool] = True
    #: Set to False where some parameters never reach the energy (distributed training then needs a search).
    all_parameters_used: ClassVar[bool] = True
    #: Largest jump of energy, forces and Hessian allowed where a neighbour crosses the cutoff.
    jump: ClassVar[float] = 1e-8
    #: Largest change of the energy (relative to 1 eV or the energy, whichever is larger) under a symmetry.
    symmetry: ClassVar[float] = 1e-12

    def make(self) -> torch.nn.Module:
        """The model in float64 on the CPU, always with the same parameters."""
        raise NotImplementedError

    @pytest.fixture
    def model(self):
        return _made(type(self))  # type: ignore[arg-type]

    @pytest.fixture
    def molecule(self) -> Atoms:
        """Six atoms without any symmetry."""
        positions = [[0, 0, 0], [1.1, 0.2, -0.1], [-0.4, 1.2, 0.3], [0.3, -0.8, 1.1], [2.0, 1.0, 0.6], [-1.2, 1.5, 1.2]]
        return Atoms(numbers=self.choose(6), positions=positions)

    @pytest.fixture
    def crystal(self) -> Atoms:
        """Two atoms in a triclinic cell smaller than any usual cutoff."""
        cell = [[2.9, 0.1, 0.0], [0.4, 3.1, 0.2], [-0.3, 0.5, 3.3]]
        return Atoms(numbers=self.choose(2), scaled_positions=[[0.1, 0, 0], [0.52, 0.45, 0.55]], cell=cell, pbc=True)

    def choose(self, count: int) -> list[int]:
        return [self.elements[k % len(self.elements)] for k in range(count)]

    def graph(self, model, *atoms: Atoms, dtype=torch.float64, device="cpu") -> Graph:
        return graph_from_atoms(list(atoms), model.cutoff, device=device, dtype=dtype)

    def energy(self, model, atoms: Atoms) -> float:
        return model(self.graph(model, atoms)).item()

    # symmetries

    def same(self, model, one: Atoms, two: Atoms, factor: int = 1) -> None:
        first = self.energy(model, one) * factor
        assert self.energy(model, two) == pytest.approx(first, abs=self.symmetry * max(1.0, abs(first)))

    @pytest.mark.parametrize("kind", ["molecule", "crystal"])
    def test_rotation(self, model, kind, request):
        atoms = request.getfixturevalue(kind)
        turned = atoms.copy()
        turned.set_cell(atoms.cell.array @ TURN.T)
        turned.positions = atoms.positions @ TURN.T
        self.same(model, atoms, turned)
        forces, expected = (energy_and_forces(model, self.graph(model, a))[1] for a in (turned, atoms))
        assert torch.allclose(forces, expected @ torch.as_tensor(TURN.T), atol=1e-11)

    def test_hessian_turns_with_the_molecule(self, model, molecule):
        turned = molecule.copy()
        turned.positions = molecule.positions @ TURN.T
        whole = torch.as_tensor(np.kron(np.eye(6), TURN))
        expected = whole @ hessian(model, self.graph(model, molecule)) @ whole.T
        assert torch.allclose(hessian(model, self.graph(model, turned)), expected, atol=1e-9)

    @pytest.mark.parametrize("kind", ["molecule", "crystal"])
    def test_mirror(self, model, kind, request):
        if not self.mirror_symmetric:
            pytest.skip("the model tells mirror images apart")
        atoms = request.getfixturevalue(kind)
        mirrored = atoms.copy()
        mirrored.set_cell(atoms.cell.array * [-1, 1, 1])
        mirrored.positions = atoms.positions * [-1, 1, 1]
        self.same(model, atoms, mirrored)

    @pytest.mark.parametrize("kind", ["molecule", "crystal"])
    def test_permutation(self, model, kind, request):
        atoms = request.getfixturevalue(kind)
        self.same(model, atoms, atoms[::-1])

    @pytest.mark.parametrize("kind", ["molecule", "crystal"])
    def test_translation(self, model, kind, request):
        atoms = request.getfixturevalue(kind)
        moved = atoms.copy()
        moved.positions += [1.3, -2.0, 0.7]
        self.same(model, atoms, moved)

    def test_wrapping(self, model, crystal):
        moved = crystal.copy()
        moved.positions[1] += 2 * crystal.cell[0] - 3 * crystal.cell[2]
        self.same(model, crystal, moved)

    def test_supercell(self, model, crystal):
        self.same(model, crystal, crystal * (2, 1, 2), factor=4)

    def test_equivalent_cell(self, model, crystal):
        sheared = crystal.copy()
        sheared.set_cell(np.array([[1, 1, 0], [0, 1, 0], [2, 0, 1]]) @ crystal.cell.array)
        self.same(model, crystal, sheared)

    def test_separated_parts_add(self, model, molecule):
        far = molecule.copy()
        far.positions += 10 * model.cutoff
        self.same(model, molecule, molecule + far, factor=2)

    def test_batch_is_its_parts(self, model, molecule, crystal):
        single = Atoms(numbers=self.choose(1), positions=[[0, 0, 0]])
        parts = [molecule, crystal, single, molecule[:2]]
        energy, forces = energy_and_forces(model, self.graph(model, *parts))
        alone = [energy_and_forces(model, self.graph(model, p)) for p in parts]
        assert energy.shape == (4,)
        assert torch.allclose(energy, torch.cat([e for e, _ in alone]), rtol=1e-11, atol=1e-11)
        assert torch.allclose(forces, torch.cat([f for _, f in alone]), atol=1e-10)

    # derivatives

    @pytest.mark.parametrize("kind", ["molecule", "crystal"])
    def test_forces_are_the_gradient(self, model, kind, request):
        graph = self.graph(model, request.getfixturevalue(kind))
        forces = energy_and_forces(model, graph)[1]
        probe = torch.randn(graph.positions.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        step = 1e-4
        values = [model(graph.with_positions(graph.positions + s * step * probe)).sum().item() for s in (-2, -1, 1, 2)]
        slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
        assert -(forces * probe).sum().item() == pytest.approx(slope, rel=1e-6, abs=1e-8)

    @pytest.mark.parametrize("kind", ["molecule", "crystal"])
    def test_hessian_is_the_gradient_of_forces(self, model, kind, request):
        graph = self.graph(model, request.getfixturevalue(kind))
        matrix = hessian(model, graph)
        assert torch.allclose(matrix, matrix.T, atol=1e-10 * matrix.abs().max())
        probe = torch.randn(graph.positions.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        step = 1e-4
        shifted = [
            energy_and_forces(model, graph.with_positions(graph.positions + s * step * probe))[1]
            for s in (-2, -1, 1, 2)
        ]
        slope = -(shifted[0] - 8 * shifted[1] + 8 * shifted[2] - shifted[3]) / (12 * step)
        assert torch.allclose(matrix @ probe.flatten(), slope.flatten(), rtol=1e-6, atol=1e-7)

    def test_rigid_motions_are_null(self, model, molecule):
        graph = self.graph(model, molecule)
        matrix, forces = hessian(model, graph), energy_and_forces(model, graph)[1]
        axes = torch.eye(3, dtype=torch.float64)
        for axis in axes:
            translation = axis.expand(6, 3).flatten()
            assert (matrix @ translation).abs().max() < 1e-10 * max(1.0, matrix.abs().max())
            turning = torch.linalg.cross(axis.expand(6, 3), graph.positions)
            # Away from a stationary point the gradient turns with the molecule: H (w x r) = w x g.
            torque = torch.linalg.cross(axis.expand(6, 3), -forces)
            assert torch.allclose((matrix @ turning.flatten()).view(6, 3), torque, atol=1e-9)

    @pytest.mark.parametrize("kind", ["molecule", "crystal"])
    def test_third_derivative(self, model, kind, request):
        """Gradient of a Hessian loss in the parameters against central differences."""
        model = copy.deepcopy(model)
        graph = self.graph(model, request.getfixturevalue(kind))
        generator = torch.Generator().manual_seed(3)
        probe = torch.randn(graph.positions.shape, dtype=torch.float64, generator=generator)
        parameters = [p for p in model.parameters() if p.requires_grad]
        directions = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in parameters]
        size = sum(d.square().sum() for d in directions) ** 0.5
        directions = [d / size for d in directions]
        gradients = torch.autograd.grad(hessian_loss(model, graph, probe), parameters, allow_unused=True)
        slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)
        values, step = [], 1e-3
        for s in (-2, -1, 1, 2):
            with torch.no_grad():
                for p, d in zip(parameters, directions, strict=True):
                    p.add_(s * step * d)
            values.append(hessian_loss(model, graph, probe).item())
            with torch.no_grad():
                for p, d in zip(parameters, directions, strict=True):
                    p.sub_(s * step * d)
        expected = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
        assert float(slope) == pytest.approx(expected, rel=1e-6)

    def test_stress_is_the_strain_derivative(self, model, crystal):
        graph = self.graph(model, crystal)
        stress = energy_forces_stress(model, graph)[2]
        assert torch.allclose(stress, stress.transpose(1, 2), atol=1e-12)
        strain = torch.tensor([[0.3, 0.2, -0.5], [0.2, -0.4, 0.1], [-0.5, 0.1, 0.6]], dtype=torch.float64)
        values = [model(graph.strained(s * 1e-4 * strain[None])).item() for s in (-2, -1, 1, 2)]
        slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / 12e-4
        assert (stress[0] * strain).sum().item() * crystal.get_volume() == pytest.approx(slope, rel=1e-6, abs=1e-8)

    # smoothness

    @pytest.mark.parametrize("companions", [1, 3], ids=["alone", "in company"])
    def test_smooth_at_the_cutoff(self, model, companions):
        """Energy, forces and Hessian extrapolated from both sides of the crossing agree."""
        step = 1e-6

        def at(offset: float) -> list[torch.Tensor]:
            near = [[0, 0, 0], [-0.3, 1.1, 0.2], [-0.9, -0.5, 0.6]][:companions]
            far = [[model.cutoff + offset, 0, 0]]
            atoms = Atoms(numbers=self.choose(companions + 1), positions=near + far)
            graph = self.graph(model, atoms)
            energy, forces = energy_and_forces(model, graph)
            return [energy, forces, hessian(model, graph)]

        below = [2 * a - b for a, b in zip(at(-step), at(-2 * step), strict=True)]
        above = [2 * a - b for a, b in zip(at(step), at(2 * step), strict=True)]
        jumps = [(a - b).abs().max().item() for a, b in zip(below, above, strict=True)]
        assert max(jumps) < self.jump, f"jumps of energy, forces, Hessian: {jumps}"

    SPECIAL: ClassVar = {
        "atom": [[0, 0, 0]],
        "dimer": [[0, 0, 0], [1.1, 0, 0]],
        "collinear": [[0, 0, 0], [1.2, 0, 0], [-1.2, 0, 0], [2.3, 0, 0]],
        "planar": [[0, 0, 0], [1.2, 0, 0], [-0.6, 1.0, 0], [-0.6, -1.0, 0]],
        "tetrahedral": [[0, 0, 0], [0.7, 0.7, 0.7], [-0.7, -0.7, 0.7], [-0.7, 0.7, -0.7], [0.7, -0.7, -0.7]],
    }

    @pytest.mark.parametrize("name", SPECIAL)
    def test_special_geometries(self, model, name):
        """All derivatives are finite and the Hessian agrees with differences where frames degenerate."""
        positions = self.SPECIAL[name]
        atoms = Atoms(numbers=[self.elements[0]] + [self.elements[-1]] * (len(positions) - 1), positions=positions)
        graph = self.graph(model, atoms)
        forces = energy_and_forces(model, graph)[1]
        matrix = hessian(model, graph)
        probe = torch.randn(forces.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        step = 1e-4
        shifted = [
            energy_and_forces(model, graph.with_positions(graph.positions + s * step * probe))[1]
            for s in (-2, -1, 1, 2)
        ]
        slope = -(shifted[0] - 8 * shifted[1] + 8 * shifted[2] - shifted[3]) / (12 * step)
        assert torch.allclose(matrix @ probe.flatten(), slope.flatten(), rtol=1e-6, atol=1e-7)
        parameters = [p for p in model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(hessian_loss(model, graph, probe), parameters, allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in gradients)
        if name == "atom":
            assert (forces == 0).all()
        if name in ("collinear", "planar"):
            assert forces[:, 2].abs().max() < 1e-12

    def test_one_atom_crystal(self, model):
        """The only atom of a cell sits at an inversion centre: no force, whatever the orientation."""
        atoms = Atoms(numbers=self.choose(1), positions=[[0, 0, 0]], cell=2.2 * TURN, pbc=True)
        graph = self.graph(model, atoms)
        assert graph.edge_index.shape[1] >= 6
        forces = energy_and_forces(model, graph)[1]
        assert forces.abs().max() < 1e-10
        assert hessian(model, graph).abs().max() < 1e-9

    # numbers, devices, input

    @pytest.mark.parametrize("device", DEVICES)
    def test_single_precision_is_close_to_double(self, model, molecule, crystal, device):
        double = energy_and_forces(model, self.graph(model, molecule, crystal))
        small = copy.deepcopy(model).to(device=device, dtype=torch.float32)
        single = energy_and_forces(small, self.graph(model, molecule, crystal, dtype=torch.float32, device=device))
        for low, high in zip(single, double, strict=True):
            assert low.dtype == torch.float32
            assert low.device.type == device
            assert torch.allclose(low.cpu().double(), high, rtol=1e-4, atol=1e-4 * max(1.0, high.abs().max()))

    @pytest.mark.parametrize("device", DEVICES)
    def test_hessian_on_every_device(self, model, molecule, device):
        there = copy.deepcopy(model).to(device)
        expected = hessian(model, self.graph(model, molecule))
        assert torch.allclose(hessian(there, self.graph(model, molecule, device=device)).cpu(), expected, atol=1e-9)

    def test_empty_batch_is_refused(self, model):
        with pytest.raises(ValueError, match="empty"):
            self.graph(model)
        with pytest.raises(ValueError, match="N > 0"):
            self.graph(model, Atoms())

    def test_every_parameter_is_used(self, model, molecule):
        if not self.all_parameters_used:
            pytest.skip("declared to have unused parameters")
        parameters = dict(model.named_parameters())
        loss = hessian_loss(model, self.graph(model, molecule), torch.ones(6, 3, dtype=torch.float64))
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        assert [n for n, g in zip(parameters, gradients, strict=True) if g is None] == []

    def test_energy_is_a_number_a_structure(self, model, molecule, crystal):
        energy = model(self.graph(model, molecule, crystal))
        assert energy.shape == (2,)
        assert energy.dtype == torch.float64
