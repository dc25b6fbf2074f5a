"""What a picture may not do: its settings come from a stranger, and run no code and ask no hub.

`rerun` takes over whatever the user does not name. A solver of one's own is a Python file, and a
model that is not here is fetched with the user's token: both only where the user names it.
"""

from collections.abc import Iterator, Mapping

from sdcore.checkpoints.find import WEIGHT_SUFFIXES, is_here, is_hub_id
from sdcore.errors import InputError
from sdcore.strengths import parse_lora

# Fields of Settings, and the option by which a user names the same.
CODE = {name: f"--{name}" for name in ("scheduler", "spacing", "noise", "guidance")}
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


def check_inherited(fields: Mapping[str, object]) -> None:
    """Raises InputError where settings that a picture brings name a file of code, or a model that
    would have to be fetched.

    fields: by the names of Settings, those that are taken from the picture and not from the user.
    """
    for name, option in CODE.items():
        for value in _texts(fields.get(name)):
            # Wherever it stands in the written form, also inside an option's value.
            if ".py" in value.casefold():
                raise InputError(
                    f"the picture names a file of code, {value!r}: it is run only where you name "
                    f"it yourself, {option} {value}"
                )
    variant, revision = (next(_texts(fields.get(name)), None) for name in ("variant", "revision"))
    for name, option in PLACES.items():
        for value in _texts(fields.get(name)):
            place = parse_lora(value)[0] if name == "loras" else value
            place = place.rpartition(":")[0] or place if name == "embeddings" else place
            own = (variant, revision) if name == "model" else (None, None)
            fetched = is_hub_id(place) and not place.endswith(WEIGHT_SUFFIXES)
            if fetched and not is_here(place, *own):
                raise InputError(
                    f"the picture names {place}, which is not here: it is fetched only where you "
                    f"name it yourself, {option} {value} (or sdcore download {place})"
                )


def _texts(value: object) -> Iterator[str]:
    """Every text in a field: none, one, or several."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
