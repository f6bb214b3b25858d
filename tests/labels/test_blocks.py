"""Labels of the rows and columns of some atoms: what they hold, how they are drawn, checked and compared."""

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule
from ase.constraints import FixAtoms
from helpers.registered import registered
from helpers.structures import label_with_emt, molecules

from hint_plugins.config import ConfigError, HintConfig
from hint_plugins.curvature.engines import reverse
from hint_plugins.curvature.full import full_hessians
from hint_plugins.datasets.convert import ConversionReport, checked
from hint_plugins.evaluation.errors import evaluate_part
from hint_plugins.labels.checks import check_label
from hint_plugins.labels.hessian_label import HessianLabel, LabelError
from hint_plugins.labels.keys import Keys
from hint_plugins.labels.stiffness import BondModel
from hint_plugins.labels.structure_check import check_structure
from hint_plugins.objective.loss import structure_losses
from hint_plugins.objective.metrics import hessian_errors
from hint_plugins.objective.parts import pairs_of_part
from hint_plugins.objective.validation import HessianValidation
from hint_plugins.potential import Potential
from hint_plugins.storage.store import read_structures, write_structures
from hint_plugins.structures.frozen import free_components, only
from hint_plugins.testing.toy import ToyPotential, toy_view
from hint_plugins.training.hessian_term import hessian_losses
from hint_plugins.training.hint import HintPlugin
from hint_plugins.training.protocol import LabelledGraphs

KNOWN = [3, 4, 5, 7]  # atom 1 and the y coordinate of atom 2


@pytest.fixture(scope="module")
def slab() -> Atoms:
    """Cu(111) with a frozen layer and an oxygen atom, labelled with the block of the others."""
    atoms = fcc111("Cu", (2, 2, 2), vacuum=6.0)
    add_adsorbate(atoms, "O", 1.2, "fcc")
    atoms.rattle(0.03, seed=1)
    atoms = label_with_emt(atoms)
    atoms.pbc = True
    hessian = atoms.info["REF_hessian"].reshape(27, 27)
    atoms.set_constraint(FixAtoms([k for k, tag in enumerate(atoms.get_tags()) if tag == 2]))
    free = free_components(atoms).reshape(-1)
    HessianLabel.block(free, hessian[np.ix_(free, free)], 9).to_info(atoms.info)
    atoms.info["whole"] = hessian.reshape(-1)
    return atoms


@pytest.fixture
def all_signs():
    """The law of Rademacher probes, every vector of signs exactly once."""

    def law(count, dim, rng):
        return np.array(list(itertools.product((-1.0, 1.0), repeat=dim)))

    with registered(probe_laws={"signs": law}):
        yield "signs"


def symmetric(size, seed=0):
    matrix = np.random.default_rng(seed).standard_normal((size, size))
    return matrix + matrix.T


def drawn(atoms, **options):
    plugin = HintPlugin(HintConfig(**options))
    labels = plugin.draw_labels(plugin.read_labels(atoms, None), len(atoms), 0, 0)
    return [labels[name].transpose(1, 0, 2) for name in ("drawn_probes", "drawn_products")]


def test_a_block_is_given_by_coordinates_or_by_atoms():
    block = symmetric(3)
    label = HessianLabel.block([5, 3, 4], block, 3)
    np.testing.assert_array_equal(label.products, block[np.ix_([1, 2, 0], [1, 2, 0])])
    by_atom = HessianLabel.block(np.array([False, True, False]), label.products, 3)
    np.testing.assert_array_equal(by_atom.directions, label.directions)
    np.testing.assert_array_equal(by_atom.matrix()[3:6, 3:6], label.products)
    assert label.num_atoms == 3
    info = {"REF_hessian": 1.0}
    label.to_info(info)
    assert sorted(info) == ["REF_hessian_block", "REF_hessian_block_indices"]
    back = HessianLabel.from_info(info, 3)
    np.testing.assert_array_equal(back.matrix(), label.matrix())


@pytest.mark.parametrize(
    ("coordinates", "size", "message"),
    [
        ([0, 9], 2, "distinct and in 0..8"),
        ([1, 1], 2, "distinct"),
        ([0.5, 1], 2, "must be integers"),
        ([0, 1], 3, "9 numbers are no block of 2 coordinates"),
    ],
)
def test_other_blocks_are_refused(coordinates, size, message):
    with pytest.raises(LabelError, match=message):
        HessianLabel.block(coordinates, np.ones((size, size)), 3)
    with pytest.raises(LabelError, match="REF_hessian_block is there but REF_hessian_block_indices is missing"):
        HessianLabel.from_info({"REF_hessian_block": np.ones(4)}, 3)


