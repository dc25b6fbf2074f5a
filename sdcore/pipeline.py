"""From words to pictures: glue only. What it calls is where the ideas are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from sdcore.adapters import Embedding, unmatched_warnings, with_embedding, with_lora, without_loras
from sdcore.brownian import noise_named
from sdcore.conditioning import Conditioner, complete
from sdcore.defaults import Defaults, defaults_for
from sdcore.devices import in_own_precision
from sdcore.errors import InputError
from sdcore.guidance import CFG, branch_names
from sdcore.inpainting import CHANNELS, Canvas, Picture, open_canvas
from sdcore.models import TextEncoder
from sdcore.networks import Networks
from sdcore.process import known_prediction_type
from sdcore.prompts import Tokenizer, check_grammar
from sdcore.run import Run
from sdcore.sampling import Solver, State
from sdcore.schedulers import NoiseSchedule, Spacing, resolve
from sdcore.settings import Settings, Told
from sdcore.stages import handed_over
from sdcore.version import VERSION

MAX_SIDE = 8192  # pixels; beyond it a size is a slip of the finger


class StableDiffusion(Networks):
    """A model that is ready to draw: its networks, each of which can be used by itself."""

    @property
    def text_encoder(self) -> TextEncoder:
        return self.readers[0].encoder

    @property
    def tokenizer(self) -> Tokenizer:
        return self.readers[0].tokenizer

    @property
    def text_encoder_2(self) -> TextEncoder | None:
        """SDXL's second; None: there is one only."""
        return self.readers[1].encoder if len(self.readers) > 1 else None

    @property
    def tokenizer_2(self) -> Tokenizer | None:
        return self.readers[1].tokenizer if len(self.readers) > 1 else None

    @property
    def conditioner(self) -> Conditioner:
        """Settings to what the UNet is told."""
        return Conditioner(self.readers, self.unet.config, self.zero_empty)

    @property
    def inpaints(self) -> bool:
        """Whether the UNet repaints a given picture, rather than draw from words alone."""
        return self.unet.config.in_channels == self.unet.config.out_channels + CHANNELS

    @in_own_precision
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
        corrected = self.text_encoder_2 is None and self.unet.config.time_cond_proj_dim is None
        chosen = resolve(scheduler, spacing, eta, self.scheduler_config, tail, corrected)
        if prediction_type is not None:
            chosen = replace(chosen, prediction_type=known_prediction_type(prediction_type))
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
            scheduler=chosen.name if chosen.written is None else chosen.written,
            spacing=chosen.spacing.written or chosen.spacing.name,
            eta=chosen.eta,
            tail=None if tail is None else str(tail),
            steps=usual.steps if steps is None else steps,
            cfg=usual.cfg if cfg is None else float(cfg),
            width=width,
            height=height,
            device=str(self.device),
            dtype=self.precision,
            version=VERSION,
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
        spoken = set(branch_names(guidance, plan.sigmas))
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
            *unmatched_warnings(self),
            *self.conditioner.warnings(settings, spoken),
        )
        return Run(
            networks=self,
            settings=settings,
            scheduler=chosen,
            plan=plan,
            guidance=guidance,
            noise=seeded,
            stages=stages,
            start=State(seeded.start() * plan.start_scale),
            solver=chosen.solver,
            sigmas=plan.sigmas,
            warnings=lines,
        )

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
        return with_lora(self, path, strength, unet=unet, text=text, merged=merged)

    def without_loras(self) -> StableDiffusion:
        """The model as it was before any adapter, bit for bit."""
        return without_loras(self)

    def with_embedding(
        self, path: str | Path | Embedding, token: str | None = None
    ) -> StableDiffusion:
        """This model knowing one word more (textual inversion); this one stays as it is.

        Args:
            path: a file of diffusers', A1111's or SDXL's form, a training's folder, or an embedding
                that is open.
            token: how the word is written in prompts, in any case; None: as the file says, or its
                name. It stands for all its vectors, and weights and chunks take them together.

        Raises:
            InputError: no such file, none of that kind, one for another family, a word taken.
        """
        return with_embedding(self, path, token)

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
