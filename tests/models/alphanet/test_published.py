"""The published networks equal a literal second writing of their equations, and their weights load."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from models.alphanet.reference import atomic_energies, random_weights, zbl_energy

from hint_plugins.curvature.engines import vmap
from hint_plugins.models import energy_and_forces, graph_from_atoms
from hint_plugins.models.alphanet import AlphaNet
from hint_plugins.potential import Potential

CONFIG = {
    "num_layers": 2,
    "hidden_channels": 8,
    "head": 4,
    "num_radial": 5,
    "main_chi1": 3,
    "mp_chi1": 5,
    "chi2": 2,
    "hidden_channels_chi": 8,
    "cutoff": 3.5,
    "eps": 1e-6,
}
VARIANTS = ("gauss", "bessel", "square")


def structures() -> list[Atoms]:
    methanol = molecule("CH3OH")
    methanol.rattle(0.1, seed=1)
    hydride = bulk("PdH", "rocksalt", a=4.09)
    hydride.rattle(0.05, seed=2)
    return [methanol, hydride, Atoms("H", positions=[[0, 0, 0]])]


@pytest.mark.parametrize("variant", ["smooth", *VARIANTS])
def test_hessians_by_the_engine_of_a_cpu(variant):
    """``vmap`` has a batching rule for every kernel of every variant, and gives what the other engines give."""
    if variant == "smooth":
        torch.manual_seed(0)
        model = AlphaNet(num_layers=2, hidden_channels=8, cutoff=3.5).double()
    else:
        model = AlphaNet.from_official(random_weights(CONFIG, variant), CONFIG, variant=variant, zbl=True)
    potential = Potential.load(model, "cpu", "float64")
    assert potential.backend.engine is vmap
    for atoms in structures()[:2]:
        exact = potential.hessian(atoms)
        assert np.abs(exact).max() > 1e-3
        for engine in ("reverse", "replicate"):
            np.testing.assert_allclose(potential.hessian(atoms, engine=engine), exact, rtol=0, atol=1e-10)


def compare(config, variant, extra=None, **keywords):
    weights = random_weights(config, variant)
    model = AlphaNet.from_official(weights, config, variant=variant, **(extra or {}))
    for atoms in structures():
        graph = graph_from_atoms(atoms, config["cutoff"])
        expected = atomic_energies(
            weights,
            config,
            variant,
            atoms.positions,
            atoms.numbers,
            graph.edge_index.numpy(),
            graph.shifts.numpy(),
            **keywords,
        )
        found = model.atomic_energies(graph).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_equations(variant):
    compare(CONFIG, variant)


@pytest.mark.parametrize(
    "change",
    [
        {"has_norm_before_flag": False},
        {"has_norm_before_flag": False, "has_norm_after_flag": True},
        {"reduce_mode": "mean"},
        {"num_layers": 1},
        {"num_layers": 3},
    ],
    ids=str,
)
def test_options_equal_the_equations(change):
    compare(CONFIG | change, "square")


def test_without_rotary_step():
    compare(CONFIG, "gauss", extra={"rotary": False}, rotary=False)


def test_graph_readouts():
    graph = graph_from_atoms(structures()[:2], CONFIG["cutoff"])
    weights = random_weights(CONFIG, "square")
    total = AlphaNet.from_official(weights, CONFIG, "square")(graph)
    mean = AlphaNet.from_official(weights, CONFIG | {"readout": "mean"}, "square")(graph)
    assert torch.allclose(mean * torch.tensor([6, 2]), total, rtol=1e-12)
    squashed = AlphaNet.from_official(weights, CONFIG | {"use_sigmoid": True}, "square")(graph)
    assert torch.allclose(squashed, torch.sigmoid(5 * (total - 0.5)), rtol=1e-12)


def test_repulsion():
    atoms = Atoms("HOC", positions=[[0, 0, 0], [0.7, 0, 0], [0.3, 0.8, 0.1]])
    graph = graph_from_atoms(atoms, CONFIG["cutoff"])
    weights = random_weights(CONFIG, "square")
    plain, repelled = (AlphaNet.from_official(weights, CONFIG, "square", zbl=z)(graph).item() for z in (False, True))
    expected = zbl_energy(atoms.positions, atoms.numbers, graph.edge_index.numpy(), graph.shifts.numpy())
    assert expected > 1.0
    assert repelled - plain == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_forces_match_differences(variant):
    model = AlphaNet.from_official(random_weights(CONFIG, variant), CONFIG, variant)
    graph = graph_from_atoms(structures()[0], CONFIG["cutoff"])
    forces = energy_and_forces(model, graph)[1]
    probe = torch.randn(forces.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    up, down = (model(graph.with_positions(graph.positions + s * 1e-5 * probe)).item() for s in (1, -1))
    assert -(forces * probe).sum().item() == pytest.approx((up - down) / 2e-5, rel=1e-6)


# weights


@pytest.mark.parametrize("prefix", ["", "model.", "potential.", "module.model."])
def test_prefixes_are_stripped(prefix):
    weights = random_weights(CONFIG, "square")
    graph = graph_from_atoms(structures()[0], CONFIG["cutoff"])
    plain = AlphaNet.from_official(weights, CONFIG, "square")(graph)
    named = {prefix + k: torch.as_tensor(v) for k, v in weights.items()}
    assert torch.equal(AlphaNet.from_official({"state_dict": named}, CONFIG, "square")(graph), plain)


def test_unused_tensors_do_not_matter():
    weights = random_weights(CONFIG, "square")
    last = f"message_layers.{CONFIG['num_layers'] - 1}.scale2.0.weight"
    fewer = {k: v for k, v in weights.items() if "unitary" not in k and "fc_dx" not in k and k != last}
    assert len(fewer) < len(weights)
    graph = graph_from_atoms(structures()[0], CONFIG["cutoff"])
    both = [AlphaNet.from_official(w, CONFIG, "square")(graph) for w in (weights, fewer)]
    assert torch.equal(*both)


def test_dtype_follows_the_weights():
    weights = {k: v.astype(np.float32) for k, v in random_weights(CONFIG, "square").items()}
    assert AlphaNet.from_official(weights, CONFIG, "square").scale.dtype == torch.float32
    assert AlphaNet.from_official(weights, CONFIG | {"dtype": "64"}, "square").scale.dtype == torch.float64


def test_variant_may_stand_in_the_config():
    weights = random_weights(CONFIG, "gauss")
    config = CONFIG | {"variant": "gauss", "has_dropout_flag": True, "a": 0.35, "num_targets": 1}
    assert AlphaNet.from_official(weights, config).config.variant == "gauss"


@pytest.mark.parametrize(
    ("weights_of", "read_as", "change", "drop", "message"),
    [
        ("gauss", "square", {}, None, "'radial_emb.bessel_weights' is missing.*look like variant 'gauss'"),
        ("bessel", "gauss", {}, None, "'radial_emb.*look like variant 'bessel' or 'square', not 'gauss'"),
        ("square", "square", {"hidden_channels": 12}, None, r"'kernel1' has shape \(8, 6\).*check the sizes"),
        ("square", "square", {"num_layers": 1}, None, "kernels_.* has shape"),
        ("square", "square", {}, "lin.0.bias", "'lin.0.bias' is missing"),
        ("square", "square", {"output_dim": 2}, None, "output_dim"),
        ("square", "no such", {}, None, "variant must be one of"),
    ],
)
def test_misfits_are_named(weights_of, read_as, change, drop, message):
    weights = random_weights(CONFIG, weights_of)
    if drop:
        del weights[drop]
    with pytest.raises(ValueError, match=message):
        AlphaNet.from_official(weights, CONFIG | change, read_as)


def test_a_foreign_tensor_is_named():
    weights = random_weights(CONFIG, "square") | {"extra.weight": np.zeros(2)}
    with pytest.raises(ValueError, match=r"'extra.weight' has no place"):
        AlphaNet.from_official(weights, CONFIG, "square")
    with pytest.raises(ValueError, match=r"expected one tensor named 'z_emb.weight'"):
        AlphaNet.from_official({"a": np.zeros(3)}, CONFIG, "square")


def test_unknown_options_are_reported():
    with pytest.warns(UserWarning, match="colour"):
        AlphaNet.from_official(random_weights(CONFIG, "square"), CONFIG | {"colour": "red"}, "square")


def test_repulsion_constants_in_the_weights_ask_for_a_decision():
    weights = random_weights(CONFIG, "square") | {"fzbl_E2": np.array([14.4])}
    with pytest.warns(UserWarning, match="zbl=True"):
        AlphaNet.from_official(weights, CONFIG, "square")
