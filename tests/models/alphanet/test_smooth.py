"""AlphaNet's own parts: options, elements, files, and properties of the pieces the smooth network is made of."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from hint_plugins.models import energy_and_forces, graph_from_atoms
from hint_plugins.models.alphanet import AlphaNet, AlphaNetConfig
from hint_plugins.models.alphanet.basis import EnvelopedBessel, envelope
from hint_plugins.models.alphanet.layers import layer_norm

SMALL = {
    "num_layers": 2,
    "hidden_channels": 16,
    "num_radial": 5,
    "main_chi1": 4,
    "mp_chi1": 6,
    "chi2": 3,
    "frame_channels": 6,
    "cutoff": 5.0,
}


def small(**changes) -> AlphaNet:
    torch.manual_seed(0)
    return AlphaNet(**(SMALL | changes)).double()


# options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "rough"}, "variant must be one of"),
        ({"hidden_channels": 18}, "divisible by 4"),
        ({"num_layers": 0}, "num_layers must be a positive integer"),
        ({"cutoff": -1.0}, "cutoff must be positive"),
        ({"avg_neighbours": 0}, "avg_neighbours must be positive"),
        ({"elements": ()}, "elements must be"),
        ({"elements": (1, 1)}, "elements must be"),
        ({"elements": (0, 1)}, "elements must be"),
        ({"readout": "mean"}, "no meaning in variant 'smooth'"),
        ({"variant": "square", "hidden_channels_chi": 90}, "divisible by head"),
        ({"variant": "square", "readout": "max"}, "readout must be"),
        ({"variant": "square", "has_norm_after_flag": True}, "exclude each other"),
    ],
    ids=str,
)
def test_bad_options_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        AlphaNetConfig(**change)


def test_config_survives_plain_data():
    config = AlphaNetConfig(elements=(1, 46), hidden_channels=64)
    assert AlphaNetConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="no option called 'layers'"):
        AlphaNetConfig.from_dict({"layers": 3})


def test_every_option_is_documented():
    names, text = AlphaNetConfig().to_dict(), AlphaNetConfig.__doc__ or ""
    listed = {w.strip() for line in text.splitlines() if line.startswith("    ") for w in line.split(",")}
    assert set(names) <= listed


# elements and tables


@pytest.mark.parametrize("variant", ["smooth", "square"])
def test_unknown_element_is_named(variant):
    model = small(elements=(1, 8)) if variant == "smooth" else AlphaNet(variant="square").double()
    symbol = "C" if variant == "smooth" else "Am"
    graph = graph_from_atoms(Atoms(["H", symbol], positions=[[0, 0, 0], [0, 0, 1]]), 5.0)
    with pytest.raises(ValueError, match=r"atom 1 has atomic number (6|95), which this network does not know"):
        model(graph)


@pytest.mark.parametrize("symbol", ["C", "Og"])
def test_unknown_element_is_never_a_number(symbol, monkeypatch):
    """Where nobody looks at the numbers (on a GPU that would make the host wait in every call) the energy is NaN."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    model = small(elements=(1, 8))
    known = Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]])
    energies = model(graph_from_atoms([known, Atoms(["H", symbol], positions=known.positions), known], 5.0))
    assert energies.isnan().tolist() == [False, True, False]
    assert model.elements == {1, 8}


def test_dtype_mismatch_is_named():
    graph = graph_from_atoms(molecule("H2O"), 5.0, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"graph is torch.float32 .* parameters are torch.float64"):
        small()(graph)


def test_scale_and_shift_by_element():
    model = small(elements=(1, 8))
    graph = graph_from_atoms(molecule("H2O"), 5.0)
    raw = model.atomic_energies(graph)
    model.set_scale_shift(scale={1: 2.0, 8: 3.0}, shift={1: -13.6, 8: -2000.0})
    factor = torch.tensor([3.0, 2.0, 2.0], dtype=torch.float64)
    offset = torch.tensor([-2000.0, -13.6, -13.6], dtype=torch.float64)
    assert torch.allclose(model.atomic_energies(graph), factor * raw + offset)
    model.set_scale_shift(scale=1.0, shift=0.0)
    assert torch.equal(model.atomic_energies(graph), raw)
    with pytest.raises(ValueError, match="unknown atomic number 6"):
        model.set_scale_shift(shift={6: 1.0})


