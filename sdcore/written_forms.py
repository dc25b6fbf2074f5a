"""What settings say of an object: its written form, or its name where it has none.

A name reads back as the object; an object of a program, which no picture can hold, is named and
called "(in memory)".
"""

from contextlib import suppress
from typing import Any

from sdcore.errors import InputError
from sdcore.guidance import scale_of, write
from sdcore.inversion import Recorded
from sdcore.schedulers import Scheduler, Spacing

IN_MEMORY = "(in memory)"  # behind the name of what no text can be read back as


def is_in_memory(text: object) -> bool:
    """Whether it is the name of an object that only the program had that drew the picture."""
    return isinstance(text, str) and text.endswith(IN_MEMORY)


def written_form(thing: Any) -> str:
    """A name as it is; what reads back as this object, where there is such a text; else what the
    object is called, and "(in memory)"."""
    if isinstance(thing, str):
        return thing
    if isinstance(thing, Scheduler | Spacing):
        return thing.written or f"{thing.name} {IN_MEMORY}"
    if hasattr(thing, "combine"):
        with suppress(InputError):
            return write(thing)
    function = getattr(thing, "func", thing)
    return f"{getattr(function, '__name__', type(function).__name__)} {IN_MEMORY}"


def settings_of(name: str, value: Any) -> dict[str, Any]:
    """The settings that speak of what was put into the field `name` of a run, as they are now."""
    if name == "guidance":
        cfg = scale_of(value)
        return {"guidance": written_form(value)} | ({} if cfg is None else {"cfg": cfg})
    if name == "sigmas":
        return {"spacing": f"{len(value)} sigmas {IN_MEMORY}"}
    if isinstance(value, Recorded):  # found draws stand beside the settings: `state_file.write`
        return {}
    return {"scheduler" if name == "solver" else name: written_form(value)}
