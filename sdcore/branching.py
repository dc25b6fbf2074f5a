"""From where one run stands on under other settings: what may be changed, and what is then said."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import fields, replace

from sdcore.errors import InputError
from sdcore.picture_options import EXTRA, OPTIONS, START, Options
from sdcore.sampling import State
from sdcore.settings import Settings

# What a run began with, and cannot be changed on its way.
BEGUN = ("model", "unet", "vae", "variant", "revision", "ema", "width", "height", "refiner")


def fixed() -> Set[str]:
    """The options that a run began with, by name."""
    started = {name for name, option in OPTIONS.items() if option.group in (START, EXTRA)}
    return {*BEGUN, *started} - {"handover"}


def check_draws(old: Settings, seed: int, pictures: int, found: bool) -> None:
    """Raises InputError for another seed where the draws that are left are not one seed's.

    pictures: how many are drawn at once. found: whether the draws were found, and are no seed's.
    """
    if seed != old.seed and (pictures > 1 or found):
        whose = "these draws were found in a picture" if found else f"it is {pictures} pictures"
        raise InputError(f"--seed is what it began with, and cannot be changed midway: {whose}")


def gone_on(
    old: Settings,
    shared: Settings,
    state: State,
    *,
    seed: int | None = None,
    asked: tuple[str, str | None] | None = None,
    negative: str | None = None,
) -> Settings:
    """The settings of a picture for the steps that are left, with what is changed and where.

    shared: the completed settings of those steps, of whatever prompt and seed.
    seed: of the draws that are left; None: as it began.
    asked: another prompt, and what it was drawn from. negative: another one; None: as it was.
    """
    prompt, template = (old.prompt, old.template) if asked is None else asked
    new = replace(
        shared,
        prompt=prompt,
        negative=old.negative if negative is None else negative,
        seed=old.seed if seed is None else seed,
        template=template,
        asked=old.asked,
    )
    options = (f.name for f in fields(Options))
    names = ["prompt", "negative", "seed", *options, "loras", "embeddings"]
    said = [
        f"{name} {getattr(old, name)} -> {getattr(new, name)}"
        for name in names
        if getattr(old, name) != getattr(new, name)
    ]
    where = "" if state.sigma is None else f"from sigma {state.sigma:.4g}: "
    return replace(new, changes=(*old.changes, *([where + ", ".join(said)] if said else [])))
