"""Graph: shapes are checked, batches join and split without loss."""

import pytest
import torch
from ase.build import bulk, molecule

from hint_plugins.models import Graph, energy_and_forces, energy_forces_stress, graph_from_atoms


class PairSprings(torch.nn.Module):
    """E = sum over bonds of (d^2 - 1)^2 / 4: gradient, Hessian and virial are known by hand."""

    cutoff = 3.0

    def forward(self, graph: Graph) -> torch.Tensor:
        j, i = graph.edge_index
        square = (graph.positions[j] - graph.positions[i] + graph.shifts).square().sum(-1)
        pair = (square - 1) ** 2 / 8
        return graph.positions.new_zeros(graph.num_graphs).index_add(0, graph.batch_index[i], pair)


@pytest.fixture
def water() -> Graph:
    return graph_from_atoms(molecule("H2O"), 3.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": torch.zeros(3, 2, dtype=torch.float64)}, "positions has shape"),
        ({"numbers": torch.zeros(2, dtype=torch.long)}, "numbers has shape"),
        ({"numbers": torch.zeros(3)}, "int64"),
        ({"shifts": torch.zeros(5, 3, dtype=torch.float64)}, "shifts has shape"),
        ({"shifts": torch.zeros(6, 3, dtype=torch.float32)}, "float32"),
        ({"cell": torch.eye(3, dtype=torch.float64)}, "cell has shape"),
        ({"positions": torch.zeros(0, 3)}, "empty"),
    ],
)
def test_misfits_are_named(water, change, message):
    fields = {k: getattr(water, k) for k in ("positions", "numbers", "edge_index", "shifts", "cell", "batch")}
    with pytest.raises(ValueError, match=message):
        Graph(**(fields | change))


def test_validate_finds_wrong_values(water):
    bad_edge = Graph(water.positions, water.numbers, water.edge_index + 1, water.shifts)
    with pytest.raises(ValueError, match=r"\[0, 3\)"):
        bad_edge.validate()
    with pytest.raises(ValueError, match="non-finite"):
        water.with_positions(water.positions * torch.nan).validate()
    crossing = Graph(water.positions, water.numbers, water.edge_index, water.shifts, batch=torch.tensor([0, 0, 1]))
    with pytest.raises(ValueError, match="two different structures"):
        crossing.validate()
    unordered = Graph(water.positions, water.numbers, water.edge_index, water.shifts, batch=torch.tensor([1, 0, 1]))
    with pytest.raises(ValueError, match="ascending"):
        unordered.validate()


def test_batch_gives_the_energies_of_its_parts():
    model = PairSprings()
    parts = [molecule("H2O"), bulk("Pd", a=3.9), molecule("CH4")]
    energies, forces = energy_and_forces(model, graph_from_atoms(parts, 3.0))
    singles = [energy_and_forces(model, graph_from_atoms(p, 3.0)) for p in parts]
    assert torch.allclose(energies, torch.cat([e for e, _ in singles]), atol=1e-12)
    assert torch.allclose(forces, torch.cat([f for _, f in singles]), atol=1e-12)


def test_forces_and_stress_match_the_hand_derivative():
    atoms = bulk("PdH", "rocksalt", a=4.09)
    atoms.rattle(0.1, seed=1)
    graph = graph_from_atoms(atoms, 3.0)
    _, forces, stress = energy_forces_stress(PairSprings(), graph)
    j, i = graph.edge_index
    vector = graph.positions[j] - graph.positions[i] + graph.shifts
    pull = 0.5 * (vector.square().sum(-1, keepdim=True) - 1) * vector
    expected = torch.zeros_like(forces).index_add(0, i, pull).index_add(0, j, -pull)
    assert torch.allclose(forces, expected, atol=1e-12)
    virial = torch.einsum("ea,eb->ab", pull, vector)
    assert torch.allclose(stress[0], virial / atoms.get_volume(), atol=1e-12)


def test_stress_needs_a_cell(water):
    with pytest.raises(ValueError, match="no cell"):
        energy_forces_stress(PairSprings(), water)
    mixed = graph_from_atoms([molecule("H2O"), bulk("Pd", a=3.9)], 3.0)
    stress = energy_forces_stress(PairSprings(), mixed)[2]
    assert stress[0].isnan().all()
    assert stress[1].isfinite().all()


def test_forces_keep_their_graph_when_asked(water):
    graph = water.with_positions(water.positions.clone().requires_grad_())
    _, forces = energy_and_forces(PairSprings(), graph, create_graph=True)
    probe = torch.randn_like(forces)
    (product,) = torch.autograd.grad((forces * probe).sum(), graph.positions)
    step = 1e-5
    plus, minus = (
        energy_and_forces(PairSprings(), water.with_positions(water.positions + s * step * probe))[1] for s in (1, -1)
    )
    assert torch.allclose(product, (plus - minus) / (2 * step), atol=1e-8)


def test_copies_of_a_batch_give_its_energies_again():
    model = PairSprings()
    graph = graph_from_atoms([molecule("H2O"), bulk("Pd", a=3.9), molecule("CH4")], 3.0)
    copies = graph.repeated(3).validate()
    assert graph.repeated(1) is graph
    assert copies.offsets().tolist() == [0, 3, 4, 9, 12, 13, 18, 21, 22, 27]
    energies, forces, stresses = energy_forces_stress(model, copies)
    for copied, once in zip((energies, forces, stresses), energy_forces_stress(model, graph), strict=True):
        torch.testing.assert_close(copied, once.repeat(3, *[1] * (once.dim() - 1)), rtol=0, atol=1e-12, equal_nan=True)
    no_cell = graph_from_atoms(molecule("H2O"), 3.0).repeated(2)
    assert no_cell.cell is None
    assert no_cell.num_graphs == 2
