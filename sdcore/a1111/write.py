"""A picture's settings in the words of A1111's interface."""

from __future__ import annotations

import json

from sdcore.a1111.names import SAMPLERS, SCHEDULES, UPSCALERS, bare
from sdcore.settings import Settings
from sdcore.strengths import parse_lora

_ONE_GRID = ("ddim", "pndm", "unipc", "lcm", "dpm_fast", "dpm_adaptive")  # whatever is chosen there
_ETA = {"ddim": ("Eta DDIM", 0.0), "euler_a": ("Eta", 1.0), "dpm2_a": ("Eta", 1.0)}

_DELTA = "independent:delta="
_NEGATIVE = "Negative prompt:"


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
        **_second_pass(settings),
        **_variation(settings),
        "Model": bare(settings.model),
        "VAE": None if settings.vae is None else bare(settings.vae),
        eta: None if settings.eta in (None, usual) else f"{settings.eta:g}",
        "Clip skip": settings.clip_skip if settings.clip_skip > 1 else None,
        "ENSD": settings.noise.removeprefix(_DELTA) if settings.noise.startswith(_DELTA) else None,
        "RNG": "CPU",
        "Version": f"sdcore {settings.version}",
    }
    lines.append(", ".join(f"{k}: {_quoted(v)}" for k, v in values.items() if v is not None))
    return "\n".join(lines)


def _variation(settings: Settings) -> dict[str, str]:
    """The variation in its words, where it is drawn as there."""
    if settings.variation is None or not settings.variation.endswith(":columns"):
        return {}
    seed, share, _ = settings.variation.split(":")
    return {"Variation seed": seed, "Variation seed strength": share}


def _second_pass(settings: Settings) -> dict[str, str | int | None]:
    """The second pass in its words; its steps are those that are run."""
    if settings.hires is None:
        return {}
    steps = settings.steps if settings.hires_steps is None else settings.hires_steps
    strength = 1.0 if settings.hires_strength is None else settings.hires_strength
    scheduler, spacing = settings.hires_scheduler, settings.hires_spacing
    schedule = None if spacing is None else spacing.rpartition(":")[2]
    return {
        "Denoising strength": f"{strength:g}",
        "Hires upscale": f"{settings.hires:g}",
        "Hires steps": int(steps * strength),
        "Hires upscaler": UPSCALERS[settings.hires_upscaler or "bilinear"],
        "Hires sampler": None if scheduler is None else SAMPLERS.get(scheduler, bare(scheduler)),
        "Hires schedule type": schedule and SCHEDULES.get(schedule, bare(schedule)),
        "Hires CFG Scale": None if settings.hires_cfg is None else f"{settings.hires_cfg:g}",
    }


def _tag(spec: str) -> str:
    path, unet, text = parse_lora(spec)
    numbers = f"{unet:g}" if unet == text else f"{text:g}:{unet:g}"
    return f"<lora:{bare(path)}:{numbers}>"


def _quoted(value: object) -> str:
    """A1111 splits at commas and colons, and reads a value that holds one as a JSON string."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(",:\n") else text
