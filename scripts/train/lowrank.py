"""A network as another one and a low-rank difference (LoRA, Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from sdcore.adapters import write_lora


class LowRank(nn.Module):
    """What is learned of a frozen network: B A for the weight of each linear layer and convolution.

    Weights count as matrices. A [rank, inputs] starts at random, B [outputs, rank] at zero.
    """

    def __init__(self, network: nn.Module, rank: int):
        super().__init__()
        layers = dict(network.named_modules())
        self.layers = [n for n, m in layers.items() if isinstance(m, nn.Linear | nn.Conv2d)]
        self.frozen = {name: p.detach() for name, p in network.named_parameters()}
        matrices = [self.frozen[f"{name}.weight"].flatten(1) for name in self.layers]
        self.down = nn.ParameterList(m.new_empty(rank, m.shape[1]) for m in matrices)
        self.up = nn.ParameterList(m.new_zeros(m.shape[0], rank) for m in matrices)
        for down in self.down:
            nn.init.kaiming_uniform_(down, a=5**0.5)

    def weights(self) -> dict[str, Tensor]:
        """The whole network's parameters by name, as they are with the difference."""
        changed = dict(self.frozen)
        for name, down, up in zip(self.layers, self.down, self.up, strict=True):
            weight = self.frozen[f"{name}.weight"]
            changed[f"{name}.weight"] = weight + (up @ down).view(weight.shape)
        return changed

    def write(self, path: Path) -> None:
        """The difference as a float16 LoRA of a UNet, in diffusers' layout."""
        layers = {}
        for name, down, up in zip(self.layers, self.down, self.up, strict=True):
            inputs = self.frozen[f"{name}.weight"].shape[1:]
            spread = [1] * (len(inputs) - 1)  # a convolution's up is one of 1 x 1
            parts = {"down": down.view(len(down), *inputs), "up": up.view(*up.shape, *spread)}
            layers["unet", name] = parts
        write_lora(path, layers, {}, "diffusers")
