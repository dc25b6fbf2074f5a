"""The one way from what a request says to what is drawn, which every face takes.

Its words are those of `sdcore.settings`: prompt, negative, seed, and the options by their names. A
request names models, adapters and learned words of the server's lists; nothing in it is taken for a
path, an address or a file of code.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from sdcore.a1111 import untagged
from sdcore.errors import unknown
from sdcore.fitting import extended_size, read_sides, to_rgb
from sdcore.interop.installed import names_an_extension
from sdcore.options import options_of
from sdcore.picture_options import Options, Words
from sdcore.request import Request
from sdcore.server.limits import Limits
from sdcore.server.models import Choice, Loras, Models
from sdcore.server.refusals import Refused
from sdcore.settings import Settings
from sdcore.trust import is_elsewhere
from sdcore.written import names_a_file

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdcore.inpainting import Canvas

FORMATS = ("PNG", "JPEG", "WEBP")  # of pictures in requests
LETTERS = 500  # of a written form
OTHERS = {"latents": "noise in a file is for the command line and for Python"}
_OPTIONS = options_of(Words, Options)
FIELDS = (  # that `read` takes beside words and a model
    *(each.name for each in fields(Options) if each.name not in OTHERS),
    *("negative", "loras", "embeddings", "refiner", "fallback"),
)
_DATA = re.compile(r"data:image/[\w.+-]{1,20};base64,", re.IGNORECASE)
_DIGITS = re.compile(r"-?[0-9]{1,20}")  # a seed as a text: JavaScript rounds above 2^53
MIN_SEED, MAX_SEED = -(2**63), 2**64 - 1


@dataclass(frozen=True)
class Asked:
    """A request that was checked: what is to be drawn, and with which networks."""

    choice: Choice
    request: Request
    refiner: str | None = None  # a model's name
    smaller: bool = False  # whether a smaller picture is better than none where memory runs out

    @property
    def pictures(self) -> int:
        """How many there will be."""
        prompts, seeds = self.request.prompts, self.request.seeds
        of_prompts = 1 if isinstance(prompts, str) else len(prompts)
        return of_prompts * (1 if isinstance(seeds, int) else len(seeds))


def read(given: Mapping[str, Any], models: Models, limits: Limits) -> Asked:
    """A request in sdcore's own words, checked as far as it can be without the networks.

    given: prompt or prompts, negative, seed or seeds, count; model, loras ("name" or "name:0.8"),
        embeddings, refiner, fallback ("size"); any of the options of `prepare` but latents. image
        and mask: base64, a data URL or a picture in memory. What is None is left out. Without a
        seed, and with -1, one is drawn; count: so many from the seed on.

    Raises Refused, naming the field: 422, and 404 for a name that is not in the lists.
    """
    there = {name: value for name, value in given.items() if value is not None}
    for name, of in (("prompts", "prompt"), ("seeds", "seed")):
        if of in there:
            if name in there:
                raise Refused(f"{of} and {name} say the same: give one", param=of)
            there[name] = there.pop(of)
    names = ("model", "loras", "embeddings", "fallback", "count")
    beside = {name: there.pop(name, None) for name in names}
    refiner = there.pop("refiner", None)
    for name in there:
        if name in OTHERS:
            raise Refused(f"{name} is not taken: {OTHERS[name]}", param=name)
        if name not in _OPTIONS:
            raise Refused(str(unknown("field", name, [*_OPTIONS, *beside])), param=name)
    values = {name: _value(name, value, limits) for name, value in there.items()}
    if not values.get("prompts", ()) and values.get("prompts") != "":
        raise Refused("prompt is missing: a text", param="prompt")
    _check_extended(values, limits)
    values["seeds"] = _seeds(values.get("seeds"), beside.pop("count"), limits)
    words, tags = _untagged(values, models)
    choice = _choice(beside, tags, models)
    asked = Asked(
        choice,
        Request(**{**values, **words}),
        None if refiner is None else models.model_named(_text("refiner", refiner, limits)),
        smaller=_fallback(beside["fallback"]),
    )
    if not 1 <= asked.pictures <= limits.pictures:
        raise Refused(f"{asked.pictures} pictures: 1 to {limits.pictures} are drawn at once")
    return asked


def _seeds(seeds: Sequence[int] | None, count: Any, limits: Limits) -> tuple[int, ...]:
    given = [-1] if seeds is None else seeds
    drawn = [secrets.randbits(32) if seed == -1 else seed for seed in given]
    if count is None:
        return tuple(drawn)
    count = _whole("count", count, 1, limits.pictures)
    if len(drawn) > 1:
        raise Refused("count goes with one seed", param="count")
    return tuple(_whole("seed", drawn[0] + n, MIN_SEED, MAX_SEED) for n in range(count))


def _fallback(value: Any) -> bool:
    if value not in (None, "size"):
        raise Refused('fallback allows a smaller picture, "size"', param="fallback")
    return value == "size"


# --- values --------------------------------------------------------------------------------------


def _value(name: str, value: Any, limits: Limits) -> Any:
    """The value of an option in its type and within the limits."""
    if name in ("prompts", "negative"):
        texts = value if isinstance(value, list | tuple) else [value]
        checked = tuple(_text(name.removesuffix("s"), each, limits) for each in texts)
        return checked if isinstance(value, list | tuple) else checked[0]
    if name == "seeds":
        seeds = value if isinstance(value, list | tuple) else [value]
        whole = [int(each) if isinstance(each, str) and _DIGITS.fullmatch(each) else each
                 for each in seeds]  # fmt: skip
        return tuple(_whole("seed", each, MIN_SEED, MAX_SEED) for each in whole)
    if name == "towards":
        return _text(name, value, limits)
    if name in ("image", "mask"):
        return picture(name, value, limits)
    kind = _OPTIONS[name][1].kind
    if kind is int:
        most = limits.steps if "step" in name else limits.side
        return _whole(name, value, 0 if name == "start_step" else 1, most)
    if kind is float:
        return _number(name, value)
    if kind is bool:
        if not isinstance(value, bool):
            raise Refused(f"{name} is true or false", param=name)
        return value
    if kind in ("size", "corner"):
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise Refused(f"{name} is two whole numbers", param=name)
        return tuple(_whole(name, each, 0, limits.side * 4) for each in value)
    if name == "tail" and not isinstance(value, str):
        return _number(name, value)
    return _written(name, _text(name, value, limits))


def _written(name: str, text: str) -> str:
    """A name with options, and no file."""
    if len(text) > LETTERS:
        raise Refused(f"{name} has {len(text)} letters: at most {LETTERS} are read", param=name)
    if names_a_file(text) or is_elsewhere(text):
        raise Refused(f"{name} names a file: over HTTP there are registered names only", param=name)
    if names_an_extension(text):
        said = f"{name} names what a package has installed, which is not run over HTTP"
        raise Refused(said, param=name)
    return text


def _text(name: str, value: Any, limits: Limits) -> str:
    if not isinstance(value, str):
        raise Refused(f"{name} is a text", param=name)
    if len(value) > limits.text:
        raise Refused(
            f"{name} has {len(value)} letters: at most {limits.text} are read", param=name
        )
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Refused(f"{name} holds a NUL, or half of a surrogate pair", param=name)
    return value


def _whole(name: str, value: Any, least: int, most: int) -> int:
    """A whole number, also as JavaScript writes it: 20.0."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or not abs(value) <= 2**64 or value != int(value):  # neither NaN nor infinite
        raise Refused(f"{name} is a whole number", param=name)
    if not least <= value <= most:
        raise Refused(f"{name} is out of range: {least} to {most}", param=name)
    return int(value)


