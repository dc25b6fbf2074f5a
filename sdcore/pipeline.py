"""From words to pictures: glue only. What it calls is where the ideas are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor

from sdcore import __version__
from sdcore.adapters import (
    Embedding,
    LoRA,
    adapted,
    extended,
    open_embedding,
    open_lora,
    twin,
    unmatched_warning,
)
from sdcore.brownian import noise_named
from sdcore.conditioning import Conditioner, complete
from sdcore.defaults import Defaults, defaults_for
from sdcore.errors import InputError
from sdcore.guidance import CFG
from sdcore.inpainting import CHANNELS, Canvas, Picture, open_canvas
from sdcore.loading import load
from sdcore.memory import MODES, apply, leaner
from sdcore.models import VAE, TextEncoder, UNet
from sdcore.models.layers import placement
from sdcore.process import known_prediction_type
from sdcore.prompts import Tokenizer, check_grammar
from sdcore.run import Run
from sdcore.sampling import Solver
from sdcore.schedulers import NoiseSchedule, Spacing, resolve
from sdcore.schedulers.config import SD15
from sdcore.settings import Settings, Source, Told
from sdcore.stages import handed_over

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_SIDE", "StableDiffusion", "load"]

MAX_SIDE = 8192  # pixels; beyond it a size is a slip of the finger


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
    text_encoder_2: TextEncoder | None = None  # SDXL's
    tokenizer_2: Tokenizer | None = None
    zero_empty: bool = False  # no negative prompt is zeros, not the encoded "" (SDXL)
    memory: str = "fast"  # the mode of its networks: `sdcore.memory`
    loras: tuple[LoRA, ...] = ()  # what acts on it
    embeddings: tuple[Embedding, ...] = ()  # learned words
    untouched: Mapping[str, torch.nn.Module] = field(default_factory=dict)  # networks without them
    source: Source = field(default_factory=Source)  # as `load` was given it

    @property
    def conditioner(self) -> Conditioner:
        """Settings to what the UNet is told."""
        readers = [(self.tokenizer, self.text_encoder)]
        if self.tokenizer_2 is not None and self.text_encoder_2 is not None:
            readers.append((self.tokenizer_2, self.text_encoder_2))
        return Conditioner(tuple(readers), self.unet.config, self.zero_empty)

    @property
    def prediction_type(self) -> str:
        """What the checkpoint says of its UNet: "epsilon", "v_prediction" or "sample"."""
        config = SD15 if self.scheduler_config is None else self.scheduler_config
        return config.get("prediction_type", "epsilon")

    @property
    def inpaints(self) -> bool:
        """Whether the UNet repaints a given picture, rather than draw from words alone."""
        return self.unet.config.in_channels == self.unet.config.out_channels + CHANNELS

    def prepare(
        self,
        prompts: str | Sequence[str],
        negative: str | None = None,
        seeds: Sequence[int] = (0,),
        *,
        scheduler: str | Solver | None = None,
        spacing: str | Spacing | None = None,
        eta: float | None = None,
        tail: str | float | None = None,
        steps: int | None = None,
        cfg: float | None = None,
        width: int | None = None,
        height: int | None = None,
        grammar: str = "plain",
        clip_skip: int = 1,
        prediction_type: str | None = None,
        image: Picture | None = None,
        mask: Picture | None = None,
        refiner: StableDiffusion | None = None,
        handover: float | None = None,
        noise: str | None = None,
        **told: Unpack[Told],
    ) -> Run:
        """Everything up to the first step: one picture for each prompt and each seed.

        Args:
            prompts: one or several; the pictures come prompt by prompt, seed by seed.
            negative: what guidance leads away from; None means "", for SDXL zeros.
            seeds: the same for every prompt; -2^63 .. 2^64 - 1.
            scheduler, spacing, eta, tail: as `sdcore.schedulers.resolve` takes them; None leaves it
                to the checkpoint.
            steps: at least 1; None: 20, what the family is published with, or what a list has.
            cfg: guidance scale: 1 is off, 0 draws the negative prompt alone; None: 7.5, or the
                family's. A UNet that is told the scale is asked once, with it.
            width, height: pixels, multiples of the VAE's factor (8); None is the model's own size,
                or the image's.
            grammar: "plain", where brackets are words and a long prompt is cut; "a1111", where
                they are weights, as in (red:1.2), and it is read in chunks: `sdcore.prompts`.
            clip_skip: which of the text encoder's layers the UNet is told, in A1111's numbers: 1 as
                trained, 2 the one before.
            prediction_type: "epsilon", "v_prediction" or "sample"; None: as the checkpoint says.
            image, mask: for an inpainting model: a picture, and where to repaint it (white).
            refiner: a model that takes over below the noise level `handover` (a sigma; None: that
                of t = 200, SDXL's last fifth).
            noise: of a stochastic scheduler: "independent" draws, or "brownian": the same path for
                any number of steps. None: the scheduler's own.
            told: what SDXL is told of the picture, fields of Settings: original_size, crop,
                target_size, and its refiner aesthetic_score, negative_aesthetic_score. None: a
                picture that was never scaled or cut; 6 and 2.5.

        Raises:
            InputError: whatever of this is out of range, or not for this model.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not texts or not len(seeds):
            raise InputError("at least one prompt and one seed are needed")
        chosen = resolve(scheduler, spacing, eta, self.scheduler_config, tail)
        if prediction_type is not None:
            chosen = replace(chosen, prediction_type=known_prediction_type(prediction_type))
        own_file = isinstance(scheduler, str) and scheduler.endswith(".py")
        usual = defaults_for(self.unet.config, self.scheduler_config)
        steps = chosen.spacing.steps if steps is None else steps
        canvas = self._canvas(image, mask)
        width = self._side("width", width, None if canvas is None else canvas.image.width)
        height = self._side("height", height, None if canvas is None else canvas.image.height)
        canvas = None if canvas is None else canvas.scaled(width, height)
        shared = Settings(
            prompt="",
            negative="" if negative is None and not self.zero_empty else negative,
            seed=0,
            model=self.name,
            **self.source,
            scheduler=str(scheduler) if own_file else chosen.name,
            spacing=chosen.spacing.name,
            eta=chosen.eta,
            tail=None if tail is None else str(tail),
            steps=usual.steps if steps is None else steps,
            cfg=usual.cfg if cfg is None else float(cfg),
            width=width,
            height=height,
            device=str(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            version=__version__,
            memory=self.memory,
            grammar=check_grammar(grammar),
            clip_skip=clip_skip,
            prediction_type=chosen.prediction_type,
            image=None if canvas is None else canvas.names[0],
            mask=None if canvas is None else canvas.names[1],
            canvas=None if canvas is None else canvas.digest,
            refiner=None if refiner is None else refiner.name,
            handover=self._handover(refiner, handover, chosen.noise_schedule),
            noise=chosen.entry.noise if noise is None else noise,
            **told,
            loras=tuple(lora.spec for lora in self.loras),
            embeddings=tuple(word.spec for word in self.embeddings),
        )
        experts = [self] if refiner is None else [self, refiner]
        shared = complete(shared, [expert.conditioner for expert in experts])
        plan = chosen.plan(shared.steps)
        guidance = CFG(1.0 if self.conditioner.tells_scale else shared.cfg)
        settings = tuple(replace(shared, prompt=text, seed=int(s)) for text in texts for s in seeds)
        spoken = {name for sigma in plan.sigmas for name in guidance.branches(sigma)}
        stages = self.conditioner.stages(settings, spoken, plan.sigmas)
        if refiner is not None and shared.handover is not None:
            below = refiner.conditioner.stages(settings, spoken, plan.sigmas)
            stages = handed_over(stages, below, shared.handover, refiner)
        factor = self.vae.config.factor
        shape = (self.vae.config.latent_channels, shared.height // factor, shared.width // factor)
        seeded = noise_named(shared.noise)(tuple(s.seed for s in settings), shape, self.device)
        if canvas is not None:
            seeded = replace(seeded, spent=2, begin=0)
            extra = canvas.channels(self.vae, seeded.stream(1))
            stages = tuple(stage.told_also(extra=extra) for stage in stages)
        lines = (
            *self.notes,
            *self._explained(usual, steps, cfg),
            *filter(None, map(unmatched_warning, self.loras)),
            *self.conditioner.warnings(settings, spoken),
        )
        return Run(self, settings, chosen, plan, guidance, seeded, stages, lines)

    def with_lora(
        self,
        path: str | Path,
        strength: float = 1.0,
        *,
        unet: float | None = None,
        text: float | None = None,
        merged: bool = True,
    ) -> StableDiffusion:
        """This model with an adapter (LoRA and its kin) acting on it, beside those it has.

        Nothing is changed in place: this object stays what it is, the new one shares every weight
        that the adapter does not touch, and `without_loras` gives the first one back.

        Args:
            path: a file, or a folder that diffusers or PEFT wrote.
            strength: of its effect; 1 as trained, 0 none, negative the opposite.
            unet, text: the same for the UNet and the text encoders; None: `strength`.
            merged: add it to the weights; else it runs beside the layers, which takes less memory
                and more time, and gives the same picture but for rounding.

        Raises:
            InputError: no adapter, one of an unknown kind, one for another family.
        """
        unet, text = (strength if own is None else own for own in (unet, text))
        return self._with((*self.loras, open_lora(path, self._bare, unet, text, merged)))

    def without_loras(self) -> StableDiffusion:
        """The model as it was before any adapter, bit for bit."""
        return self._with(())

    @property
    def _bare(self) -> dict[str, torch.nn.Module]:
        """The networks that adapters may act on, without those that do."""
        names = ("unet", "text_encoder", "text_encoder_2")
        found = {name: self.untouched.get(name, getattr(self, name)) for name in names}
        return {name: module for name, module in found.items() if module is not None}

    def with_embedding(self, path: str | Path, token: str | None = None) -> StableDiffusion:
        """This model knowing one word more (textual inversion); this one stays as it is.

        Args:
            path: a file of diffusers', A1111's or SDXL's form.
            token: how the word is written in prompts, in any case; None: as the file says, or its
                name. It stands for all its vectors, and weights and chunks take them together.

        Raises:
            InputError: no such file, none of that kind, one for another family, a word taken.
        """
        word, own = open_embedding(path, token), self._bare
        tokenizers = {"text_encoder": self.tokenizer, "text_encoder_2": self.tokenizer_2}
        readers: dict[str, Any] = {n: (t, own[n]) for n, t in tokenizers.items() if t is not None}
        new = extended(word, readers)
        tokenizers = {name: tokenizer for name, (tokenizer, _) in new.items()}
        own |= {name: encoder for name, (_, encoder) in new.items()}
        sd = replace(
            self,
            tokenizer=tokenizers["text_encoder"],
            tokenizer_2=tokenizers.get("text_encoder_2"),
            embeddings=(*self.embeddings, word),
        )
        return sd._with(self.loras, own)

    def _with(
        self, loras: tuple[LoRA, ...], networks: dict[str, torch.nn.Module] | None = None
    ) -> StableDiffusion:
        own = self._bare if networks is None else networks
        new: dict[str, Any] = {name: adapted(name, module, loras) for name, module in own.items()}
        if MODES[self.memory].ready != "all":
            # Networks that are made ready in turns know each other; these are to know themselves.
            own["vae"] = self.untouched.get("vae", self.vae)
            if loras or networks is not None:
                new = {n: twin(m) if new.get(n, m) is m else new[n] for n, m in own.items()}
                dtypes = {name: placement(module)[1] for name, module in new.items()}
                apply(new, self.memory, self.device, dtypes)
        return replace(self, **{**own, **new}, loras=loras, untouched=own if loras else {})

    def leaner(self) -> StableDiffusion | None:
        """The same networks, changed in place to the next leaner mode of memory; None after low."""
        mode = leaner(self.memory)
        if mode is None:
            return None
        parts = {"text_encoder": self.text_encoder, "unet": self.unet, "vae": self.vae}
        if self.text_encoder_2 is not None:
            parts["text_encoder_2"] = self.text_encoder_2
        apply(parts, mode, self.device, {name: placement(part)[1] for name, part in parts.items()})
        return replace(self, memory=mode)

    def decode(self, latents: Tensor) -> list[Image]:
        """Unit-variance latents [B,4,h,w] to B pictures of 8h x 8w pixels."""
        from sdcore.images import to_pictures

        # One at a time: large batches are no faster, take more memory, and end in other last bits.
        dtype = self.vae.dtype
        images = [self.vae.decode(row[None].to(dtype, copy=True)) for row in latents]
        if not all(image.isfinite().all() for image in images):
            raise InputError(f"the VAE overflows in {dtype}: take float32 (--dtype float32)")
        return [picture for image in images for picture in to_pictures(image)]

    def _explained(self, usual: Defaults, steps: int | None, cfg: float | None) -> list[str]:
        """The line that tells where steps or scale are this family's, and not the usual ones."""
        taken = [f"{usual.steps} steps"] * (steps is None) + [f"cfg {usual.cfg:g}"] * (cfg is None)
        if not usual.because or not taken:
            return []
        return [f"{self.name} draws with {' and '.join(taken)} unless told: {usual.because}"]

    def _canvas(self, image: Picture | None, mask: Picture | None) -> Canvas | None:
        if not self.inpaints:
            if image is not None or mask is not None:
                raise InputError(
                    f"{self.name} draws from words alone: image and mask are for "
                    "inpainting models (UNets of 9 input channels)"
                )
            return None
        if image is None or mask is None:
            raise InputError(f"{self.name} repaints a given picture: give it an image and a mask")
        return open_canvas(image, mask)

    def _handover(
        self, refiner: StableDiffusion | None, sigma: float | None, schedule: NoiseSchedule
    ) -> float | None:
        if refiner is None:
            if sigma is not None:
                raise InputError("a hand-over needs a refiner to hand over to")
            return None
        if refiner.inpaints:
            raise InputError(f"{refiner.name} is an inpainting model, and refines nothing")
        ours, theirs = self.vae.config, refiner.vae.config
        if (ours.latent_channels, ours.scaling_factor) != (
            theirs.latent_channels,
            theirs.scaling_factor,
        ):
            raise InputError(f"{refiner.name} works on other latents than {self.name}")
        if sigma is None:
            return schedule.sigma(len(schedule) / 5)
        if not math.isfinite(sigma) or sigma < 0:
            raise InputError(f"the hand-over is a sigma of at least 0, not {sigma}")
        return float(sigma)

    def _side(self, what: str, pixels: int | None, own: int | None = None) -> int:
        """A picture's width or height; where none is asked for, `own` or the model's."""
        factor = self.vae.config.factor
        if pixels is None:
            pixels = self.unet.config.sides[what == "width"] * factor if own is None else own
        if not factor <= pixels <= MAX_SIDE:
            raise InputError(f"{what} {pixels} is out of range: {factor} to {MAX_SIDE} pixels")
        if pixels % factor:
            low = max(factor, pixels - pixels % factor)
            raise InputError(
                f"{what} {pixels} is no multiple of {factor}; the nearest are {low} and "
                f"{math.ceil(pixels / factor) * factor}"
            )
        return pixels
