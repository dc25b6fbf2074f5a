"""What the UNet is told of the pictures of a batch: their captions, and in SDXL their sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sdcore.conditioning import Conditioner, Rows
from sdcore.networks import Networks
from sdcore.prepare import conditioner_of
from sdcore.training.buckets import Size

Text = str | None  # None: no caption, as an absent negative prompt


@dataclass(frozen=True)
class Told:
    """What a UNet may be told of a picture beside its caption, in the settings' names."""

    original_size: Size
    crop: Size
    target_size: Size
    aesthetic_score: float = 6.0
    negative_aesthetic_score: float = 2.5
    cfg: float = 1.0


@dataclass(frozen=True)
class Conditions:
    """Captions to the arguments of the UNet.

    kept: remember what was read, on the CPU, for text encoders that are not trained.
    """

    networks: Networks
    kept: bool

    @cached_property
    def _conditioner(self) -> Conditioner:
        return conditioner_of(self.networks)

    @cached_property
    def _known(self) -> dict[Text, Rows]:
        return {}

    @property
    def empty(self) -> Text:
        """What stands for no caption: "", or in SDXL zeros."""
        return None if self.networks.zero_empty else ""

    def __call__(self, texts: Sequence[Text], told: Sequence[Told]) -> dict[str, Tensor]:
        """[B,...] by argument, of a caption and the sizes of each picture."""
        device = self.networks.device
        rows = [
            self._read(text) | self._conditioner.numbers(each, negative=False)
            for text, each in zip(texts, told, strict=True)
        ]
        return {name: torch.cat([row[name] for row in rows]).to(device) for name in rows[0]}

    def remember(self, texts: Iterable[Text]) -> None:
        """Read texts before they are asked for: afterwards no text encoder is needed for them."""
        for text in texts if self.kept else ():
            self._read(text)

    def _read(self, text: Text) -> Rows:
        if not self.kept:
            return self._conditioner.read(text)
        if text not in self._known:
            with torch.no_grad():
                rows = self._conditioner.read(text)
            self._known[text] = {name: row.cpu() for name, row in rows.items()}
        return self._known[text]
