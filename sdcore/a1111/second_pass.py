"""The second pass ("Hires. fix") in the words of A1111's interface, read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sdcore.a1111.names import UPSCALERS, number
from sdcore.errors import InputError

STRENGTH = "Denoising strength"
FIELDS = ("Hires upscale", "Hires resize", "Hires upscaler", "Hires steps", "Hires sampler",
          "Hires schedule type", "Hires CFG Scale", STRENGTH)  # fmt: skip
_ENLARGED = {label: name for name, label in UPSCALERS.items()} | {"None": "lanczos"}
_SAME = ("Use same sampler", "Use same scheduler")


def second_pass(
    values: Mapping[str, str],
    first: Mapping[str, Any],
    spacing: Callable[[str, Mapping[str, str]], str | None],
) -> tuple[dict[str, Any], dict[str, str]]:
    """The options of the second pass, and the fields of it that are not followed; both empty where
    there is none.

    first: the options of the first pass. spacing: of the schedule that a field names.

    Its steps are those that are run, on a schedule of int(steps / strength) of them. Raises
    InputError for a field that is garbled.
    """
    if not {"Hires upscale", "Hires resize"} & values.keys():
        return {}, {}
    left: dict[str, str] = {}
    scale = _scale(values, first)
    run = number("Hires steps", values.get("Hires steps", "0"), int) or first.get("steps", 0)
    strength = number(STRENGTH, values.get(STRENGTH, "0.7"), float)
    if scale is None or not 0 < strength <= 1 or not 0 < run < 10_000:
        return {}, {name: values[name] for name in FIELDS if name in values}
    steps = int(run / min(strength, 0.999))
    share = min(1.0, math.ceil(run / steps * 1e6) / 1e6)
    label = values.get("Hires upscaler", "Latent")
    if label not in _ENLARGED:
        left["Hires upscaler"] = label
    options: dict[str, Any] = {
        "hires": scale,
        "hires_upscaler": _ENLARGED.get(label, "lanczos"),
        "hires_strength": share,
        "hires_steps": steps,
    }
    if (sampler := values.get("Hires sampler", _SAME[0])) not in _SAME:
        options["hires_scheduler"] = sampler
    named = values.get("Hires schedule type", _SAME[1]) not in _SAME
    if named and (laid := spacing("Hires schedule type", values)) is not None:
        options["hires_spacing"] = laid
    if "Hires CFG Scale" in values:
        cfg = number("Hires CFG Scale", values["Hires CFG Scale"], float)
        options |= {"hires_cfg": cfg} if cfg else {}  # 0: that of the first
    return options, left


def _scale(values: Mapping[str, str], first: Mapping[str, Any]) -> float | None:
    """By how much the first pass is enlarged; None where no factor of both sides says it."""
    if "Hires upscale" in values:
        return number("Hires upscale", values["Hires upscale"], float)
    sides = values["Hires resize"].split("x")
    if len(sides) != 2:
        raise InputError(f"Hires resize: {values['Hires resize']!r} is no width x height")
    large = [number("Hires resize", side, int) for side in sides]
    given = [first.get("width"), first.get("height")]
    if not all(given):
        return None
    scales = {new / old for new, old in zip(large, given, strict=True) if new}
    return scales.pop() if len(scales) == 1 else None
