"""What a picture, or a list of prompts, may not do: its options come from a stranger, and run no
code and ask neither a hub nor another machine.

`rerun` takes over whatever the user does not name, and a line of a list brings options of its own.
A solver of one's own is a file, of Python or a tableau; a model that is not here is fetched with
the user's token, and Windows opens \\\\host\\share with the user's login: each only where the user
names it.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import product

from sdcore.checkpoints.find import WEIGHT_SUFFIXES, is_here, is_hub_id
from sdcore.errors import InputError
from sdcore.extensions import Kind
from sdcore.interop.installed import names_an_extension
from sdcore.strengths import parse_lora
from sdcore.written import names_a_file

# Fields of Settings that may name code, by what it is.
CODE: Mapping[str, Kind] = {
    "scheduler": "solver",
    "spacing": "spacing",
    "noise": "noise",
    "guidance": "guidance",
    "hires_scheduler": "solver",
    "hires_spacing": "spacing",
}
# Fields that may name a place, and the option by which a user names the same.
PLACES = {
    "model": "--model",
    "refiner": "--refiner",
    "vae": "--vae",
    "unet": "--unet",
    "text_encoder": "--text-encoder",
    "text_encoder_2": "--text-encoder-2",
    "loras": "--lora",
    "embeddings": "--embedding",
}
# Two slashes where a path may begin: \\host\share, //host/share, an address; and \??\UNC\host.
_ELSEWHERE = re.compile(r"""(?:^|[\s=:,;+(\[{'"])(?:[\\/]{2}|[\\/]\?\?[\\/])""")


def is_elsewhere(place: str) -> bool:
    """Whether a path, wherever it stands in a written form, leads to another machine.

    >>> is_elsewhere("//host/share/x.png"), is_elsewhere("pictures/x.png")
    (True, False)
    """
    return _ELSEWHERE.search(place) is not None


def check_inherited(fields: Mapping[str, object], whose: str = "the picture") -> None:
    """Raises InputError where settings that a stranger brings name a file of code, a path on
    another machine, or a model that would have to be fetched.

    fields: by the names of Settings, those that are not the user's. whose: what brings them.
    """
    for name in fields.keys() - {"negative", "towards"}:  # words, in which anything may stand
        for value in _texts(fields[name]):
            if is_elsewhere(value):
                raise InputError(
                    f"{whose} names a place on another machine, {value!r}: it is looked for only "
                    "where you name it yourself"
                )
    for name in CODE:
        option = f"--{name.replace('_', '-')}"
        for value in _texts(fields.get(name)):
            if names_an_extension(value):
                raise InputError(
                    f"{whose} names what a package has installed, {value!r}: its code is run only "
                    f"where you name it yourself, {option} {value}"
                )
            if names_a_file(value):
                raise InputError(
                    f"{whose} names a file of code, {value!r}: it is run only where you name "
                    f"it yourself, {option} {value}"
                )
    editions = [
        *product(*((*_texts(fields.get(name)),) or (None,) for name in ("variant", "revision")))
    ]
    for name, option in PLACES.items():
        for value in _texts(fields.get(name)):
            place = parse_lora(value)[0] if name == "loras" else value
            place = place.rpartition(":")[0] or place if name == "embeddings" else place
            wanted = editions if name == "model" else [(None, None)]
            fetched = is_hub_id(place) and not place.endswith(WEIGHT_SUFFIXES)
            if fetched and not all(is_here(place, *each) for each in wanted):
                raise InputError(
                    f"{whose} names {place}, which is not here: it is fetched only where you "
                    f"name it yourself, {option} {value} (or sdcore download {place})"
                )


def _texts(value: object) -> Iterator[str]:
    """Every text in a field: none, one, or several."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
