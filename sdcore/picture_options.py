"""What may be asked of a picture: every option, declared once.

`Source` is what `load` takes, `Words` and `Options` what `prepare` takes, `Overlays` what is laid
over the networks between the two. The keywords of these and the options of the command line are
made of them; `sdcore.settings` is what one picture was drawn with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any

from sdcore.options import Option, option, options_of

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from sdcore.engine import Lossy
    from sdcore.guidance import Guidance
    from sdcore.models.freeu import FreeU
    from sdcore.sampling import Solver
    from sdcore.schedulers import Scheduler, Spacing

Size = tuple[int, int]
Names = tuple[str, ...]

WORDS, SAMPLING, MODEL, EXTRA = "Words", "Sampling", "Model", "SDXL, FreeU"
START = "Start from a picture"
SECOND = "Second pass, larger"
FILTERS, OUTPUT = "Filters and marks", "Output"
MODELS, SCHEDULERS = ("model",), ("scheduler",)  # what brings its own of an option


@dataclass(frozen=True)
class Source:
    """Which networks draw, and how they are held: what `load` takes."""

    model: "str | Path" = option(
        "Bundled name, folder, file, or hub id.", MODEL, "picturebook", metavar="MODEL",
        doc="a bundled name, a folder in the diffusers layout, a file in the LDM layout "
        "(.safetensors, or .ckpt, of which nothing is run), or a hub id.",
    )  # fmt: skip
    device: "str | torch.device | None" = option(
        "cpu, cuda, cuda:1, mps.  [default: the best]", MODEL, metavar="NAME"
    )
    dtype: "str | torch.dtype | None" = option(
        "float32, tf32, bfloat16, float16.  [default: what suits the device]", MODEL,
        metavar="NAME", also=("--precision",), says=(("full", "float32"), ("autocast", "auto")),
        doc='of the networks: "float32", "bfloat16", "float16"; "tf32": float32 whose products '
        "CUDA rounds, for speed; None suits the device.",
    )  # fmt: skip
    memory: str | None = option(
        "fast, balanced, low, quantized.  [default: what fits]", MODEL, metavar="MODE",
        doc='"fast", "balanced", "low", or "quantized", which keeps weights as the file has them '
        "(`sdcore.memory`); None takes the fastest that fits.",
    )  # fmt: skip
    engine: str | None = option(
        "auto: fast where there is a fast form; plain; compile.  [default: auto]", MODEL,
        metavar="NAME",
        doc='how UNet and VAE are run: "auto" (None), fast where the processor has a fast form; '
        '"plain", module by module; "compile", by torch.compile. They agree to rounding: '
        "`sdcore.engine`.",
    )  # fmt: skip
    weights: str | None = option(
        "Hold the UNet's in 8 bits, not quite exact: int8, fp8.  [default: as they are]", MODEL,
        metavar="KIND",
        doc='"int8" or "fp8" holds the UNet\'s weights in 8 bits, for memory (docs/speed.md); '
        "None: as they are.",
    )  # fmt: skip
    vae: str | None = option(
        "This part from a file, a folder or a hub id.", MODEL, metavar="PLACE", goes_with=MODELS
    )
    unet: str | None = option("The same.", MODEL, metavar="PLACE", goes_with=MODELS)
    text_encoder: str | None = option("The same.", MODEL, metavar="PLACE", goes_with=MODELS)
    text_encoder_2: str | None = option(
        "The same, SDXL's second.", MODEL, metavar="PLACE", goes_with=MODELS
    )
    variant: str | None = option(
        "Of a folder's weights: fp16, non_ema ...", MODEL, metavar="NAME", goes_with=MODELS
    )
    revision: str | None = option(
        "Of a hub id: a branch, a tag, a commit.", MODEL, metavar="REV", goes_with=MODELS
    )
    ema: bool | None = option(
        "A single file's averaged weights.", MODEL, kind=bool, goes_with=MODELS
    )

    @property
    def places(self) -> dict[str, Any]:
        """What is to be read from elsewhere than the model usually is."""
        held = ("model", "device", "dtype", "memory", "engine", "weights")
        given = {f.name: getattr(self, f.name) for f in fields(Source) if f.name not in held}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Overlays:
    """What is laid over the networks, once they are there."""

    loras: Names = option(
        "FILE, FILE:0.8 or FILE:unet=1,text=0.5; may be repeated.", MODEL, (), metavar="FILE",
        flag="--lora", many=True,
    )  # fmt: skip
    embeddings: Names = option(
        "A learned word: FILE or FILE:WORD; may be repeated.", WORDS, (), metavar="FILE",
        flag="--embedding", many=True,
    )  # fmt: skip


@dataclass(frozen=True)
class Words:
    """What is to be drawn: a picture for each prompt and each seed."""

    prompts: str | Sequence[str] = option(
        "One or several.", WORDS, MISSING,
        doc="one or several; the pictures come prompt by prompt, seed by seed.",
    )  # fmt: skip
    negative: str | Sequence[str] | None = option(
        "What the picture should not be.", WORDS, metavar="TEXT", also=("--negative-prompt",),
        doc='what guidance leads away from: one for all prompts, or one for each; None: "", for '
        "SDXL zeros.",
    )  # fmt: skip
    seeds: int | Sequence[int] = option(
        "The same for every prompt.", WORDS, (0,),
        doc="the same for every prompt; -2^63 .. 2^64 - 1.",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may be asked of a picture beside its words; None leaves it to model and scheduler."""

    grammar: str | None = option(
        "plain, or a1111: (words:1.2), [a:b:0.5], [a|b], a AND b.", WORDS, metavar="NAME",
        doc='"plain" (None), where brackets are words and a long prompt is cut; "a1111", where '
        "they are weights, as in (red:1.2), and it is read in chunks: `sdcore.prompts`.",
    )  # fmt: skip
    clip_skip: int | None = option(
        "2: the text encoder's last layer but one.  [default: 1]", WORDS, kind=int,
        doc="which of the text encoder's layers the UNet is told, in A1111's numbers: 1 as trained "
        "(None), 2 the one before.",
    )  # fmt: skip
    towards: str | None = option(
        "Blend the prompt with another, TEXT:SHARE, e.g. 'a blue house:0.5'.", WORDS,
        metavar="TEXT:SHARE",
        doc='another prompt to blend this one with, "a blue house:0.5": what the UNet is told lies '
        "on the line between what it is told of both; 0 is the own one.",
    )  # fmt: skip
    scheduler: "str | Solver | Scheduler | None" = option(
        "E.g. ddim, 'DPM++ 2M Karras', dpmpp_2m:euler_at_final=1, mine.py.", SAMPLING,
        metavar="NAME", also=("--sampler", "--sampler-name", "-A"),
        doc="as `sdcore.schedulers.resolve` takes it; None: the checkpoint's.",
    )  # fmt: skip
    spacing: "str | Spacing | None" = option(
        "E.g. karras, a1111:beta, mine.py; see sdcore schedulers.", SAMPLING, metavar="NAME",
        goes_with=SCHEDULERS, doc="the same; None: the scheduler's.",
    )  # fmt: skip
    steps: int | None = option(
        "How many steps.  [default: 20, or the model's]", SAMPLING, kind=int,
        also=("--num-inference-steps", "-s"),
        doc="at least 1; None: 20, what the family is published with, or what a list has.",
    )  # fmt: skip
    cfg: float | None = option(
        "Guidance scale; 1 is off.  [default: 7.5, or the model's]", SAMPLING, kind=float,
        also=("--guidance-scale", "--cfg-scale", "-C"),
        doc="guidance scale: 1 is off, 0 draws the negative prompt alone; None: 7.5, or the "
        "family's. A UNet that is told the scale is asked once, with it.",
    )  # fmt: skip
    guidance: "str | Guidance | None" = option(
        "E.g. cfg+interval:low=0.3,high=5, or mine.py:Mine,scale=3.", SAMPLING, metavar="NAME",
        doc="as `sdcore.guidance.resolve` takes it, or an object of its two methods; None: plain "
        "CFG. `cfg` is the scale of what has one and is given none.",
    )  # fmt: skip
    width: int | None = option(
        "Pixels, a multiple of 8.  [default: the model's]", SAMPLING, kind=int, also=("-W",),
        doc="pixels, a multiple of the VAE's factor (8); None: the model's own, or the image's.",
    )  # fmt: skip
    height: int | None = option(
        "Pixels, a multiple of 8.  [default: the model's]", SAMPLING, kind=int, also=("-H",),
        doc="the same.",
    )  # fmt: skip
    tail: str | float | None = option(
        "zero, sigma_min, discard_penultimate, or a sigma.  [default: the spacing's]", SAMPLING,
        metavar="TAIL", goes_with=("scheduler", "spacing"),
    )  # fmt: skip
    eta: float | None = option(
        "Share of fresh noise a step: 0 none, 1 ancestral, more up to all.",
        SAMPLING,
        kind=float,
        goes_with=SCHEDULERS,
    )
    variation: str | None = option(
        "Towards another seed's noise, SEED:SHARE, e.g. 5:0.2.", SAMPLING, metavar="SEED:SHARE",
        doc='the starting noise on the arc towards another seed\'s, "5:0.2": 0 is the own one; '
        '"5:0.2:columns": each column on an arc of its own, as A1111 does it.',
    )  # fmt: skip
    latents: Any = option(
        "The starting noise itself: a safetensors file.", SAMPLING, metavar="FILE",
        doc="the starting noise itself, [1,4,h,w] of unit variance: a tensor, or a file of one "
        "(safetensors); draws in the loop remain the seed's.",
    )  # fmt: skip
    tile: str | None = option(
        "Edges that meet: x, y or xy.", SAMPLING, metavar="AXES",
        doc='"x", "y" or "xy": a picture whose edges meet, to be laid side by side.',
    )  # fmt: skip
    noise: "str | Any | None" = option(
        "independent, or brownian: one path for any steps.  [default: the scheduler's]", SAMPLING,
        metavar="NAME", goes_with=SCHEDULERS,
        doc='of a stochastic scheduler: "independent" draws, or "brownian": the same path for any '
        'number of steps; "independent:delta=31337": draws of seeds that are so much larger, which '
        "A1111 calls ENSD; None: the scheduler's own.",
    )  # fmt: skip
    prediction_type: str | None = option(
        "What the UNet says: epsilon, v_prediction, sample or flow.  [default: the model's]", MODEL,
        metavar="TYPE", flag="--prediction", goes_with=MODELS,
    )  # fmt: skip
    freeu: "str | FreeU | None" = option(
        "FreeU's b1,b2,s1,s2; SD 1.5: 1.5,1.6,0.9,0.2.", EXTRA, metavar="NUMBERS",
        goes_with=MODELS,
        doc='FreeU, as "b1,b2,s1,s2" or the object (`sdcore.models.freeu`); None: without.',
    )  # fmt: skip
    lossy: "str | Lossy | None" = option(
        "Trade exactness for time, e.g. deepcache:every=3+tome.  [default: nothing]", SAMPLING,
        metavar="WHAT",
        doc='what is traded for time, joined by "+": "deepcache:every=3,near=2", "tome:ratio=0.5", '
        '"tgate:after=0.4", "bf16" (`sdcore.engine.lossy`, docs/speed.md); None: nothing.',
    )  # fmt: skip
    image: Any = option(
        "A picture to start from, or to repaint.", START, metavar="FILE",
        doc="a picture to start from, or to repaint where `mask` is white; or its path.",
    )  # fmt: skip
    strength: float | None = option(
        "How much of it is drawn anew, up to 1.  [default: 0.8]", START, kind=float,
        goes_with=("start_sigma", "start_step", "image"),
        doc="the share of the steps that is run, above 0 to 1: the last int(steps * strength); "
        "None: 0.8, and 1 (noise alone) where a part is repainted.",
    )  # fmt: skip
    start_sigma: float | None = option(
        "The same by the noise level to start at.", START, kind=float,
        goes_with=("strength", "start_step", "image"),
        doc="in place of `strength`: the noise level to start at; the steps below it are run.",
    )  # fmt: skip
    start_step: int | None = option(
        "The same by how many steps are left out.", START, kind=int,
        goes_with=("strength", "start_sigma", "image"),
        doc="in place of `strength`: how many steps are left out.",
    )  # fmt: skip
    fit: str | None = option(
        "To another size by crop, pad or stretch.  [default: crop]", START, metavar="HOW",
        goes_with=("image",),
        doc='how image and mask are brought to width and height: "crop" covers them and cuts, '
        '"pad" fits in and repeats the edges, "stretch" changes the proportions.',
    )  # fmt: skip
    posterior: str | None = option(
        "Its latents: sample, or mode.  [default: sample]", START, metavar="HOW",
        doc='which of the latents that the VAE finds possible: "sample" draws one by the seed, '
        '"mode" takes the likeliest.',
    )  # fmt: skip
    mask: Any = option(
        "White where it is repainted.", START, metavar="FILE", goes_with=("image",),
        doc="where to repaint it (white): a picture, or its path. Greys are shares.",
    )  # fmt: skip
    mask_blur: float | None = option(
        "Soft edges, in pixels.  [default: 0]", START, kind=float, goes_with=("image",),
        doc="softens the mask's edges: a Gaussian's standard deviation in pixels.",
    )  # fmt: skip
    extend: str | None = option(
        "Paint beside it, e.g. left=64,top=32.", START, metavar="SIDES", goes_with=("image",),
        doc='pixels to paint beside the image: "left=64,top=32,right=0,bottom=0".',
    )  # fmt: skip
    paste: bool | None = option(
        "Put the pixels that are kept back as they were.", START, kind=bool, goes_with=("image",),
        doc="whether the image's own pixels are put back where the mask is black.",
    )  # fmt: skip
    hires: float | None = option(
        "Draw it on at so many times the size, e.g. 2.", SECOND, kind=float, metavar="SCALE",
        doc="a second pass: the finished picture is enlarged by this factor, given noise and drawn "
        "on, for details at a size at which a whole picture would fall apart; 1 is off.",
    )  # fmt: skip
    hires_upscaler: str | None = option(
        "How it is enlarged; see docs/starting.md.  [default: bilinear]", SECOND, metavar="NAME",
        doc='how it is enlarged: its latents by "nearest", "nearest-exact", "bilinear" (None), '
        '"bicubic", "bilinear-antialiased" or "bicubic-antialiased", its pixels by "lanczos".',
    )  # fmt: skip
    hires_strength: float | None = option(
        "How much is drawn anew, up to 1.  [default: 0.7]", SECOND, kind=float,
        doc="the share of the second pass's steps that is run, as `strength`; None: 0.7.",
    )  # fmt: skip
    hires_steps: int | None = option(
        "Its steps, of which that share is run.  [default: --steps]", SECOND, kind=int,
        doc="its steps: the last int(hires_steps * hires_strength) are run; None: `steps`.",
    )  # fmt: skip
    hires_scheduler: "str | Solver | Scheduler | None" = option(
        "Another scheduler for it, with a spacing of its own.", SECOND, metavar="NAME",
        doc="another scheduler for it, which comes with its own spacing and eta; None: the same.",
    )  # fmt: skip
    hires_spacing: "str | Spacing | None" = option(
        "Another spacing for it.", SECOND, metavar="NAME", goes_with=("hires_scheduler",),
        doc="another spacing for it; None: the scheduler's, which is that of the first pass unless "
        "it is another.",
    )  # fmt: skip
    hires_cfg: float | None = option(
        "Another guidance scale for it.", SECOND, kind=float,
        doc="another guidance scale for it; None: the same.",
    )  # fmt: skip
    watermark: str | None = option(
        "A word of up to 8 letters, hidden in the pixels.", FILTERS, metavar="WORD",
        doc="a word of up to 8 letters of ASCII, hidden in the pixels (`sdcore.watermark`), which "
        "it changes a little; None: without.",
    )  # fmt: skip
    refiner: Any = option(
        "SDXL's refiner, for the last noise levels.", EXTRA, metavar="MODEL", goes_with=MODELS,
        doc="a model that takes over below the noise level `handover`.",
    )  # fmt: skip
    handover: float | None = option(
        "The sigma at which it takes over.  [t = 200]", EXTRA, kind=float, goes_with=MODELS,
        doc="a sigma; None: that of t = 200, SDXL's last fifth.",
    )  # fmt: skip
    original_size: Size | None = option(
        "What SDXL is told of it.", EXTRA, kind="size", goes_with=MODELS,
        doc="what SDXL is told of it, (width, height) before it was scaled; None: its own.",
    )  # fmt: skip
    crop: Size | None = option(
        "The same.  [default: 0,0]", EXTRA, kind="corner", goes_with=MODELS,
        doc="the same: where it was cut, (left, top); None: not at all.",
    )  # fmt: skip
    target_size: Size | None = option(
        "The same.", EXTRA, kind="size", goes_with=MODELS,
        doc="the same: the size aimed at; None: its own.",
    )  # fmt: skip
    aesthetic_score: float | None = option(
        "What its refiner is told.  [default: 6]", EXTRA, kind=float, goes_with=MODELS
    )
    negative_aesthetic_score: float | None = option(
        "The same.  [default: 2.5]", EXTRA, kind=float, goes_with=MODELS
    )


OPTIONS: Mapping[str, Option] = {  # what a picture is drawn with beside its prompt and its seed
    name: option
    for name, (_, option) in options_of(Words, Source, Overlays, Options).items()
    if name not in ("prompts", "seeds")
}