# files


def test_saved_network_is_the_same(tmp_path):
    model = small(elements=(1, 8))
    model.set_scale_shift(scale=2.0, shift={8: -5.0})
    graph = graph_from_atoms(molecule("H2O"), 5.0)
    model.save(tmp_path / "net.pt")
    again = AlphaNet.load(tmp_path / "net.pt")
    assert again.config == model.config
    assert torch.equal(again(graph), model(graph))
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt"]


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    model, path = small(), tmp_path / "net.pt"
    model.save(path)
    before = path.read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="disk full"):
        model.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt"]


def test_a_foreign_file_is_refused(tmp_path):
    torch.save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"not a file of AlphaNet\.save"):
        AlphaNet.load(tmp_path / "other.pt")


# pieces


def derivatives(function, at: float, order: int) -> list[float]:
    x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    values = [function(x)]
    for _ in range(order):
        values.append(torch.autograd.grad(values[-1], x, create_graph=True)[0])
    return [v.item() for v in values]


def test_envelope_ends_with_three_vanishing_derivatives():
    assert derivatives(lambda d: envelope(d, 5.0), 1e-9, 3) == pytest.approx([1, 0, 0, 0], abs=1e-6)
    assert derivatives(lambda d: envelope(d, 5.0), 5.0 - 1e-9, 3) == pytest.approx([0, 0, 0, 0], abs=1e-6)
    assert derivatives(lambda d: envelope(d, 5.0), 5.1, 0) == [0.0]


def test_basis_in_single_precision_is_the_rounded_double():
    distance = torch.linspace(0.5, 5.5, 50, dtype=torch.float64)[:, None]
    double, single = EnvelopedBessel(8, 5.0).double()(distance), EnvelopedBessel(8, 5.0)(distance.float())
    assert torch.allclose(single.double(), double, atol=1e-6)
    exact = torch.sin(torch.pi * torch.arange(1, 9, dtype=torch.float64) * distance / 5.0) / distance
    assert torch.allclose(double, (2 / 5) ** 0.5 * exact * envelope(distance, 5.0), atol=1e-14)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(2, 9))
def test_layer_norm_is_torchs_and_has_a_right_third_derivative(seed, size):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, size, dtype=torch.float64, generator=generator)
    assert torch.allclose(layer_norm(x), torch.nn.functional.layer_norm(x, (size,)), atol=1e-12)
    direction = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    weight = torch.randn(x.shape, dtype=torch.float64, generator=generator)

    def along(s: torch.Tensor) -> torch.Tensor:
        return (layer_norm(x + s * direction, eps=0.1) * weight).sum()

    third, up, down = derivatives(along, 0.0, 3)[3], derivatives(along, 1e-4, 2)[2], derivatives(along, -1e-4, 2)[2]
    assert third == pytest.approx((up - down) / 2e-4, rel=1e-5, abs=1e-5)


# physics


@pytest.mark.parametrize("moved", [False, True])
def test_ideal_hydride_has_no_force(moved):
    atoms = bulk("PdH", "rocksalt", a=4.09) * (2, 1, 1)
    if moved:
        atoms.rotate(37, (1, 2, 3), rotate_cell=True)
        atoms.positions[1] += 2 * atoms.cell[0] - atoms.cell[1]
        atoms.positions[2] += 0.37
        atoms.positions += 0.11
        atoms.positions[2] -= 0.37
    forces = energy_and_forces(small(avg_neighbours=56.0), graph_from_atoms(atoms, 5.0))[1]
    assert forces.abs().max() < 1e-10


def test_batched_backward_equals_single():
    """`torch.vmap` over probes, which the ``vmap`` engine uses, works on every operation of the network."""
    model, graph = small(), graph_from_atoms(molecule("CH3OH"), 5.0)
    graph = graph.with_positions(graph.positions.requires_grad_())
    forces = energy_and_forces(model, graph, create_graph=True)[1]
    probes = torch.randn(3, *forces.shape, dtype=torch.float64)
    (batched,) = torch.autograd.grad(forces, graph.positions, probes, is_grads_batched=True, retain_graph=True)
    for probe, product in zip(probes, batched, strict=True):
        (single,) = torch.autograd.grad(forces, graph.positions, probe, retain_graph=True)
        assert torch.allclose(product, single, atol=1e-12)
