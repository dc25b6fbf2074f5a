"""The text that A1111's web interface keeps in a picture, `parameters`: written and read.

    a red house <lora:style:0.8>
    Negative prompt: blurry
    Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, ...

What is written means the same there as here, as far as it has a name there: the samplers by the
labels of its list (of any other name it takes the first), RNG: CPU (its own noise is the GPU's), a
LoRA as a tag in the prompt. No folder of the user's is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from sdcore.errors import InputError
from sdcore.settings import Settings
from sdcore.strengths import parse_lora

SAMPLERS = {  # our solvers by its labels
    "ddim": "DDIM",
    "dpm2": "DPM2",
    "dpm2_a": "DPM2 a",
    "dpm_adaptive": "DPM adaptive",
    "dpm_fast": "DPM fast",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun",
    "dpmpp_2s_a": "DPM++ 2S a",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "lcm": "LCM",
    "lms": "LMS",
    "pndm": "PLMS",
    "restart": "Restart",
    "unipc": "UniPC",
}
SCHEDULES = {  # our spacings by its names
    "ays": "Align Your Steps",
    "beta": "Beta",
    "ddim_uniform": "DDIM",
    "exponential": "Exponential",
    "karras": "Karras",
    "kl_optimal": "KL Optimal",
    "linspace": "Uniform",
    "normal": "Uniform",
    "polyexponential": "Polyexponential",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
}
_ONE_GRID = ("ddim", "pndm", "unipc", "lcm", "dpm_fast", "dpm_adaptive")  # whatever is chosen there
_SPACINGS = {label.casefold(): name for name, label in SCHEDULES.items()} | {"automatic": None}
_ETA = {"ddim": ("Eta DDIM", 0.0), "euler_a": ("Eta", 1.0), "dpm2_a": ("Eta", 1.0)}

_CHURN = {
    "Sigma churn": "s_churn", "Sigma tmin": "s_tmin", "Sigma tmax": "s_tmax",
    "Sigma noise": "s_noise",
}  # fmt: skip
_CHURNED = {"Euler": "euler_churn", "Heun": "heun_churn"}  # solvers that have them

_TAG = re.compile(r"<(?:lora|lyco):([^:<>]+)((?::[^:<>]*)*)>")
_FIELD = re.compile(r'\s*(\w[\w \-/]*?):\s*("(?:\\.|[^"\\])*"|[^,]*?)\s*(?:,|$)')
_SIZE = re.compile(r"(\d{1,9})\s*x\s*(\d{1,9})")
_NEGATIVE = "Negative prompt:"
# Fields that change nothing, or that only say again what another one says.
_IDLE = frozenset(
    (
        *("Version", "Lora hashes", "TI hashes", "Hashes", "Model hash", "VAE hash", "Model"),
        *("Schedule type", "User", "Date", "Downcast alphas_cumprod", "Created Date"),
    )
)


def parameters(settings: Settings) -> str:
    """The text for a picture that was drawn with these settings."""
    lines = [" ".join((settings.prompt, *map(_tag, settings.loras)))]
    if settings.negative:
        lines.append(f"{_NEGATIVE} {settings.negative}")
    spacing = settings.spacing.rpartition(":")[2]
    eta, usual = _ETA.get(settings.scheduler, ("Eta", 0.0))
    values = {
        "Steps": settings.steps,
        "Sampler": SAMPLERS.get(settings.scheduler, bare(settings.scheduler)),
        "Schedule type": (
            "Automatic"
            if settings.scheduler in _ONE_GRID
            else SCHEDULES.get(spacing, bare(settings.spacing))
        ),
        "CFG scale": f"{settings.cfg:g}",
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}",
        "Model": bare(settings.model),
        "VAE": None if settings.vae is None else bare(settings.vae),
        eta: None if settings.eta in (None, usual) else f"{settings.eta:g}",
        "Clip skip": settings.clip_skip if settings.clip_skip > 1 else None,
        "RNG": "CPU",
        "Version": f"sdcore {settings.version}",
    }
    lines.append(", ".join(f"{k}: {_quoted(v)}" for k, v in values.items() if v is not None))
    return "\n".join(lines)


@dataclass(frozen=True)
class Infotext:
    """What such a text asks for."""

    prompt: str  # without its adapters' tags
    negative: str
    options: Mapping[str, Any]  # under the names of `prepare`: steps, scheduler, spacing, cfg ...
    seed: int | None = None
    model: str | None = None  # a name, no path
    model_hash: str | None = None
    loras: tuple[tuple[str, float, float], ...] = ()  # name, strength in the UNet, in the encoder
    left: Mapping[str, str] = field(default_factory=dict)  # fields that nothing here follows

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for whatever cannot be followed."""
        return tuple(
            f"RNG: {value}: its noise cannot be drawn here, so the picture will be another"
            if name == "RNG"
            else f"{name}: {value} is not followed"
            for name, value in self.left.items()
        )


