"""A checkpoint by diffusers and transformers, and by sdcore: the same questions put to both.

Both compute in float32 on the CPU, one engine after the other.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from sdcore.checkpoints import Checkpoint, open_model
from sdcore.checkpoints.convert import convert, pipeline_class
from sdcore.compare.by_diffusers import quiet, their_picture, theirs
from sdcore.compare.questions import Ask, T, Tensors, inputs, numbers, pictures
from sdcore.conditioning import scale_embedding
from sdcore.errors import InputError
from sdcore.family import usual
from sdcore.images import to_tensor
from sdcore.models import UNetConfig, VAEConfig
from sdcore.sampling import State
from sdcore.schedulers.config import SPACING

if TYPE_CHECKING:
    from sdcore.pipeline import StableDiffusion
    from sdcore.run import Run

COMPONENT, LATENTS, LEVELS = 1e-5, 1e-4, 2  # limits: relative errors, and of 255


@dataclass(frozen=True)
class Gap:
    """How far sdcore's tensor is from the reference's."""

    worst: float  # maximum absolute error
    relative: float  # to the reference's largest value; 0 where both are zeros

    @classmethod
    def between(cls, ours: Tensor, theirs: Tensor) -> Gap:
        """The largest difference, and its share of the largest value of theirs."""
        worst = (ours - theirs).abs().max().item()
        return cls(worst, worst / max(theirs.abs().max().item(), 1e-30) if worst else 0.0)


@dataclass(frozen=True)
class Parity:
    """What `compare` found."""

    ask: Ask
    versions: Mapping[str, str]
    components: Mapping[str, Gap]
    latents: Gap  # at the end of the run
    levels: int  # the largest difference of its pictures, of 255

    @property
    def beyond(self) -> tuple[str, ...]:
        """What is outside its limit."""
        broken = [name for name, gap in self.components.items() if not gap.relative <= COMPONENT]
        broken += ["latents"] * (not self.latents.relative <= LATENTS)
        return (*broken, *["picture"] * (self.levels > LEVELS))


def compare(model: str | Path, steps: int | None = None, side: int | None = None) -> Parity:
    """Every component and one guided run of a checkpoint, by both engines.

    Args:
        model: whatever `sdcore.load` takes. diffusers reads a folder as it is, and of a single
            file the temporary folder that `sdcore.checkpoints.convert` writes of it.
        steps: of the run; None: what the family is drawn with.
        side: of the picture in pixels; None: the model's own.

    Raises:
        InputError: diffusers is not installed, or there is no such model.
    """
    missing = [name for name in ("diffusers", "transformers") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"{' and '.join(missing)} is not installed, and parity is a comparison with it: "
            f"pip install {' '.join(missing)}"
        )
    import sdcore

    checkpoint = open_model(model)
    asked = ask(checkpoint, steps, side)
    quiet()
    with ExitStack() as stack:
        folder, variant = checkpoint.path, _variant(checkpoint)
        if checkpoint.path.is_file() or not checkpoint.index:
            variant = None
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
            convert(checkpoint, folder)
        how: dict[str, Any] = {"variant": variant, **dict.fromkeys(_unread(checkpoint))}
        reference = theirs(folder, asked, **how)
        latents = reference.pop("latents")
        drawn = their_picture(folder, latents, variant)
    sd = sdcore.load(model, device="cpu", dtype="float32", engine="plain")
    run = prepare(sd, asked)
    here = our_text(sd, asked)
    here |= our_networks(sd, run, asked, here)
    end = here.pop("latents")
    picture = to_tensor(sd.decode(end)[0])
    levels = ((picture - drawn).abs() * 127.5).max().round().item()
    return Parity(asked, versions(), gaps(here, reference), Gap.between(end, latents), int(levels))


def gaps(ours: Tensors, theirs: Tensors) -> dict[str, Gap]:
    """Raises ValueError where one engine has what the other has not."""
    if ours.keys() != theirs.keys():
        raise ValueError(f"{sorted(ours)} is not {sorted(theirs)}")
    return {name: Gap.between(ours[name], value) for name, value in theirs.items()}


def versions() -> dict[str, str]:
    """Name -> version, of the packages that are compared."""
    return {
        name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers")
    }


def ask(checkpoint: Checkpoint, steps: int | None = None, side: int | None = None) -> Ask:
    """What a checkpoint's structure says of how it is drawn with. Raises InputError."""
    parts = checkpoint.components
    unet, vae = UNetConfig.from_dict(parts["unet"].config), VAEConfig.from_dict(parts["vae"].config)
    few, cfg, _ = usual(unet, checkpoint.scheduler or None)
    steps = few if steps is None else steps
    side = max(unet.sides) * vae.factor if side is None else side
    if steps < 1 or side < vae.factor or side % vae.factor:
        raise InputError(
            f"{steps} steps of {side} pixels: at least 1 step, of a multiple of {vae.factor} pixels"
        )
    kind, repaints = pipeline_class(checkpoint), unet.inputs.repaints
    return Ask(kind, cfg, steps, side, vae.factor, unet.in_channels, repaints)


