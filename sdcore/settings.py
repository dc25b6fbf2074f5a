"""Everything that decides a picture, resolved once, and its written form."""

import json
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Self, TypedDict, get_args

from sdcore.errors import InputError
from sdcore.strict_json import parse

Size = tuple[int, int]
Names = tuple[str, ...]


class Source(TypedDict, total=False):
    """Where the networks come from beside the model's name, as `load` takes it."""

    vae: str | None
    unet: str | None
    text_encoder: str | None
    text_encoder_2: str | None
    variant: str | None
    revision: str | None
    ema: bool


class Told(TypedDict, total=False):
    """What SDXL and its refiner are told of the picture, as `prepare` takes it."""

    original_size: Size | None
    crop: Size | None
    target_size: Size | None
    aesthetic_score: float | None
    negative_aesthetic_score: float | None


@dataclass(frozen=True)
class Settings:
    """What one picture was drawn with: enough to draw it again, equal to the bit.

    Nothing here is a default that is still to be filled in: every field holds what was used.
    """

    prompt: str
    negative: str | None  # None: none was given, and the model was told zeros (SDXL)
    seed: int
    model: str  # as the user named it: a bundled name, a folder, a file, a hub id
    scheduler: str  # the engine's own name of the solver
    spacing: str
    eta: float | None  # share of fresh noise a step; None where the solver has no such thing
    steps: int
    cfg: float  # guidance scale: 1 is off, 0 is the negative prompt alone
    width: int  # pixels
    height: int
    device: str
    dtype: str  # of the networks; latents are float32 throughout
    version: str  # of sdcore
    # From here on a picture may have been written before the field was: absent means the default.
    grammar: str = "plain"  # how the prompts are read: "plain", "a1111"
    loras: Names = ()  # path:strength, as `--lora` takes it
    embeddings: Names = ()  # path:word, as `--embedding` takes it
    tail: str | None = None  # where the last step goes; None: where the spacing says
    clip_skip: int = 1  # the text encoder's layer, counted from the one it was trained with
    prediction_type: str | None = None  # of the UNet; None: as the model says
    original_size: Size | None = None  # what SDXL is told of the picture: (width, height), pixels
    crop: Size | None = None  # (left, top)
    target_size: Size | None = None
    aesthetic_score: float | None = None  # what its refiner is told
    negative_aesthetic_score: float | None = None
    image: str | None = None  # what an inpainting model repaints: a path
    mask: str | None = None  # white where it does
    canvas: str | None = None  # a digest of both
    refiner: str | None = None  # the model that draws below the hand-over
    handover: float | None = None  # sigma
    memory: str = "fast"  # the mode of the networks: `sdcore.memory`
    asked: Size | None = None  # the size asked for, where there was memory for a smaller one only
    noise: str = "independent"  # how the draws of a stochastic solver hang together, or "brownian"
    vae: str | None = None  # components from elsewhere: files, folders, hub ids
    unet: str | None = None
    text_encoder: str | None = None
    text_encoder_2: str | None = None
    variant: str | None = None  # of a folder's weights: fp16, non_ema
    revision: str | None = None  # of a hub id
    ema: bool = False  # of a single file, the averaged weights

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
        there = [field for field in fields(cls) if field.name in raw]
        return cls(**{field.name: _checked(raw, field.name, field.type) for field in there})


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