@pytest.mark.parametrize("ending", ["xyz", "aselmdb"])
def test_blocks_are_stored_exactly(slab, tmp_path, ending):
    path = tmp_path / f"slab.{ending}"
    write_structures(path, [slab])
    (back,) = read_structures(path)
    for name in ("REF_hessian_block", "REF_hessian_block_indices"):
        np.testing.assert_array_equal(back.info[name], slab.info[name])
    assert check_structure(back)["reason"] == ""
    assert check_structure(back)["kind"] == "block"


def test_convert_and_check_take_blocks(slab):
    """Unit and symmetry of a block are mended as those of a whole Hessian; kinds are counted."""
    atoms = slab.copy()
    half = atoms.info["REF_hessian_block"].reshape(15, 15) / 97.17
    half[0, 1] *= 1.02
    atoms.info["REF_hessian_block"] = half.reshape(-1)
    report = ConversionReport()
    ((_, made, quality),) = checked([atoms], report, symmetrize=True, factor=97.17)
    block = made.info["REF_hessian_block"].reshape(15, 15)
    np.testing.assert_array_equal(block, block.T)
    np.testing.assert_allclose(block, slab.info["REF_hessian_block"].reshape(15, 15), rtol=0.011, atol=1e-9)
    assert quality is None  # no sum rule to speak of
    report.add_written(made, quality)
    assert report.n_hessians == 1


def test_the_mean_loss_of_all_rademacher_probes_is_the_error_of_the_block(all_signs):
    """E |(dH z)_known|^2 = |dH_known|_F^2: exactly, over all 2^b vectors, whatever is outside of the block."""
    reference, model = symmetric(9), symmetric(9, 1)
    label = HessianLabel.block(KNOWN, reference[np.ix_(KNOWN, KNOWN)], 3)
    z, hz = label.pairs(16, all_signs, np.random.default_rng(0))
    assert (z[:, [k for k in range(9) if k not in KNOWN]] == 0).all()
    predicted = torch.tensor(z @ model).reshape(16, 3, 3)
    losses = structure_losses(
        predicted, torch.tensor(hz).reshape(16, 3, 3), torch.zeros(3, dtype=torch.long), torch.tensor([3.0])
    )
    error = (model - reference)[np.ix_(KNOWN, KNOWN)]
    assert losses.item() == pytest.approx(np.square(error).sum() / 4, rel=1e-12)


def test_drawn_probes_and_products_are_those_of_known_and_free_atoms(slab):
    atoms = slab.copy()
    z, hz = drawn(atoms, hessian_num_probes=3)
    free = free_components(atoms)
    whole = atoms.info["whole"].reshape(27, 27)
    assert (np.abs(z) == free).all()
    assert (np.isnan(hz) == ~free).all()
    np.testing.assert_allclose(hz[:, free], (z.reshape(3, -1) @ whole)[:, free.reshape(-1)], atol=1e-10)
    atoms.set_constraint([*atoms.constraints, FixAtoms([8])])  # of the block, what is still free
    z, hz = drawn(atoms, hessian_num_probes=3)
    free = free_components(atoms)
    assert (np.abs(z) == free).all()
    np.testing.assert_allclose(hz[:, free], (z.reshape(3, -1) @ whole)[:, free.reshape(-1)], atol=1e-10)
    atoms.set_constraint(FixAtoms(np.flatnonzero(free_components(slab).all(axis=1))))
    with pytest.raises(LabelError, match="all coordinates of the label's block belong to frozen atoms"):
        drawn(atoms)


def graphs(model, positions, numbers, z, hz, stored=()):
    sizes = [len(positions)]
    return LabelledGraphs(
        view=toy_view(model, positions, sizes),
        sizes=sizes,
        batch=torch.zeros(len(positions), dtype=torch.long),
        num_atoms=torch.tensor([float(len(positions))], dtype=torch.float64),
        weights=torch.ones(1, dtype=torch.float64),
        numbers=torch.tensor(numbers),
        labels={"drawn_probes": torch.tensor(z).swapaxes(0, 1), "drawn_products": torch.tensor(hz).swapaxes(0, 1)},
        stored=stored,
    )


