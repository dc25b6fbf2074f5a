"""The table of names: what a user can call a scheduler, and which step function that is."""

from sdcore.errors import unknown
from sdcore.schedulers import dpmpp, euler, heun, plms
from sdcore.schedulers.entry import Entry
from sdcore.schedulers.spacing import SPACINGS

TABLE: tuple[Entry, ...] = (
    *euler.ENTRIES,
    *heun.ENTRIES,
    *plms.ENTRIES,
    *dpmpp.ENTRIES,
)


def find(name: str) -> tuple[Entry, str | None]:
    """The entry of a name in any dialect, and the spacing if the name ends in one ("... Karras").

    Case, spaces and underscores do not matter. Raises InputError with the nearest names.
    """
    entries = {_plain(known): entry for entry in TABLE for known in entry.names}
    plain = _plain(name)
    if plain in entries:
        return entries[plain], None
    for spacing in SPACINGS:
        end = _plain(spacing)
        if plain.endswith(end) and plain.removesuffix(end) in entries:
            return entries[plain.removesuffix(end)], spacing
    own = [entry.name for entry in TABLE]
    labels = [label for entry in TABLE for label in entry.labels]
    raise unknown("scheduler", name, own + labels, short=own)


def _plain(name: str) -> str:
    name = name.strip().casefold().removeprefix("sample_").replace("++", "pp")
    return "".join(letter for letter in name if letter.isalnum())
