"""From words to pictures: glue only. What it calls is where the ideas are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from sdcore import __version__
from sdcore.checkpoints import Checkpoint, load_component, open_model
from sdcore.devices import choose_device, choose_dtype
from sdcore.errors import InputError
from sdcore.guidance import CFG
from sdcore.models import VAE, TextEncoder, UNet
from sdcore.noise import SeededNoise
from sdcore.prompts import (
    Tokenizer,
    at_step,
    check_grammar,
    chunked,
    encode,
    load_tokenizer,
    report,
    switches,
)
from sdcore.run import Run
from sdcore.sampling import Solver
from sdcore.schedulers import Spacing, resolve
from sdcore.settings import Settings
from sdcore.stages import Stage, stack

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 8192  # pixels; beyond it a size is a slip of the finger


def load(
    model: str | Path = "picturebook",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> StableDiffusion:
    """A model, ready to draw.

    Args:
        model: a bundled name, a folder in the diffusers layout, a .safetensors file in the LDM
            layout, or a hub id.
        device: "cpu", "cuda", "cuda:1", "mps"; None takes the best there is.
        dtype: of the networks: "float32", "bfloat16", "float16"; None suits the device.

    Raises:
        InputError: no such model or device, broken or contradictory files.
    """
    device = choose_device(device)
    dtype = choose_dtype(dtype, device)
    checkpoint = open_model(model)
    _refuse_other_families(checkpoint)
    tokenizer = load_tokenizer(checkpoint.tokenizer, checkpoint.pad_token)
    parts = {name: load_component(c, device, dtype) for name, c in checkpoint.components.items()}
    sd = StableDiffusion(
        name=str(model),
        text_encoder=cast(TextEncoder, parts["text_encoder"]),
        unet=cast(UNet, parts["unet"]),
        vae=cast(VAE, parts["vae"]),
        tokenizer=tokenizer,
        scheduler_config=checkpoint.scheduler or None,
        device=device,
        dtype=dtype,
        notes=checkpoint.notes,
    )
    words, known = tokenizer.backend.get_vocab_size(), sd.text_encoder.config.vocab_size
    if words > known:
        raise InputError(f"{checkpoint.path}: the tokenizer has {words} ids, the encoder {known}")
    if tokenizer.length > sd.text_encoder.config.max_position_embeddings:
        raise InputError(f"{checkpoint.path}: the tokenizer writes more tokens than can be read")
    return sd


def _refuse_other_families(checkpoint: Checkpoint) -> None:
    unet = checkpoint.components["unet"].config
    if "text_encoder_2" in checkpoint.components or unet.get("addition_embed_type"):
        raise InputError(f"{checkpoint.path} is an SDXL model; SD 1.x and 2.x can be drawn with")
    if unet.get("time_cond_proj_dim"):
        raise InputError(f"{checkpoint.path} is an LCM (its UNet is told the guidance scale)")
    if unet.get("in_channels", 4) != unet.get("out_channels", 4):
        raise InputError(
            f"{checkpoint.path} has a UNet of {unet['in_channels']} input channels: "
            "it repaints a given picture, and cannot draw one from words alone"
        )


@dataclass(frozen=True)
class StableDiffusion:
    """The parts of a model. Each can be used, or replaced, by itself."""

    name: str
    text_encoder: TextEncoder
    unet: UNet
    vae: VAE
    tokenizer: Tokenizer
    scheduler_config: Mapping[str, Any] | None
    device: torch.device
    dtype: torch.dtype
    notes: tuple[str, ...] = ()  # what had to be guessed of the model, one line each

    def prepare(
        self,
        prompts: str | Sequence[str],
        negative: str | None = None,
        seeds: Sequence[int] = (0,),
        *,
        scheduler: str | Solver | None = None,
        spacing: str | Spacing | None = None,
        eta: float | None = None,
        steps: int = 20,
        cfg: float = 7.5,
        width: int | None = None,
        height: int | None = None,
        grammar: str = "plain",
        clip_skip: int = 1,
    ) -> Run:
        """Everything up to the first step: one picture for each prompt and each seed.

        Args:
            prompts: one or several; the pictures come prompt by prompt, seed by seed.
            negative: what guidance leads away from; None means "".
            seeds: the same for every prompt; -2^63 .. 2^64 - 1.
            scheduler, spacing, eta: as `sdcore.schedulers.resolve` takes them; None leaves it to
                the checkpoint.
            steps: at least 1.
            cfg: guidance scale: 1 is off, 0 draws the negative prompt alone.
            width, height: pixels, multiples of the VAE's factor (8); None is the model's own size.
            grammar: "plain", where brackets are words and a long prompt is cut; "a1111", where
                they are weights, as in (red:1.2), and it is read in chunks: `sdcore.prompts`.
            clip_skip: which of the text encoder's layers the UNet is told, in A1111's numbers: 1 as
                trained, 2 the one before.

        Raises:
            InputError: whatever of this is out of range.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not texts or not len(seeds):
            raise InputError("at least one prompt and one seed are needed")
        chosen = resolve(scheduler, spacing, eta, self.scheduler_config)
        own_file = isinstance(scheduler, str) and scheduler.endswith(".py")
        shared = Settings(
            prompt="",
            negative="" if negative is None else negative,
            seed=0,
            model=self.name,
            scheduler=str(scheduler) if own_file else chosen.name,
            spacing=chosen.spacing.name,
            eta=getattr(chosen.solver, "keywords", {}).get("eta"),
            steps=steps,
            cfg=float(cfg),
            width=self._side("width", width),
            height=self._side("height", height),
            device=str(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            version=__version__,
            grammar=check_grammar(grammar),
            clip_skip=clip_skip,
        )
        plan, guidance = chosen.plan(steps), CFG(shared.cfg)
        settings = [replace(shared, prompt=text, seed=int(s)) for text in texts for s in seeds]
        spoken = {name for sigma in plan.sigmas for name in guidance.branches(sigma)}
        stages = self._stages(settings, sorted(spoken), plan.sigmas)
        said = {"cond": [s.prompt for s in settings], "uncond": [s.negative for s in settings]}
        texts = dict.fromkeys(text for name in spoken for text in said[name])
        warnings = [w for text in texts for w in report(text, self.tokenizer, grammar, steps)]
        factor = self.vae.config.factor
        shape = (self.vae.config.latent_channels, shared.height // factor, shared.width // factor)
        noise = SeededNoise(tuple(s.seed for s in settings), shape, self.device)
        told = (*self.notes, *warnings)
        return Run(self, tuple(settings), chosen, plan, guidance, noise, stages, told)

    def decode(self, latents: Tensor) -> list[Image]:
        """Unit-variance latents [B,4,h,w] to B pictures of 8h x 8w pixels."""
        from sdcore.images import to_pictures

        # One at a time: large batches are no faster, take more memory, and end in other last bits.
        images = [self.vae.decode(row[None].to(self.dtype, copy=True)) for row in latents]
        if not all(image.isfinite().all() for image in images):
            raise InputError(f"the VAE overflows in {self.dtype}: take float32 (--dtype float32)")
        return [picture for image in images for picture in to_pictures(image)]

    def _stages(
        self, settings: Sequence[Settings], branches: Sequence[str], sigmas: Sequence[float]
    ) -> tuple[Stage, ...]:
        """What the UNet is told, from each step on in which a prompt of these branches changes."""
        said = {"cond": [s.prompt for s in settings], "uncond": [s.negative for s in settings]}
        steps, first = len(sigmas) - 1, settings[0]
        weighted = first.grammar != "plain"
        texts = {text for name in branches for text in said[name]} if weighted else set()
        begins = [0, *sorted({n for text in texts for n in switches(text, steps)})]
        stages, read = [], {}
        for begin in begins:
            told = {}
            for name in branches:
                now = [at_step(t, begin, steps) if weighted else t for t in said[name]]
                # One call for each text, so that none depends on its company.
                read |= {t: self._read(t, first) for t in dict.fromkeys(now) if t not in read}
                told[name] = [{"context": read[text]} for text in now]
            stages.append(stack(sigmas[begin] if begin else math.inf, told))
        return tuple(stages)

    def _read(self, text: str, settings: Settings) -> Tensor:
        """A text's context [1,L,D]."""
        chunks = chunked(text, self.tokenizer, settings.grammar)
        return encode(chunks, self.text_encoder, settings.clip_skip)[0]

    def _side(self, what: str, pixels: int | None) -> int:
        factor = self.vae.config.factor
        if pixels is None:
            return self.unet.config.sample_size * factor
        if not factor <= pixels <= MAX_SIDE:
            raise InputError(f"{what} {pixels} is out of range: {factor} to {MAX_SIDE} pixels")
        if pixels % factor:
            low = max(factor, pixels - pixels % factor)
            raise InputError(
                f"{what} {pixels} is no multiple of {factor}; the nearest are {low} and "
                f"{math.ceil(pixels / factor) * factor}"
            )
        return pixels
