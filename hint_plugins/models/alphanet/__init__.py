"""AlphaNet (arXiv:2501.07155): the published networks, and a smooth one made for Hessian training."""

from hint_plugins.models.alphanet.config import AlphaNetConfig
from hint_plugins.models.alphanet.network import AlphaNet

__all__ = ["AlphaNet", "AlphaNetConfig"]
