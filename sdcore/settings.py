"""Everything that decided a picture: resolved once, and written into it.

What may be asked for is declared in `sdcore.picture_options`; `Settings` is what one picture was
drawn with.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Self, get_args

from sdcore.errors import InputError
from sdcore.picture_options import OPTIONS, Names, Options, Overlays, Size, Source
from sdcore.strict_json import parse

LISTS = ("sigmas:", "timesteps:")  # how a spacing begins that is a list


@dataclass(frozen=True, kw_only=True)
class Settings(Source, Overlays, Options):
    """What one picture was drawn with: enough to draw it again, equal to the bit.

    Nothing here is a default that is still to be filled in: every field holds what was used, in
    its written form. What has none, an object of a program, is named and called "(in memory)".
    """

    prompt: str
    negative: str | None  # None: none was given, and the model was told zeros (SDXL)
    seed: int
    model: str = field()  # as the user named it
    scheduler: str = field()
    spacing: str = field()
    eta: float | None = field()  # None where the solver has no such thing
    steps: int = field()
    cfg: float = field()
    width: int = field()
    height: int = field()
    device: str = field()
    dtype: str = field()
    version: str  # of sdcore
    # From here on a picture may have been written before the field was: absent means the default.
    grammar: str = "plain"
    clip_skip: int = 1
    tail: str | None = None
    guidance: str | None = None  # None: plain CFG
    noise: str = "independent"
    memory: str = "fast"
    engine: str = "plain"  # what ran: "plain", "fast" or "compile"
    ema: bool = False
    freeu: str | None = None
    lossy: str | None = None
    image: str | None = None
    mask: str | None = None
    canvas: str | None = None  # a digest of both, as they were scaled
    fit: str = "stretch"
    latents: str | None = None
    posterior: str = "sample"
    mask_blur: float = 0.0
    paste: bool = False
    hires_scheduler: str | None = None  # None: the first pass's
    hires_spacing: str | None = None
    refiner: str | None = None
    template: str | None = None  # what the prompt was drawn from, where it has wildcards
    changes: Names = ()  # "from sigma 3.2: cfg 5 -> 8": what was other in the steps above
    asked_memory: str | None = None  # the mode asked for, where memory ran out and `memory` went on
    around: str | None = None  # what a program laid around the model, by its name
    asked: Size | None = None  # the size asked for, where there was memory for a smaller one only
    digests: Names = ()  # "<digest> <name>" of every file that the picture was made of
    packages: Names = ()  # "NAME VERSION" of every installed package that a name above is of
    image_marks: Names = ()  # "NAME=TEXT": what the image says of its origin, `sdcore.marks`
    filters: Names = ()  # the written forms of those that looked at it, `sdcore.filters`
    flags: Names = ()  # the names of those that found something

    def held(self, memory: str, engine: str) -> Self:
        """The same drawn in another mode of memory, beside the mode that was asked for first."""
        if memory == self.memory:
            return replace(self, engine=engine)
        asked = self.memory if self.asked_memory is None else self.asked_memory
        return replace(self, memory=memory, engine=engine, asked_memory=asked)

    def to_json(self) -> str:
        """One ASCII line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; fields of a later version are left out.

        Raises InputError when it is no such text, or a field is missing or of another type.
        """
        try:
            raw = parse(text)
        except InputError as error:
            raise InputError(f"its settings are garbled: {error}") from None
        if not isinstance(raw, dict):
            raise InputError("its settings are garbled: no JSON object")
        lacking = [f.name for f in fields(cls) if f.default is MISSING and f.name not in raw]
        if lacking:
            raise InputError(f"its settings lack {lacking[0]!r}")
        there = {f.name: _checked(raw, f.name, f.type) for f in fields(cls) if f.name in raw}
        return cls(**there)


def inherited(old: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What a picture that is drawn anew takes over from the old one.

    old, given: by the names of the options; of what is asked for anew None and () are no answer.
    Not taken over is what belongs to something else that is chosen anew: `Option.goes_with`.
    """
    new = {name for name, value in given.items() if value not in (None, ())}
    other = {name for name in new if given[name] != old.get(name)}
    if str(given.get("spacing")).startswith(LISTS):  # a list says itself how many steps there are
        other.add("steps")
    return {
        name: old[name]
        for name, option in OPTIONS.items()
        if name in old and name not in new | other and other.isdisjoint(option.goes_with)
    }


def same_schedule(old: Settings, new: Settings) -> bool:
    """Whether both lay their sigmas alike, so that a state's index counts in either's."""
    second = ("hires_strength", "hires_steps", "hires_scheduler", "hires_spacing")
    names = ("scheduler", "spacing", "steps", "tail", *second)
    return all(getattr(old, name) == getattr(new, name) for name in names)


def _checked(raw: dict[str, Any], name: str, kind: Any) -> Any:
    value, kinds = raw[name], _kinds(kind)
    if type(value) is int and float in kinds:
        value = float(value)
    if (
        type(value) is list
        and kind == Names
        and all(type(v) is str and "\0" not in v for v in value)
    ):
        return tuple(value)
    if type(value) is list and Size in kinds and list(map(type, value)) == [int, int]:
        return tuple(value)
    if type(value) not in kinds or kind == Names or (type(value) is str and "\0" in value):
        raise InputError(f"its settings are garbled: {name} is {value!r}")
    return value


def _kinds(kind: Any) -> tuple[type, ...]:
    """The types in an annotation: float | None -> (float, NoneType)."""
    return get_args(kind) or (kind,)
