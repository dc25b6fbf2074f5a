"""A1111's requests in sdcore's words.

Sampler, schedule, churn and second pass go the way of the text in A1111's pictures
(`sdcore.a1111.read`): what a request asks for and what a picture of it says are read alike.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sdcore.a1111 import SCHEDULES, untagged
from sdcore.a1111 import read as read_text
from sdcore.errors import InputError
from sdcore.fitting import to_rgb
from sdcore.interop.installed import names_an_extension
from sdcore.schedulers import TOOLS, resolve
from sdcore.server.a1111_fields import Drawn, ImageToImage, TextToImage
from sdcore.server.asked import MAX_SEED, picture
from sdcore.server.limits import Limits
from sdcore.server.models import Models
from sdcore.server.refusals import Missing, Refused
from sdcore.server.repainting import Region, filled, inverted, region_of
from sdcore.written import names_a_file

if TYPE_CHECKING:
    from PIL.Image import Image

FITS = ("stretch", "crop", "pad")  # by resize_mode
LABELS = {  # of schedules, by their names in the API
    label.casefold().replace(" ", "_"): label
    for name, label in SCHEDULES.items()
    if name in TOOLS["a1111"].spacings
}
SAME = {  # values of theirs that say what is done here anyway
    "sd_vae": ("automatic", "none"),
    "randn_source": ("cpu",),
    "eta_noise_seed_delta": ("0", "0.0"),
}
HARMLESS = (  # settings of theirs that change no picture here
    *(
        "samples_format",
        "samples_save",
        "grid_save",
        "save_images_add_number",
        "sd_checkpoint_hash",
    ),
    *("enable_pnginfo", "send_images", "return_grid", "do_not_show_images", "save_to_dirs"),
    *("live_previews_enable", "show_progress_every_n_steps", "show_progress_type"),
)


@dataclass(frozen=True)
class Preferences:
    """What POST /sdapi/v1/options chose: of the requests that do not say otherwise."""

    model: str
    clip_skip: int = 1


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
    chosen, left = _preferred(asked, models, preferences)
    left |= _refused(asked)
    fields, more = _sampling(asked)
    left |= more
    region = None
    if isinstance(asked, ImageToImage):
        start, region, more = _start(asked, limits, (fields["width"], fields["height"]))
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


# --- settings ------------------------------------------------------------------------------------


def preferred(
    given: Mapping[str, Any], models: Models, old: Preferences
) -> tuple[Preferences, dict[str, str]]:
    """The preferences with A1111's settings over them, and a line for each that is not followed."""
    new, left = old, {}
    for name, value in given.items():
        if value is None or value == "" or name in HARMLESS:
            continue
        if name == "sd_model_checkpoint":
            new = replace(new, model=model_titled(str(value), models))
        elif name == "CLIP_stop_at_last_layers":
            whole = isinstance(value, int | float) and not isinstance(value, bool)
            if not whole or value not in range(1, 13):
                raise Refused(f"{name} is 1 to 12", param=name)
            new = replace(new, clip_skip=int(value))
        elif str(value).casefold() in SAME.get(name, ()):
            continue
        else:
            left[name] = f"the setting {name[:80]} is not followed"
    return new, left


def _preferred(
    asked: Drawn, models: Models, old: Preferences
) -> tuple[Preferences, dict[str, str]]:
    new, left = preferred(asked.override_settings or {}, models, old)
    if asked.clip_skip not in (None, 0) and "CLIP_stop_at_last_layers" not in (
        asked.override_settings or {}
    ):
        new, _ = preferred({"CLIP_stop_at_last_layers": asked.clip_skip}, models, new)
    return new, left


def model_titled(title: str, models: Models) -> str:
    """The model of a title, "name.safetensors [hash]" or a name. Raises Missing."""
    name = re.sub(r"\s*\[[0-9a-fA-F]+\]\s*$", "", title)
    for ending in ("", ".safetensors", ".ckpt"):
        if ending and not name.casefold().endswith(ending):
            continue
        try:
            return models.model_named(name[: len(name) - len(ending)] if ending else name)
        except Missing as error:
            missing = error
    raise missing


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


# --- how it is drawn -----------------------------------------------------------------------------


def _sampling(asked: Drawn) -> tuple[dict[str, Any], dict[str, str]]:
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


# --- from a picture ------------------------------------------------------------------------------


def _start(
    asked: ImageToImage, limits: Limits, size: tuple[int, int]
) -> tuple[dict[str, Any], Region | None, dict[str, str]]:
    """What is said of the picture to start from, and of its mask."""
    pictures = asked.init_images or []
    if len(pictures) != 1:
        raise Refused(f"init_images holds {len(pictures)} pictures: one is wanted",
                      param="init_images")  # fmt: skip
    mode = asked.resize_mode or 0
    if not 0 <= mode < len(FITS):
        raise Refused("resize_mode is 0, 1 or 2", param="resize_mode")
    given = picture("init_images", pictures[0], limits)
    strength = 0.75 if asked.denoising_strength is None else asked.denoising_strength
    fields: dict[str, Any] = {"image": given, "strength": strength, "fit": FITS[mode]}
    if not asked.mask:
        return fields, None, {}
    blur, mask = _mask(asked, limits)
    original = image = to_rgb(given)  # upright, as the mask is
    if mask.size != image.size:
        mask = mask.resize(image.size)
    if asked.inpainting_fill in (None, 0):
        fields["image"] = image = filled(image, mask)
    fields |= {"mask": mask, "paste": True}
    if asked.inpaint_full_res is False:
        return fields | ({"mask_blur": blur} if blur else {}), None, {}
    padding = asked.inpaint_full_res_padding or 0
    if not 0 <= padding <= limits.side:
        raise Refused(f"inpaint_full_res_padding is 0 to {limits.side} pixels",
                      param="inpaint_full_res_padding")  # fmt: skip
    region = region_of(original, mask, blur, padding, size)
    if region is None:
        raise Refused("the mask is black: nothing is repainted", param="mask")
    inner = {"image": region.cut(image), "mask": region.cut(mask), "fit": "stretch"}
    return {**fields, **inner, "paste": False}, region, {}


def _mask(asked: ImageToImage, limits: Limits) -> tuple[float, Image]:
    """How it is blurred, and the mask itself: white where it is repainted."""
    sides = {4.0 if side is None else side for side in (asked.mask_blur_x, asked.mask_blur_y)}
    if asked.mask_blur is None and len(sides) > 1:
        raise Refused("mask_blur_x and mask_blur_y are the same", param="mask_blur_x")
    blur = asked.mask_blur if asked.mask_blur is not None else sides.pop()
    if not 0 <= blur <= 256:
        raise Refused("mask_blur is 0 to 256 pixels", param="mask_blur")
    mask = to_rgb(picture("mask", asked.mask, limits), "black").convert("L")
    return blur, inverted(mask) if asked.inpainting_mask_invert else mask
