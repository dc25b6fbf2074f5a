"""What A1111 calls options or settings: which are followed here, and what they chose."""

# pyright: reportMissingImports=false

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sdcore.server.a1111.fields import Drawn
from sdcore.server.models import Models
from sdcore.server.refusals import Missing, Refused

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


def of_request(
    asked: Drawn, models: Models, old: Preferences
) -> tuple[Preferences, dict[str, str]]:
    """Those of one request: its own settings over the others."""
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