def read(text: str) -> Infotext:
    """What a `parameters` text asks for; prompts are in the a1111 grammar.

    Raises InputError where it has none of the fields, or one is garbled.
    """
    *words, last = text.strip().split("\n")
    values = {m[1]: _unquoted(m[2]) for m in _FIELD.finditer(last)}
    if not {"Steps", "Sampler", "Seed", "CFG scale", "Size"} & values.keys():
        raise InputError("it holds no settings: no line with Steps, Sampler, Seed, CFG scale, Size")
    marks = [n for n, line in enumerate(words) if line.strip().startswith(_NEGATIVE)]
    cut = marks[0] if marks else len(words)
    prompt, negative = "\n".join(words[:cut]), "\n".join(words[cut:]).strip()
    prompt, loras = untagged(prompt)
    options: dict[str, Any] = {"grammar": "a1111"}
    readers = {
        "Steps": ("steps", int),
        "CFG scale": ("cfg", float),
        "Clip skip": ("clip_skip", int),
        "Sampler": ("scheduler", str),
        "Eta": ("eta", float),
        "Eta DDIM": ("eta", float),
        "Denoising strength": ("strength", float),
    }
    for name, (option, kind) in readers.items():
        if name in values:
            options[option] = _number(name, values[name], kind)
    if "Size" in values:
        size = _SIZE.fullmatch(values["Size"])
        if size is None:
            raise InputError(f"Size: {values['Size']!r} is no width x height")
        options["width"], options["height"] = int(size[1]), int(size[2])
    schedule = values.get("Schedule type", "Automatic")
    if schedule.casefold() not in _SPACINGS:
        raise InputError(f"Schedule type: {schedule!r} is not known here")
    if (spacing := _SPACINGS[schedule.casefold()]) is not None:
        options["spacing"] = f"a1111:{spacing}"
    known = {*readers, *_IDLE, "Size", "Seed", "RNG"}
    churn = {option: values[name] for name, option in _CHURN.items() if name in values}
    if churn and values.get("Sampler") in _CHURNED:
        solver = _CHURNED[values["Sampler"]]
        given = ",".join(f"{k}={_number(k, v, float):g}" for k, v in churn.items())
        options["scheduler"] = f"{solver}:{given}"
        options.setdefault("spacing", "a1111:normal")
        known |= _CHURN.keys()
    left = {k: v for k, v in values.items() if k not in known}
    if values.get("RNG") != "CPU":
        left["RNG"] = values.get("RNG", "GPU")
    return Infotext(
        prompt.strip(),
        negative.removeprefix(_NEGATIVE).strip(),
        options,
        seed=_number("Seed", values["Seed"], int) if "Seed" in values else None,
        model=values.get("Model"),
        model_hash=values.get("Model hash"),
        loras=loras,
        left=left,
    )


def untagged(prompt: str) -> tuple[str, tuple[tuple[str, float, float], ...]]:
    """A prompt without <lora:NAME:0.8>, and what these ask for: name, strength in UNet, in text.

    With two numbers the first is the text encoder's, as there; without one it is 1. Raises
    InputError for a strength that is no number.

    >>> untagged("a red house <lora:style:0.8>")
    ('a red house', (('style', 0.8, 0.8),))
    """
    asked = []
    for tag in _TAG.finditer(prompt):
        named = dict(item.split("=", 1) for item in tag[2].split(":") if "=" in item)
        plain = [item for item in tag[2].split(":")[1:] if "=" not in item]
        text = _number(tag[0], named.get("te", plain[0] if plain else "1"), float)
        unet = _number(tag[0], named.get("unet", plain[1] if len(plain) > 1 else str(text)), float)
        asked.append((tag[1], unet, text))
    words = re.sub(r"[ \t]{2,}", " ", _TAG.sub("", prompt)) if asked else prompt
    return words.strip() if asked else words, tuple(asked)


def bare(name: str) -> str:
    """The last part of a path or hub id, without the ending of a file of weights.

    >>> bare("/home/somebody/models/dream-1.5.safetensors")
    'dream-1.5'
    """
    last = PurePath(name.replace("\\", "/")).name
    for ending in (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".py"):
        last = last.removesuffix(ending)
    return last


def _tag(spec: str) -> str:
    path, unet, text = parse_lora(spec)
    numbers = f"{unet:g}" if unet == text else f"{text:g}:{unet:g}"
    return f"<lora:{bare(path)}:{numbers}>"


def _number(name: str, text: str, kind: type) -> Any:
    try:
        return kind(text)
    except (ValueError, OverflowError):
        raise InputError(f"{name}: {text!r} is no number") from None


def _quoted(value: object) -> str:
    """A1111 splits at commas and colons, and reads a value that holds one as a JSON string."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(",:\n") else text


def _unquoted(text: str) -> str:
    if text[:1] != '"':
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, str) else text
