"""How strongly an adapter acts, as it is written: FILE, FILE:0.8, FILE:unet=0.8,text=0.5."""

from __future__ import annotations

import re

from sdcore.errors import InputError

_NUMBER = r"[+-]?[\d.]+(?:e[+-]?\d+)?"
_STRENGTH = re.compile(
    rf"(.+?):((?:unet=|text=)?{_NUMBER}(?:,(?:unet|text)={_NUMBER})*)", re.DOTALL
)


def parse_lora(spec: str) -> tuple[str, float, float]:
    """Path, strength in the UNet and in the text encoders, of "FILE:0.8" or "FILE:unet=1,text=0".

    >>> parse_lora("style.safetensors:unet=0.8")
    ('style.safetensors', 0.8, 1.0)
    """
    found = _STRENGTH.fullmatch(spec)
    if found is None:
        return spec, 1.0, 1.0
    given = {"unet": 1.0, "text": 1.0}
    for item in found[2].split(","):
        name, _, number = item.rpartition("=")
        try:
            given |= dict.fromkeys([name] if name else given, float(number))
        except ValueError:
            raise InputError(f"{number!r} in --lora {spec} is no number") from None
    return found[1], given["unet"], given["text"]


def written_lora(path: str, unet: float, text: float) -> str:
    """As `parse_lora` reads it, the strengths to the last digit."""
    first, second = (str(float(s)).removesuffix(".0") for s in (unet, text))
    return f"{path}:{first}" if first == second else f"{path}:unet={first},text={second}"