def _number(name: str, value: Any) -> float:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if not plain or abs(value) > 1e9:  # also of a whole number too large for a float
        raise Refused(f"{name} is a number, -1e9 to 1e9", param=name)
    if not math.isfinite(value):
        raise Refused(f"{name} is a finite number", param=name)
    return float(value)


def picture(name: str, value: Any, limits: Limits) -> Image:
    """A picture of a request, with all its pixels read. Raises Refused.

    value: base64 of a PNG, JPEG or WebP file, with or without data:image/...;base64, before it; the
    bytes of such a file; or a picture. An address is not followed.
    """
    from PIL import Image

    if isinstance(value, Image.Image):
        return value
    raw = value if isinstance(value, bytes) else _from_base64(name, value)
    if not raw:
        raise Refused(f"{name} is empty", param=name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bombs: the limit below is lower
            opened = Image.open(io.BytesIO(raw), formats=FORMATS)
        width, height = opened.size
        if width * height > limits.decoded:
            raise Refused(
                f"{name} has {width}x{height} pixels: at most {limits.decoded} are read", param=name
            )
        opened.load()
    except Refused:
        raise
    except Exception:  # on a garbled file Pillow's readers raise whatever they stumble on
        raise Refused(f"{name} is no picture ({', '.join(FORMATS)})", param=name) from None
    return opened


def _check_extended(values: Mapping[str, Any], limits: Limits) -> None:
    """Raises Refused where the picture with what is painted beside it has too many pixels."""
    image, extend = values.get("image"), values.get("extend")
    if image is None or extend is None:
        return
    width, height = extended_size(to_rgb(image).size, read_sides(extend))
    if width * height > limits.decoded:
        raise Refused(
            f"extend makes a picture of {width}x{height} pixels: at most {limits.decoded} in all",
            param="extend",
        )


def _from_base64(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise Refused(f"{name} is a picture in base64", param=name)
    begins = _DATA.match(value)
    data = value[begins.end() :] if begins else value
    if data[:100].lstrip()[:8].casefold().startswith(("http:", "https:", "file:", "ftp:")):
        raise Refused(f"{name} is an address: send the picture itself, in base64", param=name)
    try:
        return base64.b64decode(re.sub(r"\s+", "", data), validate=True)
    except (binascii.Error, ValueError):
        raise Refused(f"{name} is no base64", param=name) from None


# --- networks ------------------------------------------------------------------------------------


def _untagged(values: Mapping[str, Any], models: Models) -> tuple[dict[str, Any], Loras]:
    """The prompts without the adapters that they name, and these; in the a1111 grammar alone."""
    prompts = values["prompts"]
    texts = (prompts,) if isinstance(prompts, str) else prompts
    if values.get("grammar") != "a1111" or not any("<" in text for text in texts):
        return {}, ()
    try:
        said = [untagged(text) for text in texts]
    except ValueError as error:
        raise Refused(str(error), param="prompt") from None
    if len({tags for _, tags in said}) > 1:
        raise Refused("the prompts of one request name the same adapters", param="prompt")
    tags = tuple((models.lora_named(name), unet, text) for name, unet, text in said[0][1])
    words = tuple(text for text, _ in said)
    return {"prompts": words[0] if isinstance(prompts, str) else words}, tags


def _choice(beside: Mapping[str, Any], tags: Loras, models: Models) -> Choice:
    model = beside["model"]
    if model is not None and not isinstance(model, str):
        raise Refused("model is a name", param="model")
    loras = tuple(_lora(spec, models) for spec in _list("loras", beside["loras"]))
    words = _list("embeddings", beside["embeddings"])
    return Choice(
        models.model_named(model),
        (*loras, *tags),
        tuple(dict.fromkeys(models.embedding_named(each) for each in words)),
    )


def _lora(spec: str, models: Models) -> tuple[str, float, float]:
    from sdcore.strengths import parse_lora

    try:
        name, unet, text = parse_lora(spec)
    except ValueError as error:
        raise Refused(str(error), param="loras") from None
    for strength in (unet, text):
        if not abs(strength) <= 100:
            raise Refused(f"a strength of {strength:g}: -100 to 100", param="loras")
    return models.lora_named(name), unet, text


def _list(name: str, value: Any) -> tuple[str, ...]:
    texts = () if value is None else value if isinstance(value, list | tuple) else (value,)
    if len(texts) > 32 or not all(isinstance(text, str) and len(text) <= LETTERS for text in texts):
        raise Refused(f"{name} is a list of names, at most 32", param=name)
    return tuple(texts)


def lean(asked: Asked, settings: Settings, canvas: Canvas | None) -> Asked:
    """The same request with its picture and mask as small as they are drawn from; as it is where
    that needs the whole picture: beside an extension, a fallback, or marks of its origin.

    settings, canvas: as they come of it. The same pixels are drawn.
    """
    size = (settings.width, settings.height)
    if canvas is None or asked.smaller or settings.extend is not None or canvas.marks:
        return asked
    if size[0] * size[1] >= canvas.image.width * canvas.image.height:
        return asked
    small = replace(canvas, blur=0.0).scaled(*size)  # the mask is blurred when it is drawn from
    return replace(asked, request=replace(asked.request, image=small.image, mask=small.mask))


def bytes_of_pictures(asked: Asked) -> dict[int, int]:
    """`Job.given`: about as Pillow holds them."""
    pictures = [each for each in (asked.request.image, asked.request.mask) if each is not None]
    return {id(each): _bytes_of(each) for each in pictures}


def _bytes_of(picture: Any) -> int:
    channels = 1 if picture.mode in ("1", "L", "P") else 4
    beside = sum(len(v) for v in picture.info.values() if isinstance(v, str | bytes))
    return picture.width * picture.height * channels + beside
