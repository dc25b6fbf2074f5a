"""A1111's requests in sdcore's words: one thing to draw for each picture."""

# pyright: reportMissingImports=false

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdcore.a1111 import untagged
from sdcore.server.a1111.fields import Drawn, ImageToImage, TextToImage
from sdcore.server.a1111.preferences import Preferences, of_request
from sdcore.server.a1111.repainting import Region
from sdcore.server.a1111.samplers import sampling
from sdcore.server.a1111.starting import started
from sdcore.server.asked import MAX_SEED
from sdcore.server.limits import Limits
from sdcore.server.models import Models
from sdcore.server.refusals import Refused


@dataclass(frozen=True)
class Wanted:
    """One request, as one thing to draw for each picture."""

    fields: tuple[Mapping[str, Any], ...]  # as `asked.read` takes them
    notes: tuple[str, ...] = ()  # what was not followed
    region: Region | None = None  # where only a part of a picture is drawn
    preferences: Preferences | None = None  # where they stay


def wanted(
    asked: TextToImage | ImageToImage,
    models: Models,
    limits: Limits,
    preferences: Preferences,
    lenient: bool = False,
) -> Wanted:
    """What a request asks for. Raises Refused, naming the field that cannot be honoured.

    lenient: such a field is left, and a note says so.
    """
    chosen, left = of_request(asked, models, preferences)
    left |= _refused(asked)
    fields, more = sampling(asked)
    left |= more
    region = None
    if isinstance(asked, ImageToImage):
        start, region, more = started(asked, limits, (fields["width"], fields["height"]))
        fields |= start
        left |= more
    if left and not lenient:
        raise Refused("; ".join(left.values()), param=next(iter(left)))
    words = {"prompt": _prompt(asked), "negative": asked.negative_prompt or ""}
    named = {"model": chosen.model, "embeddings": _embeddings(words.values(), models)}
    fields |= {**words, **named, "grammar": "a1111", "clip_skip": chosen.clip_skip}
    fields |= {"tile": "xy"} if asked.tiling else {}
    return Wanted(
        tuple({**fields, **own} for own in _seeds(asked, limits)),
        (*left.values(), *_without_effect(asked)),
        region,
        chosen if asked.override_settings_restore_afterwards is False else None,
    )


def _prompt(asked: Drawn) -> str:
    """Without the adapters that it names, where the request wants none."""
    prompt = asked.prompt or ""
    return untagged(prompt)[0] if asked.disable_extra_networks else prompt


def _without_effect(asked: Drawn) -> list[str]:
    """A line for what clients send by habit, and what changes no picture of these models."""
    edits = isinstance(asked, ImageToImage) and asked.image_cfg_scale is not None
    return ["image_cfg_scale is of models that edit by instruction: not followed"] if edits else []


def _refused(asked: Drawn) -> dict[str, str]:
    """A line for each field that is set and cannot be honoured."""
    scripts = [name for name, args in (asked.alwayson_scripts or {}).items() if _acts(args)]
    set_to = {
        "styles": bool(asked.styles),
        "restore_faces": asked.restore_faces,
        "script_name": bool(asked.script_name),
        "alwayson_scripts": bool(scripts),
        "infotext": bool(asked.infotext),
        "refiner_checkpoint": (asked.refiner_checkpoint or "None") != "None",
        "seed_resize_from_w": (asked.seed_resize_from_w or 0) > 0,
        "seed_resize_from_h": (asked.seed_resize_from_h or 0) > 0,
        "s_min_uncond": (asked.s_min_uncond or 0) > 0,
    }
    if isinstance(asked, TextToImage):
        second = bool(asked.enable_hr)
        set_to |= {
            "hr_checkpoint_name": second and (asked.hr_checkpoint_name or "Use same checkpoint")
            not in ("Use same checkpoint", "None"),
            "hr_prompt": second and (asked.hr_prompt or asked.prompt) != asked.prompt,
            "hr_negative_prompt": second
            and (asked.hr_negative_prompt or asked.negative_prompt) != asked.negative_prompt,
            "firstphase_width": second and bool(asked.firstphase_width),
        }  # fmt: skip
    elif isinstance(asked, ImageToImage):
        set_to["inpainting_fill"] = bool(asked.mask) and asked.inpainting_fill in (2, 3)
    return {name: f"{name} cannot be honoured: leave it out" for name, on in set_to.items() if on}


def _acts(args: Any) -> bool:
    """Whether a script is on: an argument list of [False] or of nothing is off."""
    given = args.get("args", args) if isinstance(args, dict) else args
    return bool(given) and given != [False]


def _seeds(asked: Drawn, limits: Limits) -> list[dict[str, Any]]:
    """For each picture its seed; with a variation the same seed, and another one to vary by."""
    count = (1 if asked.batch_size is None else asked.batch_size) * (
        1 if asked.n_iter is None else asked.n_iter
    )
    if not 1 <= count <= limits.pictures:
        raise Refused(f"{count} pictures: 1 to {limits.pictures} are drawn at once",
                      param="batch_size")  # fmt: skip
    seed, subseed = (
        secrets.randbits(32) if given in (None, -1) else int(given)
        for given in (asked.seed, asked.subseed)
    )
    strength = asked.subseed_strength or 0.0
    if not 0 <= strength <= 1:
        raise Refused("subseed_strength is 0 to 1", param="subseed_strength")
    if not strength:
        return [{"seed": seed + n} for n in range(count)]
    if not 0 <= subseed <= MAX_SEED - count:
        raise Refused("subseed is out of range", param="subseed")
    return [
        {"seed": seed, "variation": f"{subseed + n}:{strength:g}:columns"} for n in range(count)
    ]


def _embeddings(texts: Any, models: Models) -> list[str]:
    """The learned words that stand in these texts."""
    whole = " ".join(texts)
    return [name for name in models.embeddings
            if re.search(rf"(?<!\w){re.escape(models.word_of(name))}(?!\w)", whole, re.IGNORECASE)
            ]  # fmt: skip
