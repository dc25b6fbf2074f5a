"""`sdcore rerun`: a picture once more, from the settings inside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdcore.cli.echo import tell
from sdcore.cli.jobs import jobs_of, ready, tagged_lora, told_seeds
from sdcore.cli.options import Drawing
from sdcore.cli.output import Output, form_of
from sdcore.cli.prompt_lists import Asked
from sdcore.cli.state import check_state
from sdcore.errors import InputError
from sdcore.picture_options import OPTIONS
from sdcore.settings import Settings, inherited
from sdcore.version import VERSION

if TYPE_CHECKING:
    from sdcore.a1111 import Infotext
    from sdcore.networks import Networks

_TEXTS = (".txt", ".md", "")  # endings of files that hold a text and no picture


@dataclass(frozen=True)
class Old:
    """What a picture says of itself."""

    prompt: str
    seed: int | None
    values: Mapping[str, Any]  # by the names of the options
    settings: Settings | None = None  # where it is one of ours
    left: tuple[str, ...] = ()  # a line for each thing that cannot be followed


@click.command(cls=Drawing)
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--prompt", metavar="TEXT", multiple=True, help="Other words.")
def rerun(picture: Path, prompt: tuple[str, ...], **options: Any) -> None:
    """Draw PICTURE again, equal to the bit on the same machine with as many threads.

    Any option overrides what the picture says. Another --scheduler comes with its own spacing and
    eta, another --model with what it predicts and is told, unless these are given too. A file of
    code that the picture names (a solver of one's own) is run only where you name it again.

    PICTURE may also be A1111's, or a text file with the same `parameters`: its model is looked for
    in --models, its adapters in --lora-dir too, and what cannot be followed is told.
    """
    from sdcore.extensions import absent
    from sdcore.trust import check_inherited

    old = _read(picture, options)

    def taken(chosen: Mapping[str, Any]) -> Mapping[str, Any]:
        over = inherited(old.values, chosen)
        check_inherited(over)
        return over

    asked = [Asked(each) for each in prompt or (old.prompt,)]
    jobs = jobs_of(asked, options, old.seed, taken, typed=bool(prompt))
    check_state(options, jobs)
    output = Output(options["out"], sum(map(len, jobs)), form_of(options))
    for change in () if old.settings is None else old.settings.changes:
        tell(f"{picture} was changed midway, {change}; this draws it whole as it ended")
    for name in () if old.settings is None else old.settings.filters:
        if not (options["filter"] or options["safety"]):
            tell(f"{picture} went through the filter {name}: name it to have it look again")
    if old.settings is not None and old.settings.around is not None:
        tell(f"{old.settings.around} lay around its model, and is not in it: drawn without")
    for package in () if old.settings is None else absent(old.settings.packages):
        tell(f"{picture} was drawn with the package {package}, which is not installed")
    for line in old.left:
        tell(line)

    from sdcore.cli.draw import draw

    draw(ready(jobs, _differences(old.settings)), output, options, told_seeds(jobs))


def _differences(old: Settings | None) -> Any:
    """What tells, of a first picture, why it may not come out as it did."""
    from sdcore.changes import since
    from sdcore.complete import changed, packages_changed

    told: set[str] = set()

    def look(networks: Networks, new: Settings) -> None:
        if old is None:
            return
        lines = [f"{name} has changed since" for name in changed(old, new)]
        lines += packages_changed(old, new)
        if old.version != VERSION:
            lines.append(f"drawn by sdcore {old.version}; this is {VERSION}")
            lines += since(old, networks.scheduler_config)
        for line in (each for each in lines if each not in told):
            tell(line)
        told.update(lines)

    return look


def _read(picture: Path, options: Mapping[str, Any]) -> Old:
    """What a picture, or a text, asks for. Raises InputError where it asks for nothing."""
    from sdcore.a1111 import read
    from sdcore.images import KEY, texts_of
    from sdcore.paths import path_of

    path = path_of(picture)
    if path.suffix.lower() in _TEXTS and path.is_file():
        try:
            texts = {"parameters": path.read_text("utf-8-sig")}
        except (OSError, UnicodeDecodeError):
            raise InputError(f"{path} is no picture and no UTF-8 text") from None
    else:
        texts = texts_of(path)
    try:
        if KEY in texts:
            old = Settings.from_json(texts[KEY])
            return Old(old.prompt, old.seed, vars(old), old)
        if "parameters" in texts:
            return _theirs(read(texts["parameters"]), options)
    except InputError as error:
        raise InputError(f"{path} cannot be drawn again: {error}") from None
    if "workflow" in texts or "prompt" in texts:
        raise InputError(
            f"{path} holds no sdcore settings but ComfyUI's graph, which sdcore inspect shows"
        )
    raise InputError(f"{path} holds no sdcore settings, and no `parameters` of A1111")


def _theirs(info: Infotext, options: Mapping[str, Any]) -> Old:
    """What another tool's text asks for, with the model and the adapters that are here."""
    values = {name: value for name, value in info.options.items() if name in OPTIONS}
    begun, unbegun = _begun(values, options)
    values = {name: value for name, value in values.items() if name not in _BEGUN} | begun
    values["negative"] = info.negative
    model, unmatched = ({}, []) if options["model"] else _model(info, options)
    loras, absent = [], []
    for tag in info.loras:
        try:
            loras.append(tagged_lora(tag, options, typed=False))
        except InputError as error:
            absent.append(f"{error}; drawn without it")
    seed = None if info.seed == -1 else info.seed
    left = (*info.warnings, *unbegun, *unmatched, *absent)
    return Old(info.prompt, seed, {**values, **model, "loras": tuple(loras)}, left=left)


_BEGUN = ("strength", "mask_blur")  # of a picture that began at another one


def _begun(
    values: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Where the picture began, if it began at another one: that is named by --image and --mask.

    And a line for what of it cannot be followed. Of N steps int(N * strength) + 1 are run there, on
    the likeliest of the latents, as near as its posterior is narrow.
    """
    strength, blur = (values.get(name) for name in _BEGUN)
    images, masks = options["image"], options["mask"]
    begun: dict[str, Any] = {}
    left: list[str] = []
    if blur is not None and len(masks) == 1:
        begun |= {"mask": masks[0], "mask_blur": blur}
    elif blur is not None:
        left.append(f"Mask blur: {blur:g} is not followed: give the mask, --mask")
    if strength is None:
        return begun, left
    if len(images) != 1:
        left.append(
            f"Denoising strength: {strength:g} is not followed: give the picture that it began "
            "from, --image"
        )
        return begun, left
    steps = values.get("steps")
    if options["steps"] or steps is None:
        where = {"strength": strength}
    else:
        where = {"start_step": max(0, steps - int(min(strength, 0.999) * steps) - 1)}
    return {**begun, "image": images[0], "posterior": "mode", **where}, left


def _model(info: Infotext, options: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """The model of the picture, if it is among the files of --models; and a line where it is not,
    or is another one of its name."""
    from sdcore.checkpoints.find import bundled_models
    from sdcore.checkpoints.library import model_of

    if info.model is None and info.model_hash is None:
        return {}, []
    if info.model in bundled_models():
        return {"model": info.model}, []
    label = f"Model: {info.model or 'of no name'}"
    label += "" if info.model_hash is None else f" (hash {info.model_hash})"
    found = model_of(info.model, info.model_hash, options["models"])
    if found is None:
        return {}, [f"{label} is not here: name it by --model, or its folder by --models"]
    path, same = found
    other = info.model_hash is not None and not same
    return {"model": str(path)}, [f"{label}: {path} has its name and another hash"] * other
