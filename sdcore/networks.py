"""A model's networks as one value: what draws, where it computes, and what lies over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import Tensor, nn

from sdcore.devices import TF32, check_finite, in_own_precision
from sdcore.engine import ready_decoder
from sdcore.errors import InputError
from sdcore.family import Family, family_of
from sdcore.memory import apply, leaner
from sdcore.models import VAE, TextEncoder, UNet
from sdcore.models.layers import placement
from sdcore.picture_options import Source
from sdcore.prompts import Tokenizer
from sdcore.schedulers.config import SD15
from sdcore.schedulers.flow_config import prediction_type_of
from sdcore.shown import clipped

if TYPE_CHECKING:
    from sdcore.sheets import Pictures


@dataclass(frozen=True)
class Reader:
    """A text encoder and the tokenizer that it was trained with."""

    name: str  # as the files call it: "text_encoder", "text_encoder_2"
    tokenizer: Tokenizer
    encoder: TextEncoder


class Overlay(Protocol):
    """What lies over networks: an adapter, or a learned word."""

    @property
    def spec(self) -> str:
        """As the command line takes it: the path, and how strongly it acts or what it is called."""
        ...


@dataclass(frozen=True, repr=False)
class Networks:
    """The networks of a model, and nothing of any picture. `dataclasses.replace` changes a part.

    Nothing in here changes, but for the mode of memory: see `leaner`.
    """

    name: str  # as the user gave it: a bundled name, a folder, a file, a hub id
    readers: tuple[Reader, ...]  # one, or two (SDXL)
    unet: UNet
    vae: VAE
    scheduler_config: Mapping[str, Any] | None  # None: the checkpoint has none
    device: torch.device
    dtype: torch.dtype
    tf32: bool = False  # whether float32 may be rounded to TF32: `sdcore.devices`
    memory: str = "fast"  # the mode that they are in: `sdcore.memory`
    engine: str = "plain"  # how the UNet and the VAE are run: `sdcore.engine`
    zero_empty: bool = False  # no negative prompt is zeros, not the encoded "" (SDXL)
    notes: tuple[str, ...] = ()  # what had to be guessed of the model, one line each
    source: Source = field(default_factory=Source)  # where they came from, as `load` was given it
    digests: Mapping[str, str] = field(default_factory=dict)  # of their files, by name
    loras: tuple[Overlay, ...] = ()  # the adapters that act on them
    embeddings: tuple[Overlay, ...] = ()  # the words that they have learned
    untouched: Mapping[str, nn.Module] = field(default_factory=dict)  # modules without adapters

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Every network by its name: "unet", "vae", "text_encoder" ..."""
        encoders = {reader.name: reader.encoder for reader in self.readers}
        return {**encoders, "unet": self.unet, "vae": self.vae}

    def with_modules(self, modules: Mapping[str, nn.Module]) -> Self:
        """The same with other networks under some of these names."""
        new: dict[str, Any] = {**self.modules, **modules}
        readers = tuple(replace(reader, encoder=new[reader.name]) for reader in self.readers)
        return replace(self, readers=readers, unet=new["unet"], vae=new["vae"])

    def __repr__(self) -> str:
        sizes = [
            f"{name} {sum(p.numel() for p in module.parameters()) / 1e6:.1f}M"
            for name, module in self.modules.items()
        ]
        height, width = (side * self.vae.config.factor for side in self.unet.config.sides)
        over = [overlay.spec for overlay in (*self.loras, *self.embeddings)]
        return clipped(
            f"{type(self).__name__}({self.name!r}: {width}x{height}, {', '.join(sizes)}; "
            f"{self.device}, {self.precision}, memory {self.memory}"
            + f"; {', '.join(over)}" * bool(over)
            + ")"
        )

    @property
    def family(self) -> Family:
        """What it does otherwise. Raises InputError for a UNet that is told what nobody knows."""
        pooled = self.readers[-1].encoder.config.projection_dim
        return family_of(self.unet.config, pooled, len(self.readers), self.scheduler_config)

    @property
    def prediction_type(self) -> str:
        """What the checkpoint says of its UNet: "epsilon", "flow_prediction" ..."""
        config = SD15 if self.scheduler_config is None else self.scheduler_config
        return prediction_type_of(config)

    @property
    def precision(self) -> str:
        """The number format, as the settings of a picture say it: "float32", "tf32" ..."""
        return TF32 if self.tf32 else str(self.dtype).removeprefix("torch.")

    def leaner(self) -> Self | None:
        """The same networks, changed in place to the next leaner mode of memory; None after low."""
        mode = leaner(self.memory)
        if mode is None:
            return None
        dtypes = {name: placement(module)[1] for name, module in self.modules.items()}
        apply(self.modules, mode, self.device, dtypes)
        return replace(self, memory=mode)

    @in_own_precision
    def decode(self, latents: Tensor) -> Pictures:
        """Unit-variance latents [B,4,h,w] of any floating dtype to B pictures of 8h x 8w pixels.

        Raises InputError for another shape, where they are not finite, and where the VAE overflows
        in its dtype.
        """
        from sdcore.images import to_pictures
        from sdcore.sheets import Pictures

        channels = self.vae.config.latent_channels
        if latents.dim() != 4 or latents.shape[1] != channels:
            raise InputError(f"latents are [B,{channels},h,w], and not {list(latents.shape)}")

        # One at a time: large batches are no faster, take more memory, and end in other last bits.
        dtype = self.vae.dtype
        # Where the loop does not wait for the device, what went wrong in it comes to light here.
        check_finite(latents, "the loop (the UNet, or the solver)", self.dtype)
        with torch.no_grad():
            decode = ready_decoder(self.vae, self.engine)
            images = [decode(row[None].to(dtype, copy=True)) for row in latents]
        for image in images:
            check_finite(image, "the VAE", dtype)
        return Pictures(picture for image in images for picture in to_pictures(image))
