"""A random model of every family, and what diffusers and sdcore make of it.

    python -m scripts.families                     # small models: the table of errors
    python -m scripts.families sd15 sd21 sdxl      # those of the published size
    python -m scripts.families --dtype bfloat16    # UNets: both engines' errors against float32

Weights are random; what is compared is arithmetic. A model is written by diffusers and transformers
and read by both engines, one after the other.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from scripts.vocabulary import write_tokenizer
from sdcore.checkpoints import Component, load_component, open_model
from sdcore.checkpoints.load import BUILD
from sdcore.compare import by_diffusers, parity, questions
from sdcore.models.unet_inputs import unet_inputs

PROMPT, SEED, STEPS = questions.PROMPT, questions.Ask.seed, 2
T = 500.5  # the timestep at which UNets in other dtypes are compared
PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text())

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD = {**BETAS, "steps_offset": 1, "set_alpha_to_one": False}
PNDM = {**SD, "_class_name": "PNDMScheduler", "skip_prk_steps": True}
DDIM = {**SD, "_class_name": "DDIMScheduler", "clip_sample": False}
EULER = {**BETAS, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
EULER |= {"steps_offset": 1}
TRAILING = EULER | {"timestep_spacing": "trailing"}
ANCESTRAL = TRAILING | {"_class_name": "EulerAncestralDiscreteScheduler"}
LCM = {**SD, "_class_name": "LCMScheduler"}
XL = {"force_zeros_for_empty_prompt": True}

ENCODER = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
ENCODER |= {"num_hidden_layers": 3, "eos_token_id": 2, "architectures": ["CLIPTextModel"]}
OPEN_CLIP = ENCODER | {"hidden_act": "gelu"}
PROJECTED = OPEN_CLIP | {"hidden_size": 48, "projection_dim": 24}
PROJECTED |= {"architectures": ["CLIPTextModelWithProjection"]}
UNET = {"block_out_channels": (32, 64), "layers_per_block": 1, "attention_head_dim": 4}
UNET |= {"norm_num_groups": 8, "sample_size": 8, "cross_attention_dim": 32}
UNET |= {"down_block_types": (CROSS, PLAIN)}
UNET_2 = UNET | {"attention_head_dim": (2, 4), "use_linear_projection": True}
UNET_XL = UNET_2 | {"block_out_channels": (32, 64, 64), "attention_head_dim": (2, 4, 4)}
UNET_XL |= {"down_block_types": (PLAIN, CROSS, CROSS), "transformer_layers_per_block": (1, 1, 2)}
UNET_XL |= {"cross_attention_dim": 80, "addition_embed_type": "text_time"}
UNET_XL |= {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 24 + 6 * 8}
REFINER = UNET_XL | {"cross_attention_dim": 48, "projection_class_embeddings_input_dim": 24 + 5 * 8}
REFINER |= {"down_block_types": (PLAIN, CROSS, PLAIN), "transformer_layers_per_block": 2}
VAE = {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4, "sample_size": 64}
VAE_XL = VAE | {"scaling_factor": 0.13025, "force_upcast": True}


@dataclass(frozen=True)
class Family:
    """One family's model in configurations, and how diffusers' pipeline of it is asked."""

    pipeline: str  # diffusers' class
    parts: Mapping[str, Mapping[str, Any]]  # component -> config.json
    scheduler: Mapping[str, Any]
    pads: Mapping[str, str] = field(default_factory=dict)  # text encoder -> token
    index: Mapping[str, Any] = field(default_factory=dict)
    cfg: float = 5.0
    side: int = 64  # pixels


def sd(
    unet: Mapping[str, Any],
    scheduler: Mapping[str, Any],
    second: bool = False,
    pipeline: str = "StableDiffusionPipeline",
    **more: Any,
) -> Family:
    """SD 1.x, or 2.x."""
    encoder = OPEN_CLIP if second else ENCODER
    pads = {"text_encoder": "!"} if second else {}
    parts = {"text_encoder": encoder, "unet": unet, "vae": VAE}
    return Family(pipeline, parts, scheduler, pads, **more)


def sdxl(
    unet: Mapping[str, Any],
    scheduler: Mapping[str, Any],
    pipeline: str = "StableDiffusionXLPipeline",
    **more: Any,
) -> Family:
    both = {"text_encoder": ENCODER, "text_encoder_2": PROJECTED}
    parts = {**both, "unet": unet, "vae": VAE_XL}
    return Family(pipeline, parts, scheduler, {"text_encoder_2": "!"}, XL, **more)


def repaints(unet: Mapping[str, Any]) -> dict[str, Any]:
    return {**unet, "in_channels": 9}


FAMILIES = {
    "SD 1.x": sd(UNET, PNDM),
    "SD 1.x inpainting": sd(repaints(UNET), DDIM, pipeline="StableDiffusionInpaintPipeline"),
    "SD 2.x base": sd(UNET_2, PNDM, second=True),
    "SD 2.x v": sd(
        {**UNET_2, "upcast_attention": True},
        {**DDIM, "prediction_type": "v_prediction"},
        second=True,
    ),
    "SD 2.x inpainting": sd(
        repaints(UNET_2),
        PNDM,
        second=True,
        pipeline="StableDiffusionInpaintPipeline",
    ),
    "SD-Turbo": sd({**UNET_2, "sample_size": 64}, TRAILING, second=True, cfg=1.0),
    "LCM": sd(
        {**UNET, "time_cond_proj_dim": 16},
        LCM,
        pipeline="LatentConsistencyModelPipeline",
        cfg=8.5,
    ),
    "SDXL": sdxl(UNET_XL, EULER),
    "SDXL inpainting": sdxl(repaints(UNET_XL), EULER, pipeline="StableDiffusionXLInpaintPipeline"),
    "SDXL-Turbo": sdxl({**UNET_XL, "sample_size": 64}, ANCESTRAL, cfg=1.0),
    "SDXL refiner": Family(
        "StableDiffusionXLImg2ImgPipeline",
        {"text_encoder_2": PROJECTED, "unet": REFINER, "vae": VAE_XL},
        EULER,
        {"text_encoder_2": "!"},
        {"force_zeros_for_empty_prompt": False, "requires_aesthetics_score": True},
    ),
}


def published(model: str, pipeline: str, side: int = 128, **pads: str) -> Family:
    """A family of the published size, for pictures small enough to wait for."""
    parts = {
        name: config
        for name, config in PUBLISHED[model].items()
        if name in ("text_encoder", "text_encoder_2", "unet", "vae")
    }
    index = {k: v for k, v in PUBLISHED[model]["index"].items() if k.startswith("force_zeros")}
    return Family(pipeline, parts, PUBLISHED[model]["scheduler"], pads, index, side=side)


FULL = {
    "sd15": published("runwayml/stable-diffusion-v1-5", "StableDiffusionPipeline"),
    "sd21": published(
        "stabilityai/stable-diffusion-2-1", "StableDiffusionPipeline", text_encoder="!"
    ),
    "sdxl": published(
        "stabilityai/stable-diffusion-xl-base-1.0", "StableDiffusionXLPipeline", text_encoder_2="!"
    ),
}


def find(name: str) -> Family:
    return FULL[name] if name in FULL else FAMILIES[name]


# --- writing -----------------------------------------------------------------------------------


def write(folder: Path, family: Family, dtype: torch.dtype = torch.float32) -> Path:
    """Write a random model as diffusers and transformers do, one network in memory at a time."""
    import diffusers
    import transformers

    index: dict[str, Any] = {"_class_name": family.pipeline, **family.index}
    index["_diffusers_version"] = diffusers.__version__
    words = 0
    for name, config in family.parts.items():
        if name.startswith("text_encoder"):
            tokenizer = name.replace("text_encoder", "tokenizer")
            pad = family.pads.get(name, "<|endoftext|>")
            words = write_tokenizer(folder / tokenizer, pad)
            index[tokenizer] = ["transformers", "CLIPTokenizer"]
            kind = config["architectures"][0]
            size = {} if "vocab_size" in config else {"vocab_size": words}
            build = lambda c=config, k=kind, s=size: getattr(transformers, k)(  # noqa: E731
                transformers.CLIPTextConfig(**{**c, **s})
            )
            index[name] = ["transformers", kind]
        else:
            kind = "AutoencoderKL" if name == "vae" else "UNet2DConditionModel"
            fields = {**config, **_blocks(name, config)}
            build = lambda k=kind, f=fields: getattr(diffusers, k).from_config(f)  # noqa: E731
            index[name] = ["diffusers", kind]
        _random(build, dtype).save_pretrained(folder / name)
    kind = family.scheduler["_class_name"]
    getattr(diffusers, kind).from_config(dict(family.scheduler)).save_pretrained(
        folder / "scheduler"
    )
    index["scheduler"] = ["diffusers", kind]
    for absent in {"text_encoder", "tokenizer"} - index.keys():  # the refiner's, as published
        index[absent] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def _blocks(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The block types that a small configuration leaves out."""
    levels = len(config["block_out_channels"])
    if name == "vae":
        return {f"{a}_block_types": (f"{b}Block2D",) * levels for a, b in _VAE_BLOCKS}
    up = tuple(kind.replace("Down", "Up") for kind in reversed(config["down_block_types"]))
    return {"up_block_types": up}