def _unread(checkpoint: Checkpoint) -> Iterable[str]:
    """What diffusers' pipeline would load and the comparison has no use for."""
    judges = ("safety_checker", "feature_extractor", "image_encoder")
    return [name for name in judges if checkpoint.index.get(name)]


def _variant(checkpoint: Checkpoint) -> str | None:
    """ "fp16" where the UNet comes in nothing else, and sdcore therefore reads it."""
    return "fp16" if ".fp16" in checkpoint.components["unet"].files[0].name else None


# --- by sdcore ------------------------------------------------------------------------------------


@torch.inference_mode()
def our_text(sd: StableDiffusion, asked: Ask) -> Tensors:
    """What the UNet is told of the prompt, and of none."""
    out: Tensors = {}
    for name, prompt in (("text", asked.prompt), ("text, negative", None)):
        row = sd.conditioner.read(prompt)
        out[name] = row["context"]
        if "text_embeds" in row:
            out[f"pooled {name}"] = row["text_embeds"]
    return out


@torch.inference_mode()
def prepare(sd: StableDiffusion, asked: Ask) -> Run:
    """Our run of what both are asked for, on the steps that diffusers reads in the config."""
    config = {} if sd.scheduler_config is None else sd.scheduler_config
    return sd.prepare(
        asked.prompt,
        seeds=[asked.seed],
        steps=asked.steps * (1 + asked.from_image),
        cfg=asked.cfg,
        spacing=config.get("timestep_spacing", "leading") if SPACING in config else None,
        width=asked.side,
        height=asked.side,
        **pictures(asked),
    )


@torch.inference_mode()
def our_networks(sd: StableDiffusion, run: Run, asked: Ask, text: Tensors) -> Tensors:
    """UNet, VAE, and the run's last "latents"."""
    given, out = inputs(asked), {}
    for t in T:
        out[f"UNet, t = {t:g}"] = our_unet(sd.unet, given, text, asked.cfg, t)
    code = sd.vae.encode(given["image"])
    out["VAE encode, mean"], out["VAE encode, std"] = code.mean, code.std
    out["VAE decode"] = sd.vae.decode(given["latents"])
    start = None
    if asked.from_image:
        x = given["latents"][:1] + run.sigmas[asked.steps] * run.noise.start()
        start = State(x, index=asked.steps)
    for step in tqdm(run.steps(start), "sdcore", asked.steps, leave=False, disable=None):
        out["latents"] = step.x_next * run.end_scale
    return out


def our_unet(unet: Any, given: Tensors, text: Tensors, cfg: float, t: float) -> Tensor:
    """Output [2,4,h,w] of sdcore's UNet, told what `their_unet` is told."""
    dtype = unet.conv_in.weight.dtype
    condition: dict[str, Tensor] = {"context": text["text"].expand(2, -1, -1).to(dtype)}
    if "pooled text" in text:
        vector, each = unet.config.added_dims
        count = (vector - text["pooled text"].shape[1]) // each
        condition["text_embeds"] = text["pooled text"].expand(2, -1).to(dtype)
        condition["time_ids"] = torch.tensor([numbers(count)] * 2)
    if (width := unet.config.inputs.scale_width) is not None:
        row = scale_embedding(cfg, width)
        condition["timestep_cond"] = row.expand(2, -1)
    return unet(given["x"].to(dtype), t, **condition)
