"""The `info` of an answer of A1111's API, and what a picture says of itself."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdcore.a1111 import parameters
from sdcore.a1111 import read as read_text
from sdcore.errors import InputError
from sdcore.images import texts_of
from sdcore.server.a1111.fields import ImageToImage, TextToImage
from sdcore.server.a1111.requests import Wanted
from sdcore.server.asked import picture
from sdcore.server.limits import Limits
from sdcore.version import VERSION

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdcore.drawing import Drawn


def info_of(
    asked: TextToImage | ImageToImage,
    how: Wanted,
    done: Sequence[Drawn],
    cut: int,
    notes: Sequence[str],
) -> str:
    """A JSON document, which the answer holds as a text.

    done: what was drawn to its end; cut: how many pictures behind these were not.
    """
    first = how.fields[0]
    count = len(done) + cut
    prompt, negative = first["prompt"], first["negative"]
    seeds = [one.settings.seed for one in done]
    seeds += [each["seed"] for each in how.fields if each["seed"] not in seeds][:cut]
    width, height = done[0].size if done else (first["width"], first["height"])
    subseeds = [int(str(each.get("variation", "-1:")).partition(":")[0]) for each in how.fields]
    told = {
        "prompt": prompt,
        "all_prompts": [prompt] * count,
        "negative_prompt": negative,
        "all_negative_prompts": [negative] * count,
        "seed": seeds[0] if seeds else first["seed"],
        "all_seeds": seeds,
        "subseed": subseeds[0],
        "all_subseeds": subseeds[:count],
        "subseed_strength": asked.subseed_strength or 0,
        "width": width,
        "height": height,
        "sampler_name": asked.sampler_name or asked.sampler_index or "Euler",
        "cfg_scale": first["cfg"],
        "steps": first["steps"],
        "batch_size": asked.batch_size or 1,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": first["model"],
        "sd_model_hash": None,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": first.get("strength", first.get("hires_strength")),
        "extra_generation_params": {"Schedule type": asked.scheduler or "Automatic"},
        "index_of_first_image": 0,
        "infotexts": [parameters(one.settings) for one in done] + [""] * cut,
        "styles": [],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S"),
        "clip_skip": first["clip_skip"],
        "is_using_inpainting_conditioning": False,
        "version": f"sdcore {VERSION}",
        "warnings": list(notes),
        "flags": [list(one.flags) for one in done],
    }
    return json.dumps(told)


def interrupted_file(image: Image) -> bytes:
    """A PNG without settings: drawn again by these it would be another."""
    from sdcore.images import to_bytes

    return to_bytes(image)


def read_info(data: str, limits: Limits) -> dict[str, Any]:
    """What png-info answers of a picture in base64. Raises Refused for what is none."""
    texts = texts_of(picture("image", data, limits))
    text = texts.get("parameters", "")
    try:
        told = read_text(text)
        more = {"Negative prompt": told.negative, "Seed": told.seed, "Model": told.model}
        options = {"Prompt": told.prompt, **told.options, **more, **told.left}
    except InputError:
        options = {}
    items = {name: value for name, value in texts.items() if name != "parameters"}
    return {"info": text, "items": items, "parameters": options}
