"""Sampler, schedule, churn and second pass of A1111's requests.

They go the way of the text in A1111's pictures (`sdcore.a1111.read`): what a request asks for and
what a picture of it says are read alike.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
from typing import Any

from sdcore.a1111 import SCHEDULES
from sdcore.a1111 import read as read_text
from sdcore.errors import InputError
from sdcore.interop.installed import names_an_extension
from sdcore.schedulers import TOOLS, resolve
from sdcore.server.a1111.fields import Drawn, TextToImage
from sdcore.server.refusals import Missing, Refused
from sdcore.written import names_a_file

LABELS = {  # of schedules, by their names in the API
    label.casefold().replace(" ", "_"): label
    for name, label in SCHEDULES.items()
    if name in TOOLS["a1111"].spacings
}


def sampling(asked: Drawn) -> tuple[dict[str, Any], dict[str, str]]:
    """The options of sampler, size and second pass, and a line for what is not followed."""
    sampler = asked.sampler_name or asked.sampler_index or "Euler"
    known_sampler(sampler)
    values: dict[str, Any] = {
        "Steps": 50 if asked.steps is None else asked.steps,
        "Sampler": sampler,
        "Schedule type": label_of(asked.scheduler),
        "CFG scale": 7.0 if asked.cfg_scale is None else asked.cfg_scale,
        "Seed": 0,
        "Size": f"{_side('width', asked.width)}x{_side('height', asked.height)}",
        "RNG": "CPU",
        **_churn(asked),
    }
    if isinstance(asked, TextToImage) and asked.enable_hr:
        values |= _second_pass(asked)
    line = ", ".join(f"{name}: {_quoted(value)}" for name, value in values.items())
    try:
        text = read_text(f"-\n{line}")
    except InputError as error:
        raise Refused(str(error)) from None
    left = {name: f"{name}: {value} is not followed" for name, value in text.left.items()}
    options = {k: v for k, v in text.options.items() if k != "grammar"}
    if asked.eta is not None and resolve(options["scheduler"]).eta is not None:
        options["eta"] = asked.eta
    return options, left


def _side(name: str, value: int | None) -> int:
    """Of the picture. The text that it goes into knows no sign, and 0 is a side like another."""
    side = 512 if value is None else value
    if side < 1:
        raise Refused(f"{name} is at least 8 pixels, not {side}", param=name)
    return side


def _churn(asked: Drawn) -> dict[str, Any]:
    """The numbers of Karras' churn, where there is any."""
    if not asked.s_churn:
        return {}
    given = {"Sigma churn": asked.s_churn, "Sigma tmin": asked.s_tmin,
             "Sigma tmax": asked.s_tmax or None, "Sigma noise": asked.s_noise}  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


def _second_pass(asked: TextToImage) -> dict[str, Any]:
    resized = bool(asked.hr_resize_x or asked.hr_resize_y)
    strength = 0.7 if asked.denoising_strength is None else asked.denoising_strength
    if not 0 < strength <= 1:
        raise Refused("denoising_strength of a second pass is above 0, up to 1",
                      param="denoising_strength")  # fmt: skip
    steps = asked.hr_second_pass_steps or 0
    if steps < 0:
        raise Refused("hr_second_pass_steps is 0, as many as the first pass has, or more",
                      param="hr_second_pass_steps")  # fmt: skip
    values = {
        "Hires resize": f"{asked.hr_resize_x or 0}x{asked.hr_resize_y or 0}" if resized else None,
        "Hires upscale": None if resized else 2.0 if asked.hr_scale is None else asked.hr_scale,
        "Hires upscaler": asked.hr_upscaler or "Latent",
        "Hires steps": steps,
        "Hires sampler": asked.hr_sampler_name or None,
        "Hires schedule type": None if not asked.hr_scheduler else label_of(asked.hr_scheduler),
        "Hires CFG Scale": asked.hr_cfg or None,
        "Denoising strength": strength,
    }
    if asked.hr_sampler_name not in (None, "", "Use same sampler"):
        known_sampler(str(asked.hr_sampler_name))
    return {name: value for name, value in values.items() if value is not None}


def known_sampler(name: str) -> str:
    """Raises Missing for a sampler that is not here, as A1111 does."""
    if len(name) > 200 or names_a_file(name) or names_an_extension(name):
        raise Missing("Sampler not found", param="sampler_name")
    try:
        resolve(name)
    except InputError as error:
        raise Missing(f"Sampler not found: {error}", param="sampler_name") from None
    return name


def label_of(scheduler: str | None) -> str:
    """A schedule by its name or its label. Raises Missing."""
    name = (scheduler or "automatic").strip().casefold().replace(" ", "_")
    if name in ("automatic", "use_same_scheduler"):
        return "Automatic" if name == "automatic" else "Use same scheduler"
    if name == "normal":  # t spaced evenly, as their Uniform
        name = "uniform"
    if name not in LABELS:
        raise Missing(f"Scheduler not found: known are {', '.join(LABELS)}", param="scheduler")
    return LABELS[name]


def _quoted(value: Any) -> str:
    """A value as the text writes it."""
    text = " ".join(str(value).split())
    return json.dumps(text, ensure_ascii=False) if set(text) & set(',:"\n') else text
