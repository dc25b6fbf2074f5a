"""The same jobs done by diffusers and transformers: what sdcore is compared with.

Nothing here is used by the package. `scripts/parity.py` prints the comparison,
`scripts/make_reference.py` records it for machines without diffusers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from torch import Tensor

from scripts.trajectories import CLASS_OF, loop
from sdcore.pipeline import StableDiffusion
from sdcore.schedulers.config import SD15

PROMPT, SEEDS, CFG, STEPS = "a big red house on the left in the snow", (2,), 5.0, 20
VERSIONS = {
    "torch": torch.__version__,
    "diffusers": diffusers.__version__,
    "transformers": transformers.__version__,
}
NAMES = ("ddim", "euler", "euler_a", "heun", "dpmpp_2m")
SPACINGS = ("leading", "trailing", "linspace", "karras")


def runs() -> Iterator[tuple[str, str, float | None]]:
    """(scheduler, spacing, eta) of every run that diffusers can do and does right.

    It has no karras for DDIM and Euler ancestral; its DDIM steps past the next timestep of linspace
    (tests/schedulers/test_quirks.py). PNDM is left out: in its last intervals, at order 4, rounding
    grows up to a thousandfold, and two processors are up to 6e-4 apart. With the stand-in network
    it is compared (docs/parity.md). SEEDS: with some others the network itself makes 1e-3 of a
    rounding error on the way down, whoever runs the loop.
    """
    for name in NAMES:
        for spacing in SPACINGS:
            if spacing == "karras" and name in ("ddim", "euler_a"):
                continue
            if spacing == "linspace" and name == "ddim":
                continue
            yield name, spacing, None
            if name == "ddim":
                yield name, spacing, 1.0


class Reference:
    """A model folder as diffusers and transformers load it, float32 on the CPU."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def unet(self) -> Any:
        return diffusers.UNet2DConditionModel.from_pretrained(
            self.folder / "unet", torch_dtype=torch.float32
        )

    @cached_property
    def vae(self) -> Any:
        return diffusers.AutoencoderKL.from_pretrained(
            self.folder / "vae", torch_dtype=torch.float32
        )

    @cached_property
    def text_encoder(self) -> Any:
        return transformers.CLIPTextModel.from_pretrained(
            self.folder / "text_encoder", dtype=torch.float32
        )

    @cached_property
    def tokenizer(self) -> Any:
        return transformers.CLIPTokenizer.from_pretrained(self.folder / "tokenizer")

    def ids(self, prompt: str) -> Tensor:
        """Token ids [1, 77]."""
        options = {"padding": "max_length", "max_length": 77, "truncation": True}
        return self.tokenizer(prompt, return_tensors="pt", **options).input_ids

    def context(self, prompt: str) -> Tensor:
        """Text embeddings [1, 77, D]."""
        return self.text_encoder(self.ids(prompt)).last_hidden_state

    def run(self, name: str, spacing: str, eta: float | None) -> Tensor:
        """Final latents [B,4,h,w] of one guided run, unit variance."""
        count = len(SEEDS)
        both = [self.context(text).expand(count, -1, -1) for text in ("", PROMPT)]
        context = torch.cat(both)

        def model(x: Tensor, t: Tensor) -> Tensor:
            uncond, cond = self.unet(torch.cat([x, x]), t, context).sample.chunk(2)
            return uncond + CFG * (cond - uncond)

        config = {"use_karras_sigmas": True} if spacing == "karras" else {}
        if spacing != "karras":
            config["timestep_spacing"] = spacing
        scheduler = getattr(diffusers, CLASS_OF[name]).from_config({**SD15, **config})
        side = self.unet.config.sample_size
        return loop(scheduler, STEPS, model, (4, side, side), SEEDS, eta=eta)

    def pictures(self, latents: Tensor) -> np.ndarray:
        """uint8 [B, H, W, 3], as diffusers' image processor rounds them."""
        image = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        image = (image / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        return (image * 255).round().astype(np.uint8)


def our_run(sd: StableDiffusion, name: str, spacing: str, eta: float | None) -> Tensor:
    """sdcore's final latents of the same run."""
    options = {"scheduler": name, "spacing": spacing, "eta": eta, "steps": STEPS, "cfg": CFG}
    run = replace(sd, scheduler_config=SD15).prepare(PROMPT, seeds=SEEDS, **options)
    x = run.start.x
    for step in run:
        x = step.x_next
    return x * run.end_scale


def component_inputs(sd: StableDiffusion) -> dict[str, Tensor]:
    """Seeded inputs for the single components."""
    rng = torch.Generator().manual_seed(11)
    side = sd.unet.config.sample_size
    pixels = side * sd.vae.config.factor
    return {
        "x": torch.randn(2, 4, side, side, generator=rng),
        "image": torch.rand(2, 3, pixels, pixels, generator=rng) * 2 - 1,
    }


def reference_components(ref: Reference, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each component's output by diffusers and transformers."""
    x, image = inputs["x"], inputs["image"]
    context = ref.context(PROMPT)
    latents = ref.vae.encode(image).latent_dist
    scale = ref.vae.config.scaling_factor
    return {
        "text encoder": context,
        "UNet, t = 1": ref.unet(x, torch.tensor(1), context.expand(2, -1, -1)).sample,
        "UNet, t = 500.5": ref.unet(x, torch.tensor(500.5), context.expand(2, -1, -1)).sample,
        "UNet, t = 999": ref.unet(x, torch.tensor(999), context.expand(2, -1, -1)).sample,
        "VAE encode, mean": latents.mean * scale,
        "VAE encode, std": latents.std * scale,
        "VAE decode": ref.vae.decode(x / scale).sample,
    }


def our_components(sd: StableDiffusion, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each component's output by sdcore, under the same names."""
    x, image = inputs["x"], inputs["image"]
    context = sd.text_encoder(torch.tensor([sd.tokenizer(PROMPT).ids])).last
    latents = sd.vae.encode(image)
    both = context.expand(2, -1, -1)
    return {
        "text encoder": context,
        "UNet, t = 1": sd.unet(x, 1.0, both),
        "UNet, t = 500.5": sd.unet(x, 500.5, both),
        "UNet, t = 999": sd.unet(x, 999.0, both),
        "VAE encode, mean": latents.mean,
        "VAE encode, std": latents.std,
        "VAE decode": sd.vae.decode(x),
    }