def test_gradient_of_the_loss_of_a_block():
    """In float64 against central differences by every parameter."""
    torch.manual_seed(0)
    model = ToyPotential(width=3).double()
    positions = torch.randn(3, 3, dtype=torch.float64)
    label = HessianLabel.block(KNOWN, symmetric(4), 3)
    z, hz = (x.reshape(2, 3, 3) for x in label.pairs(2, "rademacher", np.random.default_rng(0)))
    config = HintConfig()

    def loss():
        return hessian_losses(graphs(model, positions, [1, 1, 1], z, hz), config, reverse, exact=True).sum()

    found = torch.autograd.grad(loss(), list(model.parameters()), allow_unused=True)
    step = 1e-5
    for parameter, gradient in zip(model.parameters(), found, strict=True):
        for k in range(parameter.numel()):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[k] += sign * step
                values.append(float(loss().detach()))
                with torch.no_grad():
                    parameter.view(-1)[k] -= sign * step
            expected = 0.0 if gradient is None else float(gradient.reshape(-1)[k])
            assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_validation_compares_the_block(slab):
    torch.manual_seed(0)
    model = ToyPotential().double()
    positions = torch.tensor(slab.positions)
    plugin = HintPlugin(HintConfig(hessian_num_probes=2))
    stored = plugin.read_labels(slab, None)
    z, hz = drawn(slab, hessian_num_probes=2)
    validation = HessianValidation(reverse)
    validation.update(graphs(model, positions, slab.numbers, z, hz, [stored]))
    metrics = validation.compute()
    matrix = full_hessians(toy_view(model, positions, [9]), [9])[0].numpy()
    expected = hessian_errors(matrix, slab.info["whole"].reshape(27, 27), slab)
    for name in ("hessian_mae", "eigenvalue_mae", "frequency_mae_cm1"):
        assert metrics[name] == pytest.approx(expected[name], rel=1e-9)


def test_evaluation_of_a_block_is_that_of_the_whole_hessian_with_frozen_atoms(slab):
    potential = Potential.load("emt")
    part = evaluate_part(potential, [slab], [0], Keys())
    row = part.rows[0]
    assert "reason" not in row
    assert row["hessian_mae"] < 1e-3
    softer = slab.copy()
    softer.info["REF_hessian_block"] = 0.9 * softer.info["REF_hessian_block"]
    row = evaluate_part(potential, [softer], [0], Keys()).rows[0]
    whole = slab.copy()
    HessianLabel.full(0.9 * whole.info["whole"]).to_info(whole.info)
    other = evaluate_part(potential, [whole], [0], Keys()).rows[0]
    for name in ("hessian_mae", "eigenvalue_mae", "frequency_mae_cm1", "asymmetry"):
        assert row[name] == pytest.approx(other[name], rel=1e-6)
    assert row["hessian_mae"] > 0.05


def test_blocks_of_a_potential(slab):
    potential = Potential.load("emt")
    free = free_components(slab).reshape(-1)
    whole = potential.hessian(slab)
    block = potential.hessian(slab, free=True)
    np.testing.assert_allclose(block, whole[np.ix_(free, free)], atol=1e-9)
    mask = np.arange(9) == 8
    np.testing.assert_allclose(potential.hessian(slab, free=mask), whole[-3:, -3:], atol=1e-9)
    two = potential.hessians([slab, slab], free=[mask, ~mask])
    np.testing.assert_allclose(two[1], whole[:-3, :-3], atol=1e-9)
    with pytest.raises(LabelError, match="at least one is true"):
        potential.hessian(slab, free=np.zeros(9, dtype=bool))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda block: np.triu(block), "asymmetric: max"),
        (lambda block: -block, "the sign is wrong"),
        (lambda block: np.full_like(block, np.nan), "not finite"),
        (lambda block: 0.0 * block, "all numbers are zero"),
        (lambda block: block / 97.17, "too soft"),
        (lambda block: 23.06 * block, "too stiff"),
    ],
)
def test_bad_blocks_of_molecules(spoil, message):
    atoms = molecule("CH3OH")
    hessian = BondModel.of(atoms).times(np.eye(18))
    known = np.array([True, True, False, False, True, False])
    label = HessianLabel.block(known, hessian[np.ix_(np.repeat(known, 3), np.repeat(known, 3))], 6)
    forces = np.zeros((6, 3))
    assert check_label(label, atoms, forces).ok
    assert check_label(label, atoms, forces).sum_rule is None
    bad = HessianLabel.block(known, spoil(label.products), 6)
    assert any(message in reason for reason in check_label(bad, atoms, forces).reasons)


# --- parts ------------------------------------------------------------------------------------------------


def part_error(part, label, groups, free, model, law, monkeypatch, seed=0):
    """Mean loss over all vectors of signs and all splits of the molecules."""
    count = len(np.unique(groups))
    sides = [s for s in itertools.product((False, True), repeat=count) if 0 < sum(s) < count]
    n = label.num_atoms
    total = []
    for side in sides if part == "intermolecular" else [None]:
        z, _ = label.pairs(2**label.num_directions, law, np.random.default_rng(0))
        if side is not None:
            monkeypatch.setattr(
                "hint_plugins.objective.parts._splits", lambda count, m, rng, side=side: np.array([side] * count)
            )
        z, hz = pairs_of_part(part, label, groups, free, z, np.random.default_rng(seed))
        losses = structure_losses(
            torch.tensor(z @ model).reshape(len(z), n, 3),
            torch.tensor(hz).reshape(len(z), n, 3),
            torch.zeros(n, dtype=torch.long),
            torch.tensor([float(n)], dtype=torch.float64),
        )
        total.append(losses.item())
    return np.mean(total)


