"""AlphaNet for a host: from a configuration, from its own file, and from a trainer's whole model."""

import pytest
import torch

from hint_plugins.config import ConfigError
from hint_plugins.models.alphanet import AlphaNet
from hint_plugins.models.alphanet.plugin import AlphaNetOptions, make_alphanet
from hint_plugins.models.registry import ModelSettings, Pretrained

SETTINGS = ModelSettings(cutoff=3.0, elements=(1, 8), avg_num_neighbors=4.0)
SMALL = {"hidden_channels": 8, "num_layers": 1, "main_chi1": 4, "mp_chi1": 4, "chi2": 2, "frame_channels": 4}


class Hosted(torch.nn.Module):
    """What a trainer stores: the network inside a module that scales its energies."""

    def __init__(self, inner, scale, shift):
        super().__init__()
        self.inner = inner
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("shift", torch.tensor(shift))


@pytest.fixture
def network():
    return AlphaNet(cutoff=3.0, elements=(1, 8), avg_neighbours=4.0, **SMALL).double()


def load(path, settings=SETTINGS):
    return make_alphanet(settings, AlphaNetOptions(alphanet_checkpoint=str(path)))


def same(model, network):
    assert {p.dtype for p in model.parameters()} == {torch.get_default_dtype()}
    assert all(p.requires_grad for p in model.parameters())
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor.to(torch.get_default_dtype()))


def test_own_file_keeps_its_scale(network, tmp_path):
    network.save(tmp_path / "net.pt")
    loaded = load(tmp_path / "net.pt")
    assert isinstance(loaded, Pretrained)
    assert (loaded.scale, loaded.shift, loaded.total) == (1.0, 0.0, False)
    same(loaded.model, network)


def test_own_file_with_energies_of_atoms_is_total(network, tmp_path):
    network.set_scale_shift(shift={1: -13.6, 8: -2042.0})
    network.save(tmp_path / "net.pt")
    assert load(tmp_path / "net.pt").total


def test_model_of_a_trainer_brings_scale_and_shift(network, tmp_path):
    torch.save(Hosted(network.requires_grad_(False).eval(), [1.5, 1.5], [-0.25, -0.25]), tmp_path / "run.model")
    loaded = load(tmp_path / "run.model")
    assert (loaded.scale, loaded.shift, loaded.total) == (1.5, -0.25, False)
    assert loaded.model.training
    same(loaded.model, network)


def test_what_cannot_be_gone_on_from(network, tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "nothing")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ConfigError, match=r"text\.pt cannot be read"):
        load(tmp_path / "text.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "linear.model")
    with pytest.raises(ConfigError, match="holds a Linear, no AlphaNet"):
        load(tmp_path / "linear.model")
    torch.save(Hosted(network, [1.0, 2.0], [0.0, 0.0]), tmp_path / "heads.model")
    with pytest.raises(ConfigError, match="heads differ in scale or shift"):
        load(tmp_path / "heads.model")
    network.save(tmp_path / "net.pt")
    with pytest.raises(ConfigError, match="use --r_max 3"):
        load(tmp_path / "net.pt", ModelSettings(4.0, (1, 8), 4.0))
    with pytest.raises(ConfigError, match=r"does not know the elements \[6\]"):
        load(tmp_path / "net.pt", ModelSettings(3.0, (1, 6), 4.0))