_VAE_BLOCKS = (("down", "DownEncoder"), ("up", "UpDecoder"))


def _random(build: Callable[[], nn.Module], dtype: torch.dtype) -> Any:
    """A module of seeded weights, norms and biases too, whose signals stay about as they come.

    Weights have the variance 1 / (3 inputs) of torch's own. They are cut from one row of random
    numbers over and over, which is a hundred times faster than drawing them all.
    """
    with torch.device("meta"):
        module = build()
    nn.Module.to(module, dtype)  # past the libraries' own, which warn
    module.to_empty(device="cpu")
    row, begin = torch.randn(_ROW, generator=torch.Generator().manual_seed(0)), 0
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            count = parameter.numel()
            times = -(-(begin + count) // _ROW)
            numbers = (row if times == 1 else row.repeat(times))[begin : begin + count]
            numbers = numbers.view(parameter.shape)
            begin = (begin + count) % _ROW
            if parameter.ndim > 1:
                parameter.copy_(numbers * (3 * parameter[0].numel()) ** -0.5)
            else:
                parameter.copy_(0.1 * numbers + name.endswith("weight"))
    return module.eval()


_ROW = 1_000_003  # a prime, so that no two rows of a matrix are cut alike


# --- what both are asked -------------------------------------------------------------------------


def asked(family: Family) -> questions.Ask:
    channels = family.parts["unet"].get("in_channels", 4)
    repaints = unet_inputs(family.parts["unet"]).repaints
    return questions.Ask(
        family.pipeline, family.cfg, STEPS, family.side, channels=channels, repaints=repaints
    )


def pictures(family: Family) -> dict[str, Any]:
    """The picture and the mask of an inpainting family."""
    return questions.pictures(asked(family))


def theirs(folder: Path, family: Family, lean: bool = False) -> questions.Tensors:
    """Every component and a run of two steps, by diffusers and transformers in float32.

    lean: one network in memory at a time.
    """
    return by_diffusers.theirs(folder, asked(family), lean)


@torch.inference_mode()
def ours(folder: Path, family: Family, lean: bool = False) -> questions.Tensors:
    """The same by sdcore."""
    import sdcore

    with patch("sdcore.loading.load_component", _hollow) if lean else nullcontext():
        sd = sdcore.load(folder, device="cpu", dtype="float32", memory="fast", engine="plain")
    text, run = parity.our_text(sd, asked(family)), parity.prepare(sd, asked(family))
    if lean:
        parts = open_model(folder).components
        sd = replace(sd, readers=())  # before the UNet comes
        run = replace(run, networks=sd)
        sd = sd.with_modules({name: load_component(parts[name]) for name in ("unet", "vae")})
        run = replace(run, networks=sd)
    return text | parity.our_networks(sd, run, asked(family), text)


def _hollow(component: Component, *how: Any, **more: Any) -> nn.Module:
    """In place of `load_component`: no weights where they would take much memory too early."""
    if component.name.startswith("text_encoder"):
        return load_component(component, *how, **more)
    with torch.device("meta"):
        return BUILD[component.name](component.config)


# --- the tables ----------------------------------------------------------------------------------


def errors(folder: Path, family: Family, dtype: torch.dtype) -> tuple[float, float]:
    """The UNet's error in `dtype`, by sdcore and by diffusers: RMS, against diffusers' float32."""
    import diffusers

    theirs = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    unet = load_component(open_model(folder).components["unet"], "cpu", dtype)
    given, config = questions.inputs(asked(family)), theirs.config
    rng = torch.Generator().manual_seed(12)
    text = {"text": torch.randn(1, 77, config.cross_attention_dim, generator=rng)}
    inputs = unet_inputs(family.parts["unet"])
    numbers = inputs.likely_numbers(sum(name.startswith("text_encoder") for name in family.parts))
    if numbers is not None:
        pooled = inputs.vector - numbers.count * inputs.each
        text["pooled text"] = torch.randn(1, pooled, generator=rng)
    with torch.inference_mode():
        exact = by_diffusers.their_unet(theirs, given, text, family.cfg, T)
        rough = by_diffusers.their_unet(theirs.to(dtype), given, text, family.cfg, T)
        own = parity.our_unet(unet, given, text, family.cfg, T)
    rms = [(each.float() - exact).square().mean().sqrt().item() for each in (own, rough)]
    return rms[0], rms[1]


@contextmanager
def model(name: str) -> Iterator[Path]:
    """A folder with the random model of a family, gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        if name in FULL:
            _apart("write", folder, name)
        else:
            write(Path(folder), FAMILIES[name])
        yield Path(folder)


def compare(name: str, folder: Path) -> dict[str, tuple[float, float]]:
    """component -> maximum absolute error, and relative to the reference's largest value."""
    family = find(name)
    if name in FULL:  # one engine in memory at a time
        _apart("theirs", str(folder), name)
        _apart("ours", str(folder), name)
        sides = [load_file(folder / f"{side}.tensors") for side in ("theirs", "ours")]
    else:
        sides = [theirs(folder, family), ours(folder, family)]
    reference, own = sides
    return {key: (gap.worst, gap.relative) for key, gap in parity.gaps(own, reference).items()}


def _apart(job: str, folder: str, name: str) -> None:
    command = [sys.executable, "-m", "scripts.families", "--job", job, folder, name]
    subprocess.run(command, check=True)


def _do(job: str, folder: Path, name: str) -> None:
    if job == "write":
        write(folder, FULL[name], torch.float16)
        return
    out = (theirs if job == "theirs" else ours)(folder, FULL[name], lean=True)
    save_file({key: value.contiguous() for key, value in out.items()}, folder / f"{job}.tensors")


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*FAMILIES, *FULL]))
@click.option("--dtype", help="Compare UNets in bfloat16 or float16 with float32.")
@click.option("--job", type=(str, click.Path(path_type=Path)), hidden=True)
def main(names: tuple[str, ...], dtype: str | None, job: tuple[str, Path] | None) -> None:
    """Print how far sdcore is from diffusers, family by family (none named: every small one).

    Exit status 1 where a relative error is above 1e-5, or ours in --dtype above 1.05 of theirs.
    """
    by_diffusers.quiet()
    if job is not None:
        _do(*job, names[0])
        return
    bad = 0
    if dtype is not None:
        print("| family | sdcore, RMS | diffusers, RMS | ratio |\n|---|---|---|---|")
    else:
        print("| family | component | max abs error | relative |\n|---|---|---|---|")
    for name in names if names else FAMILIES:
        with model(name) as folder:
            if dtype is not None:
                own, rough = errors(folder, find(name), getattr(torch, dtype))
                bad += own > 1.05 * rough
                print(f"| {name} | {own:.2e} | {rough:.2e} | {own / rough:.3f} |", flush=True)
                continue
            for component, (worst, relative) in compare(name, folder).items():
                bad += not relative <= 1e-5
                print(f"| {name} | {component} | {worst:.1e} | {relative:.1e} |", flush=True)
    if bad:
        print(f"{bad} are outside their limits", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
