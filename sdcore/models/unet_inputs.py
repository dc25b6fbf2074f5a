"""What a UNet is told beside x, t and the text: where families differ, and how they are known.

SDXL (Podell et al. 2023, arXiv 2307.01952, section 2.2) is told a vector: the pooled text of its
last encoder, and numbers of the picture, each as a sinusoid. A UNet with distilled guidance is told
the guidance scale (Meng et al. 2023, arXiv 2210.03142). One that repaints is told a mask and the
latents of a picture, in further channels of x.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SIZES = ("original_size", "crop", "target_size")
SCORES = ("aesthetic_score", "negative_aesthetic_score")
INPAINTING_CHANNELS = 5  # one of the mask, four of latents


@dataclass(frozen=True)
class Numbers:
    """The numbers of the picture that the UNets of one family are told."""

    settings: tuple[str, ...]  # that hold them, in their order
    encoders: int  # text encoders of the family

    @property
    def count(self) -> int:
        """A size is two numbers; of the two scores a branch is told its own."""
        each = {**dict.fromkeys(SIZES, 2), SCORES[1]: 0}
        return sum(each.get(name, 1) for name in self.settings)


SDXL = Numbers(SIZES, encoders=2)
REFINER = Numbers((*SIZES[:2], *SCORES), encoders=1)
NUMBERS = (SDXL, REFINER)


@dataclass(frozen=True)
class UNetInputs:
    """What a UNet takes, by its config.json. 0: it is told no such thing, or does not say."""

    added: bool = False  # whether it is told the vector
    vector: int = 0  # its width
    each: int = 0  # of it, for each number
    context: int = 0  # the text's width
    scale_width: int | None = None  # of the guidance scale's embedding; None: it is not told it
    further: int = 0  # channels of x beside the latents that it draws

    @property
    def repaints(self) -> bool:
        """Whether it is told a picture and a mask."""
        return self.further == INPAINTING_CHANNELS

    def numbers(self, pooled: int) -> Numbers | None:
        """What it is told of the picture, beside a pooled text of this width; None: nothing known.

        Only of a UNet that is told the vector.
        """
        widths = {pooled + row.count * self.each: row for row in NUMBERS}
        return widths.get(self.vector)

    def likely_numbers(self, encoders: int | None = None) -> Numbers | None:
        """The same from the UNet alone; None where it is told no vector.

        encoders: how many text encoders the model has. Where that is not known: one, if its width
        is that of the text too, as in SDXL's refiner.
        """
        if not self.added:
            return None
        if encoders is None:
            encoders = 1 if self.vector - REFINER.count * self.each == self.context else 2
        return REFINER if encoders == 1 else SDXL


def unet_inputs(config: Mapping[str, Any]) -> UNetInputs:
    """Of the contents of a UNet's config.json, however wrong; absent fields are diffusers'."""

    def whole(name: str, absent: int) -> int:
        value = config.get(name)
        return absent if value is None else value if type(value) is int else 0

    return UNetInputs(
        added=config.get("addition_embed_type") is not None,
        vector=whole("projection_class_embeddings_input_dim", 0),
        each=whole("addition_time_embed_dim", 0),
        context=whole("cross_attention_dim", 1280),
        scale_width=config.get("time_cond_proj_dim"),
        further=whole("in_channels", 4) - whole("out_channels", 4),
    )
