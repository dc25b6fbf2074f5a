"""What the text in a picture of A1111's interface asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sdcore.a1111.names import SCHEDULES, number
from sdcore.a1111.second_pass import FIELDS, second_pass
from sdcore.errors import InputError

_SPACINGS = {label.casefold(): name for name, label in SCHEDULES.items()} | {"automatic": None}
_READERS = {
    "Steps": ("steps", int),
    "CFG scale": ("cfg", float),
    "Clip skip": ("clip_skip", int),
    "Sampler": ("scheduler", str),
    "Eta": ("eta", float),
    "Eta DDIM": ("eta", float),
    "Denoising strength": ("strength", float),
    "Mask blur": ("mask_blur", float),
}
_CHURN = {
    "Sigma churn": "s_churn", "Sigma tmin": "s_tmin", "Sigma tmax": "s_tmax",
    "Sigma noise": "s_noise",
}  # fmt: skip
_CHURNED = {"Euler": "euler_churn", "Heun": "heun_churn"}  # solvers that have them
_VARIED = {"Variation seed": int, "Variation seed strength": float}
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
_WHY = {
    "RNG": ": its noise cannot be drawn here, so the picture will be another",
    "Hires upscaler": " is not followed, it is a network of its own: Lanczos' kernel in its place",
}


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
            f"{name}: {value}{_WHY.get(name, ' is not followed')}"
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
    options, known = _first_pass(values)
    second, left = second_pass(values, options, _spacing)
    if second or left:
        options.pop("strength", None)  # which is that of the second pass
        options |= second
        known |= {*FIELDS}
    left |= {k: v for k, v in values.items() if k not in known}
    if values.get("RNG") != "CPU":
        left["RNG"] = values.get("RNG", "GPU")
    return Infotext(
        prompt.strip(),
        negative.removeprefix(_NEGATIVE).strip(),
        options,
        seed=number("Seed", values["Seed"], int) if "Seed" in values else None,
        model=values.get("Model"),
        model_hash=values.get("Model hash"),
        loras=loras,
        left=left,
    )


def _first_pass(values: Mapping[str, str]) -> tuple[dict[str, Any], set[str]]:
    """The options of the first pass, and the names of the fields that were followed."""
    options: dict[str, Any] = {"grammar": "a1111"}
    for name, (option, kind) in _READERS.items():
        if name in values:
            options[option] = number(name, values[name], kind)
    if "Size" in values:
        size = _SIZE.fullmatch(values["Size"])
        if size is None:
            raise InputError(f"Size: {values['Size']!r} is no width x height")
        options["width"], options["height"] = int(size[1]), int(size[2])
    if (spacing := _spacing("Schedule type", values)) is not None:
        options["spacing"] = spacing
    known = {*_READERS, *_IDLE, "Size", "Seed", "RNG"}
    for names, asked in (
        (_CHURN, _churned(values)),
        (("ENSD",), _delta(values)),
        (_VARIED, _varied(values)),
    ):
        if asked is not None:
            options |= asked
            known |= {*names}
    return options, known


def _churned(values: Mapping[str, str]) -> dict[str, Any] | None:
    """The solver with the churn that the fields give it; None where they do not."""
    churn = {option: values[name] for name, option in _CHURN.items() if name in values}
    if not churn or values.get("Sampler") not in _CHURNED:
        return None
    given = ",".join(f"{k}={number(k, v, float):g}" for k, v in churn.items())
    spacing = _spacing("Schedule type", values)
    return {
        "scheduler": f"{_CHURNED[values['Sampler']]}:{given}",
        "spacing": "a1111:normal" if spacing is None else spacing,
    }


def _delta(values: Mapping[str, str]) -> dict[str, Any] | None:
    """The noise of seeds so much larger; None where ENSD is not there."""
    if "ENSD" not in values:
        return None
    delta = number("ENSD", values["ENSD"], int)
    other_kind = "SDE" in values.get("Sampler", "")  # of noise, which it does not touch
    return {"noise": f"independent:delta={delta}"} if delta and not other_kind else {}


def _varied(values: Mapping[str, str]) -> dict[str, Any] | None:
    """The way towards another seed's noise; None where the fields do not give both ends."""
    if not _VARIED.keys() <= values.keys():
        return None
    seed, share = (number(name, values[name], kind) for name, kind in _VARIED.items())
    return {"variation": f"{seed}:{share:g}:columns"} if share else {}


def _spacing(name: str, values: Mapping[str, str]) -> str | None:
    """The spacing of a schedule by its name there; None: the sampler's own."""
    schedule = values.get(name, "Automatic")
    if schedule.casefold() not in _SPACINGS:
        raise InputError(f"{name}: {schedule!r} is not known here")
    spacing = _SPACINGS[schedule.casefold()]
    return None if spacing is None else f"a1111:{spacing}"


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
        text = number(tag[0], named.get("te", plain[0] if plain else "1"), float)
        unet = number(tag[0], named.get("unet", plain[1] if len(plain) > 1 else str(text)), float)
        asked.append((tag[1], unet, text))
    words = re.sub(r"[ \t]{2,}", " ", _TAG.sub("", prompt)) if asked else prompt
    return words.strip() if asked else words, tuple(asked)


def _unquoted(text: str) -> str:
    if text[:1] != '"':
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, str) else text
