"""Token merging (Bolya & Hoffman 2023, arXiv 2303.17604): self-attention over fewer tokens.

Of every 2 x 2 cells of the map the first is a destination. Of all others the share that is most
like a destination is averaged into it, and gets back what it gave. The paper draws the destination
in a cell by chance; here it is always the same one, so that a picture can be drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

CELL = 2


@dataclass(frozen=True)
class Merging:
    """ratio: the share of tokens that is merged away, below 1 - 1/4.

    levels: in how many sizes of map, from the largest that has transformers.
    """

    ratio: float = 0.5
    levels: int = 1

    def of(self, tokens: Tensor, size: torch.Size) -> Merged | None:
        """tokens [B,L,D], the rows of a map of this (H, W), merged; None where it has no cells."""
        first, others = _places(*size, tokens.device)
        count = min(int(self.ratio * tokens.shape[1]), len(others))
        if count < 1 or not len(first):
            return None
        a, b = tokens[:, others], tokens[:, first]  # [B,n,D], [B,m,D]
        alike = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).transpose(1, 2)
        best, where = alike.max(dim=-1)
        order = best.argsort(dim=-1, descending=True, stable=True)
        gone, stays = order[:, :count], order[:, count:]
        into = where.gather(1, gone)
        # A product in place of a scattered sum, whose order on a GPU is not always the same.
        belongs = F.one_hot(into, len(first)).to(tokens.dtype).transpose(1, 2)  # [B,m,count]
        total = 1 + belongs.sum(dim=-1, keepdim=True)
        mean = (b + belongs @ _rows(a, gone)) / total
        kept = _rows(a, stays)
        return Merged(torch.cat([kept, mean], dim=1), others[stays], first, others[gone], into)


@dataclass(frozen=True)
class Merged:
    """tokens [B,L',D]: those that stay by themselves, then the destinations.

    stays [B,n - count], first [m], gone [B,count]: their places on the map. into [B,count]: to
    which of the destinations each that is gone went.
    """

    tokens: Tensor
    stays: Tensor
    first: Tensor
    gone: Tensor
    into: Tensor

    def apart(self, out: Tensor) -> Tensor:
        """What each token of the map gets of `out` [B,L',D]: [B,L,D]."""
        count = self.stays.shape[1]
        kept, means = out[:, :count], out[:, count:]
        length = count + len(self.first) + self.gone.shape[1]
        whole = out.new_empty(len(out), length, out.shape[-1])
        whole[:, self.first] = means
        rows = torch.arange(len(out), device=out.device)[:, None]
        whole[rows, self.stays] = kept
        whole[rows, self.gone] = _rows(means, self.into)
        return whole


def _rows(tokens: Tensor, index: Tensor) -> Tensor:
    """tokens [B,L,D] at index [B,n]: [B,n,D]."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


@cache
def _places(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The places of the destinations, one for each whole cell, and of all others."""
    row, column = (torch.arange(n) for n in (height, width))
    first = [(n % CELL == 0) & (n < len(n) - len(n) % CELL) for n in (row, column)]
    destination = (first[0][:, None] & first[1]).flatten()
    return destination.nonzero()[:, 0].to(device), (~destination).nonzero()[:, 0].to(device)