def test_intermolecular_loss_is_unbiased(all_signs, monkeypatch):
    """Over all splits of three molecules and all vectors of signs, exactly; one atom is frozen, one is not known."""
    reference, model = symmetric(12), symmetric(12, 1)
    groups = np.array([7, 2, 2, 5])
    free = np.repeat([True, True, False, True], 3)
    for label, usable in (
        (HessianLabel.full(reference), free),
        (
            HessianLabel.block(np.arange(10), reference[:10, :10], 4),
            free & (np.arange(12) < 10),
        ),
    ):
        found = part_error("intermolecular", label, groups, free, model, all_signs, monkeypatch)
        apart = np.repeat(groups, 3)[:, None] != np.repeat(groups, 3)[None]
        wanted = apart & np.outer(usable, usable)
        expected = np.square(model - reference)[wanted].sum() / usable.sum()
        assert found == pytest.approx(expected, rel=1e-12)


def test_loss_of_an_active_region_is_unbiased(all_signs, monkeypatch):
    reference, model = symmetric(9), symmetric(9, 1)
    groups, free = np.array([1, 0, 1]), np.arange(9) != 8
    found = part_error("active", HessianLabel.full(reference), groups, free, model, all_signs, monkeypatch)
    inside = [0, 1, 2, 6, 7]
    assert found == pytest.approx(np.square(model - reference)[np.ix_(inside, inside)].sum() / 5, rel=1e-12)


def test_parts_of_a_structure_are_drawn():
    dimer = molecule("H2O")
    other = molecule("H2O")
    other.positions += [0.3, 0.4, 3.0]
    dimer += other
    dimer = label_with_emt(dimer)
    whole = dimer.info["REF_hessian"].reshape(18, 18)
    z, hz = drawn(dimer, hessian_part="intermolecular", hessian_num_probes=4)
    for probe, product in zip(z, hz, strict=True):
        first = bool(np.isnan(product[0, 0]))
        assert (np.isnan(product[:3]) == first).all()
        assert (np.isnan(product[3:]) != first).all()
        np.testing.assert_array_equal(np.abs(probe), np.where(np.isnan(product), 1.0, 0.0))  # factor 2 * 9 / 18
        np.testing.assert_allclose(
            (whole @ probe.reshape(-1))[~np.isnan(product).reshape(-1)], product[~np.isnan(product)]
        )
    dimer.arrays["active"] = np.array([0, 1, 0, 0, 0, 1])
    z, hz = drawn(dimer, hessian_part="active")
    assert (z[:, [0, 2, 3, 4]] == 0).all()
    assert (np.isnan(hz).any(axis=(0, 2)) == [True, False, True, True, True, False]).all()
    dimer.arrays["site"] = dimer.arrays["active"]
    again, _ = drawn(dimer, hessian_part="active", hessian_part_key="site")
    np.testing.assert_array_equal(again, z)


@pytest.mark.parametrize(
    ("part", "array", "message"),
    [
        ("active", None, "needs the array 'active'"),
        ("active", np.zeros(5), "the active region is empty"),
        ("active", np.full(5, 0.5), "not made of one integer per atom"),
        ("intermolecular", None, "the structure is one molecule"),
    ],
)
def test_structures_without_the_part_are_bad_labels(part, array, message):
    atoms = label_with_emt(molecules(2)[1])
    if array is not None:
        atoms.arrays[part] = array
    plugin = HintPlugin(HintConfig(hessian_part=part))
    with pytest.raises(LabelError, match=message):
        plugin.read_labels(atoms, None)


def test_projections_and_unprepared_data_have_no_parts():
    atoms = label_with_emt(molecules(2)[1])
    atoms.arrays["active"] = np.array([0, 1, 1, 0, 0])
    plugin = HintPlugin(HintConfig(hessian_part="active"))
    unprepared = HintPlugin().read_labels(atoms, None)
    with pytest.raises(ConfigError, match="must be prepared with the same option"):
        plugin.draw_labels(unprepared, 5, 0, 0)
    whole = atoms.info["REF_hessian"].reshape(15, 15)
    z = np.random.default_rng(0).choice([-1.0, 1.0], (2, 15))
    HessianLabel.projections(z, z @ whole, 5).to_info(atoms.info)
    with pytest.raises(LabelError, match="projections have directions of their own"):
        plugin.read_labels(atoms, None)


def test_only_keeps_what_was_frozen(slab):
    mask = np.zeros(27, dtype=bool)
    mask[-3:] = True
    np.testing.assert_array_equal(free_components(only(slab, mask)).reshape(-1), mask)
