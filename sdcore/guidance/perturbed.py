"""Away from what the same network says with some of its layers made worse."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from sdcore.errors import InputError
from sdcore.guidance.base import Source, lerp
from sdcore.guidance.table_entry import Entry
from sdcore.keywords import Range
from sdcore.models.layers import Attention
from sdcore.models.unet import Transformer2D, TransformerBlock
from sdcore.sampling import Prediction

Change = Callable[[nn.Module], nn.Module | None]  # what stands in a module's place; None: itself


@dataclass(frozen=True)
class Perturbed(ABC):
    """cond + strength * (cond - worse); 0 is off. A subclass says what "worse" is.

    layers: the blocks of the UNet that are made worse, by the beginnings of their names:
        "mid_block", "down_blocks.2", "up_blocks.1.attentions.0" ...

    Raises InputError, when the network is made, where no such block has what is to be changed.
    """

    strength: float = 3.0
    layers: tuple[str, ...] = ("mid_block",)
    branch: ClassVar[str]

    @abstractmethod
    def change(self, module: nn.Module) -> nn.Module | None:
        """What stands in a module's place; None: itself."""

    @property
    def sources(self) -> Mapping[str, Source]:
        return {self.branch: Source(change=partial(changed, layers=self.layers, by=self.change))}

    def branches(self, sigma: float) -> tuple[str, ...]:
        return ("cond",) if self.strength == 0 else (self.branch, "cond")

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        if self.strength == 0:
            return predictions["cond"]
        return lerp(predictions, self.branch, "cond", 1 + self.strength)


@dataclass(frozen=True)
class PAG(Perturbed):
    """Perturbed-attention guidance (Ahn et al. 2024, arXiv 2403.17377, eq. 15 and 16).

    In the self-attention of the layers every position sees itself alone: the map is the identity.
    """

    branch = "perturbed"

    def change(self, module: nn.Module) -> nn.Module | None:
        if isinstance(module, Attention) and module.to_k.in_features == module.to_q.in_features:
            return SeesItself(module)  # or an attention to a text as wide: it lets that be
        return None


@dataclass(frozen=True)
class SEG(Perturbed):
    """Smoothed-energy guidance (Hong 2024, arXiv 2408.00760, algorithm 1).

    In the self-attention of the layers the queries are blurred by a Gaussian over the feature map,
    whose weights add up to 1 within it. blur: its standard deviation in positions; inf: their mean;
    0 is off.
    """

    blur: Annotated[float, Range(0)] = math.inf
    branch = "smoothed"

    def change(self, module: nn.Module) -> nn.Module | None:
        return Smoothed(module, self.blur) if isinstance(module, Transformer2D) else None


@dataclass(frozen=True)
class SkippedLayers(Perturbed):
    """Skip-layer guidance: the transformer blocks of the layers hand on what they are given.

    Hyung et al. 2025 (arXiv 2411.18664, spatiotemporal skip guidance, eq. 8), for one picture.
    """

    branch = "skipped"

    def change(self, module: nn.Module) -> nn.Module | None:
        return HandsOn() if isinstance(module, TransformerBlock) else None


def changed(network: nn.Module, layers: tuple[str, ...], by: Change) -> nn.Module:
    """The network with some modules in these layers replaced; it shares every weight."""
    count = 0

    def shell(module: nn.Module, name: str) -> nn.Module:
        nonlocal count
        inside = any(f"{name}.".startswith(f"{layer}.") for layer in layers)
        if inside and (other := by(module)) is not None:
            count += 1
            return other
        twin = copy.copy(module)
        children = {key: shell(child, f"{name}.{key}".lstrip("."))
                    for key, child in module._modules.items() if child is not None}  # fmt: skip
        twin._modules = {**module._modules, **children}
        return twin

    found = shell(network, "")
    if not count:
        raise InputError(f"the UNet has no attention in {', '.join(layers)}: e.g. mid_block")
    return found


class SeesItself(nn.Module):
    """A self-attention whose map is the identity. One that is given a context stays as it is."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if context is not None:
            return self.attention(x, context)
        return self.attention.to_out[0](self.attention.to_v(x))


class Smoothed(nn.Module):
    """A Transformer2D whose self-attentions have blurred queries."""

    def __init__(self, transformer: Transformer2D, blur: float) -> None:
        super().__init__()
        self.queries: list[BlurredQuery] = []

        def by(module: nn.Module) -> nn.Module | None:
            if not isinstance(module, TransformerBlock):
                return None
            block = copy.copy(module)
            attention = copy.copy(module.attn1)
            self.queries.append(BlurredQuery(attention.to_q, blur))
            attention._modules = {**attention._modules, "to_q": self.queries[-1]}
            block._modules = {**module._modules, "attn1": attention}
            return block

        self.transformer = changed(transformer, ("transformer_blocks",), by)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        for query in self.queries:
            query.side = (x.shape[-2], x.shape[-1])
        return self.transformer(x, context)


class BlurredQuery(nn.Module):
    """The projection to queries [B, H * W, D], blurred over H and W."""

    def __init__(self, to_q: nn.Module, blur: float) -> None:
        super().__init__()
        self.to_q, self.blur = to_q, blur
        self.side: tuple[int, int] = (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        query = self.to_q(x)
        if math.isinf(self.blur):
            return query.mean(1, keepdim=True).expand_as(query)
        rows, columns = (gaussian(length, self.blur).to(query) for length in self.side)
        grid = query.unflatten(1, self.side)
        return torch.einsum("ih,jw,bhwd->bijd", rows, columns, grid).flatten(1, 2)


def gaussian(length: int, std: float) -> Tensor:
    """Weights [to, from] of a Gaussian blur over `length` positions; rows add up to 1."""
    at = torch.arange(length, dtype=torch.float64)
    if std == 0:
        return torch.eye(length, dtype=torch.float64)
    return torch.softmax(-((at[:, None] - at) ** 2) / (2 * std**2), dim=1)


class HandsOn(nn.Module):
    """What stands in the place of a skipped block."""

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return x


ENTRIES = (
    Entry("pag", PAG, "arXiv 2403.17377, eq. 15", "away from attention that sees itself alone"),
    Entry("seg", SEG, "arXiv 2408.00760, alg. 1", "away from attention with blurred queries"),
    Entry("skip", SkippedLayers, "arXiv 2411.18664, eq. 8", "away from the network without blocks"),
)
