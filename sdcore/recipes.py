"""How a picture is drawn again by hand: as the command, and as a few lines of Python.

Both give the same picture, equal to the bit on the same machine with as many threads. A picture
that was changed on its way is several legs: the first begins it, each further one goes on from
where the one before was stopped.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, fields
from typing import Any

from sdcore.errors import InputError
from sdcore.options import Option
from sdcore.picture_options import OPTIONS, Source
from sdcore.settings import Settings
from sdcore.strengths import parse_lora
from sdcore.written_forms import is_in_memory

ALWAYS = ("scheduler", "spacing", "steps", "cfg")  # what a study is about, said or not
_SOURCE = tuple(each.name for each in fields(Source))
_OVER = ("loras", "embeddings")


@dataclass(frozen=True)
class Leg:
    """A run, or what is left of one, under the same settings.

    settings: as they were drawn. said: the names of the options that were asked for; the others are
    what these come to. stop_after: of how many steps; None: to its end.
    same_sigmas: whether it goes on in the sigmas of the leg before.
    """

    settings: Settings
    said: Set[str] = frozenset()
    stop_after: int | None = None
    same_sigmas: bool = False


def command(legs: Sequence[Leg]) -> str:
    """A line for each leg, for a shell of Unix; the last one draws the picture.

    Raises InputError for a seed that a command would read otherwise.
    """
    lines, before, state = [], None, ""
    whole = "".join(f"{leg.settings.to_json()}{leg.stop_after}" for leg in legs)
    digest = hashlib.sha256(whole.encode()).hexdigest()[:6]  # so that no two share a file
    for number, leg in enumerate(legs, 1):
        words = _begun(leg) if before is None else _resumed(before, leg, state)
        if leg.stop_after is not None:
            state = f"leg-{number}-{digest}.safetensors"
            words += ["--state", state, "--stop-after", str(leg.stop_after)]
        lines.append(shlex.join(words))
        before = leg.settings
    return "\n".join(lines)


def python(legs: Sequence[Leg], picture: str = "picture.png") -> str:
    """A program that writes the picture into the file of that name."""
    lines = ["import sdcore"] + ["from itertools import islice"] * (len(legs) > 1)
    lines += ["", f"sd = {_loaded(legs[0])}"]
    said: dict[str, None] = dict.fromkeys(ALWAYS)
    for number, leg in enumerate(legs):
        said |= dict.fromkeys(sorted(leg.said))
        prepared = f"sd.prepare({', '.join(_arguments(leg.settings, said))})"
        if number:
            prepared += f".resumed(step.state{', run.sigmas' * leg.same_sigmas})"
        steps = "run" if leg.stop_after is None else f"islice(run, {leg.stop_after})"
        lines += [f"run = {prepared}", f"*_, step = {steps}"]
    return "\n".join((*lines, f"run.decode(step.x_next)[0].save({picture!r})", ""))


# --- as a command --------------------------------------------------------------------------------


def _begun(leg: Leg) -> list[str]:
    settings = leg.settings
    dashed = settings.prompt.startswith("-")
    words = [f"--prompt={settings.prompt}" if dashed else settings.prompt]
    words += _negative(settings) + _seed(settings)
    return ["sdcore", "sample", *words, *_flags(leg, ("model", *ALWAYS, *sorted(leg.said)))]


def _resumed(before: Settings, leg: Leg, state: str) -> list[str]:
    """What is other from here on; the rest is in the state."""
    new = leg.settings
    words = [f"--prompt={new.prompt}"] if new.prompt != before.prompt else []
    words += _negative(new) if new.negative != before.negative else []
    words += _seed(new) if new.seed != before.seed else []
    other = [name for name in ALWAYS if getattr(before, name) != getattr(new, name)]
    return ["sdcore", "resume", state, *words, *_flags(leg, (*other, *sorted(leg.said)))]


def _seed(settings: Settings) -> list[str]:
    if settings.seed == -1:
        raise InputError("seed -1 is a random one on the command line: it has no command")
    return [f"--seed={settings.seed}"]


def _negative(settings: Settings) -> list[str]:
    return [] if settings.negative is None else [f"--negative={settings.negative}"]


def _flags(leg: Leg, names: Iterable[str]) -> list[str]:
    words: list[str] = []
    for name in dict.fromkeys(names):
        option, value = OPTIONS.get(name), _written(leg.settings, name)
        if option is None or value is None or name == "negative":
            continue
        flag = f"--{name.replace('_', '-')}" if option.flag is None else option.flag
        if option.kind is bool:
            words += [flag] if value else []
            continue
        for each in value if option.many else (value,):
            text = _typed(option, each)
            words += [f"{flag}={text}"] if text.startswith("-") else [flag, text]
    return words


def _typed(option: Option, value: Any) -> str:
    """As it is typed: 7.5, 1024x768, 0,0."""
    if option.kind in ("size", "corner"):
        return ("x" if option.kind == "size" else ",").join(map(str, value))
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


# --- as Python -----------------------------------------------------------------------------------


def _loaded(leg: Leg) -> str:
    settings = leg.settings
    places = [repr(settings.model)]
    places += [
        f"{name}={value!r}"
        for name in _SOURCE
        if name != "model" and name in leg.said
        if (value := getattr(settings, name)) is not None
    ]
    text = f"sdcore.load({', '.join(places)})"
    for spec in settings.embeddings:
        text += f".with_embedding({', '.join(map(repr, _embedding(spec)))})"
    for spec in settings.loras:
        path, unet, of_text = parse_lora(spec)
        strength = f"{unet}" if unet == of_text else f"unet={unet}, text={of_text}"
        text += f".with_lora({path!r}, {strength})"
    return text


def _embedding(spec: str) -> Iterator[str]:
    """Path, and word where one is named: "FILE:WORD"."""
    path, colon, word = spec.rpartition(":")
    named = colon and word and not set("/\\") & set(word)
    yield from (path, word) if named else (spec,)


def _arguments(settings: Settings, names: Iterable[str]) -> Iterator[str]:
    yield repr(settings.prompt)
    if settings.negative is not None:
        yield f"negative={settings.negative!r}"
    yield f"seeds=[{settings.seed}]"
    for name in names:
        if name in OPTIONS and name not in (*_SOURCE, *_OVER, "negative"):
            value = _written(settings, name)
            if value is not None:
                yield f"{name}={value!r}"


# --- both ----------------------------------------------------------------------------------------


def _written(settings: Settings, name: str) -> Any:
    """The option's value; of a picture in memory the file that it is to be saved as."""
    value = getattr(settings, name, None)
    if name == "model" and value == Source.model:
        return None
    if name in ("image", "mask") and is_in_memory(value):
        return f"{name}.png"
    return value
