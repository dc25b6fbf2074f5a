"""A line of the table of guidances."""

from dataclasses import dataclass, fields
from typing import Any

MADE_OF = ("inner", "parts")  # fields that hold guidances, and are no options


@dataclass(frozen=True)
class Entry:
    """A guidance by name.

    kind: a frozen dataclass, whose fields are its options.
    paper: where its equation stands.
    what: what it does, in a few words.
    """

    name: str
    kind: Any
    paper: str
    what: str

    @property
    def options(self) -> dict[str, Any]:
        """Its options with their defaults."""
        return {
            each.name: each.default
            for each in fields(self.kind)
            if each.init and each.name not in MADE_OF
        }
