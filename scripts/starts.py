"""Image to image and inpainting beside diffusers' pipelines, scheduler by scheduler.

    python -m scripts.starts            # writes docs/starts.md
    python -m scripts.starts --print

A random model of SD 1.x's structure, written by diffusers: both load it from the same folder, draw
from the same picture with the same seed, and the latents that they end with are compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import click
import diffusers
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from scripts import families
from scripts.pages import put, shown_option
from sdcore.loading import load
from sdcore.pipeline import StableDiffusion
from sdcore.schedulers.table import TABLE

DOCS = Path(__file__).parents[1] / "docs" / "starts.md"
FAMILY, PROMPT, SEED, STEPS, CFG, SIDE = "SD 1.x", "a red boat", 3, 10, 5.0, 64
STRENGTHS = (0.33, 0.6, 1.0)
CLASSES = {entry.name: entry.class_name for entry in TABLE if entry.class_name in entry.labels}
LEFT_OUT = "dpmpp_sde"
NOTES = {  # what diffusers does otherwise
    "pndm": "diffusers takes the second step for the doubled first one (`diffusers.pndm.img2img`)",
    "lms": "its memory begins before the first step (`diffusers.lms.img2img`)",
    "dpm2": "at the midpoint diffusers gives what is kept the noise of the step's end",
}


def picture() -> Image.Image:
    """Of SIDE x SIDE, with something in every corner."""
    drawn = Image.new("RGB", (SIDE, SIDE), (60, 120, 200))
    pen = ImageDraw.Draw(drawn)
    pen.rectangle((8, 30, 40, 60), fill=(200, 40, 30))
    pen.ellipse((30, 4, 60, 34), fill=(250, 220, 90))
    return drawn


def mask() -> Image.Image:
    """Of the same size: the right part, its edge within a latent."""
    drawn = Image.new("L", (SIDE, SIDE))
    drawn.paste(255, (28, 12, SIDE, SIDE))
    return drawn


def ours(sd: StableDiffusion, name: str, strength: float, over: Image.Image | None) -> Tensor:
    """The latents [1,4,h,w]."""
    asked: dict[str, Any] = {"image": picture(), "strength": strength, "mask": over}
    run = sd.prepare(
        PROMPT, seeds=[SEED], scheduler=CLASSES[name], steps=STEPS, cfg=CFG, **asked
    )  # fmt: skip
    with torch.inference_mode():
        *_, last = run
        latents = last.x_next * run.end_scale
    return latents if run.kept is None else run.kept.over(latents)


def theirs(pipe: Any, name: str, strength: float, over: Image.Image | None) -> Tensor:
    """The same of diffusers' pipeline.

    Classes that clip x0 unless told otherwise are told so, as Stable Diffusion's config tells DDIM.
    """
    kind = getattr(diffusers, CLASSES[name])
    clips = {"clip_sample": False} if "clip_sample" in signature(kind).parameters else {}
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **clips)
    pipe.set_progress_bar_config(disable=True)
    asked: dict[str, Any] = {} if over is None else {"mask_image": over}
    return pipe(
        PROMPT,
        image=picture(),
        strength=strength,
        num_inference_steps=STEPS,
        guidance_scale=CFG,
        generator=[torch.Generator().manual_seed(SEED)],
        output_type="latent",
        eta=0.3 if name == "tcd" else 0.0,
        **asked,
    ).images


def pipelines(folder: Path) -> tuple[StableDiffusion, Any, Any]:
    """Ours, and diffusers' for both jobs, of one model."""
    sd = load(folder, device="cpu")
    first = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(folder)
    second = diffusers.StableDiffusionInpaintPipeline(
        **first.components, requires_safety_checker=False
    )
    return sd, first, second


def errors(name: str, models: tuple[StableDiffusion, Any, Any]) -> Iterator[float]:
    """Of a scheduler: for each job and each strength the largest error, over the largest latent."""
    sd, *pipes = models
    for pipe, over in zip(pipes, (None, mask()), strict=True):
        for strength in STRENGTHS:
            expected = theirs(pipe, name, strength, over)
            off = (ours(sd, name, strength, over) - expected).abs().max()
            yield (off / expected.abs().max().clamp(min=1)).item()


def table(folder: Path) -> str:
    """The page."""
    models = pipelines(folder)
    rows = [
        "# Image to image and inpainting beside diffusers",
        "",
        f"Written by `python -m scripts.starts`: a random model of {FAMILY}'s structure, {STEPS} "
        f"steps asked for, guidance {CFG:g}, diffusers {diffusers.__version__}, float32 on a CPU. "
        "The largest error of the latents that both end with, over the largest latent; by "
        "strength.",
        "",
        f"| scheduler | image to image {' | '.join(map(str, STRENGTHS))} "
        f"| inpainting {' | '.join(map(str, STRENGTHS))} |",
        "|---|" + "---|" * (2 * len(STRENGTHS)),
    ]
    for name in CLASSES:
        if name == LEFT_OUT:
            continue
        cells = " | ".join(f"{error:.1e}" for error in errors(name, models))
        rows.append(f"| {name} | {cells} |")
    rows += ["", *(f"* {name}: {why}." for name, why in NOTES.items())]
    rows += [f"* {LEFT_OUT} is left out: diffusers draws its noise from torchsde's tree.", ""]
    return "\n".join(rows)


@click.command()
@shown_option
def main(shown: bool) -> None:
    """Compare with diffusers, and write docs/starts.md."""
    diffusers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as place:
        text = table(families.write(Path(place), families.FAMILIES[FAMILY]))
    put(DOCS, text, shown)


if __name__ == "__main__":
    main()
