"""Guidances by their written form, and put together by it."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sdcore.errors import InputError, unknown
from sdcore.extensions import find, names
from sdcore.guidance.base import Guidance, accepted
from sdcore.guidance.cfg import CFG
from sdcore.guidance.compose import Sum
from sdcore.guidance.table_entry import MADE_OF, Entry
from sdcore.keywords import keywords
from sdcore.members import declared
from sdcore.sampling import Prediction
from sdcore.user_file import blame, load_object
from sdcore.written import Value, Written, format, parse

# Each guidance's file says its ENTRIES.
GUIDANCES: Mapping[str, Entry] = {
    entry.name: entry for entries in declared("sdcore.guidance", "ENTRIES") for entry in entries
}


def resolve(text: str, scale: float = 7.5) -> Guidance:
    """The guidance of a written form: names of GUIDANCES and files of one's own, joined by +.

        cfg:scale=7.5    cfg+interval:low=0.3,high=5    mine.py:Mine,scale=3

    What takes a guidance (it has an `inner`) takes all that stands left of it, or plain CFG; what
    takes none is added to that (`Sum`). scale: of every guidance that has one and is given none.

    Raises InputError, with near names, for one that is unknown, an option that it does not have or
    a value that it cannot have; a guidance from a file also does when it fails.
    """
    whole: Guidance | None = None
    for written in split(text):
        made, options = _made(written), dict(written.options)
        takes = inspect.signature(made).parameters
        what = f"guidance {written.name}" if written.file is None else f"the guidance in {text}"
        given: dict[str, Any] = keywords(options, made, what, hidden=MADE_OF)
        if "scale" in takes and "scale" not in given:
            given["scale"] = scale
        if "inner" in takes:
            given["inner"] = CFG(scale) if whole is None else whole
        guidance = made(**given)
        whole = guidance if whole is None or "inner" in takes else _added(whole, guidance)
    assert whole is not None
    return whole


def split(text: str) -> list[Written]:
    """The parts of a written form, in order. Raises InputError for one that cannot be read."""
    parts: list[str] = []
    for piece in re.split(r"\+(?=\s*[^\W\d]|\s*[./~])", text):
        if parts and "/" in parts[-1] and ".py" not in parts[-1]:  # a folder with a + in its name
            parts[-1] += "+" + piece
        else:
            parts.append(piece)
    return [parse(part) for part in parts]


def written_parts(text: str) -> list[str]:
    """What a + joins in a written form, each as it stands alone."""
    return [format(part) for part in split(text)]


def write(guidance: Guidance) -> str:
    """The text that `resolve` reads as this guidance.

    Raises InputError for one that has none: a class of one's own that is not from a file.
    """
    if isinstance(guidance, Sum):
        first, *others = guidance.parts
        if any(getattr(other, "inner", None) is not None for other in others):
            raise InputError("a guidance that takes another is written first: put it in front")
        return "+".join([write(first), *map(write, others)])
    if isinstance(guidance, Own):
        text = format(guidance.written)
    else:
        names = [name for name, entry in GUIDANCES.items() if type(guidance) is entry.kind]
        if not names or not is_dataclass(guidance):
            raise InputError(
                f"the guidance {type(guidance).__name__} has no written form: name it by its file, "
                "mine.py:Mine,scale=3"
            )
        options: dict[str, Value] = {
            field.name: getattr(guidance, field.name)
            for field in fields(guidance)
            if field.init and field.name not in MADE_OF
            if field.name == "scale" or getattr(guidance, field.name) != field.default
        }
        text = format(Written(names[0], options))
    inner = getattr(guidance, "inner", None)
    return text if inner is None else f"{write(inner)}+{text}"


def _added(whole: Guidance, more: Guidance) -> Sum:
    return Sum((*whole.parts, more) if isinstance(whole, Sum) else (whole, more))


def _made(written: Written) -> Any:
    """What makes the guidance: its class, or a function of a file."""
    if written.file is None and written.name in GUIDANCES:
        return GUIDANCES[written.name].kind
    if written.file is None:
        extension = find("guidance", written.name)
        if extension is None:
            raise unknown("guidance", written.name, (*GUIDANCES, *names("guidance")))
        path, made = extension.file(), extension.load()
    else:
        path = Path(written.file)
        wanted = (written.name,) if written.name else ("Guidance", "guidance", path.stem)
        made = load_object(path, wanted, "guidance")

    def own(**options: Any) -> Own:
        try:
            return Own(accepted(made(**options)), written, path)
        except Exception as error:
            raise blame(error, path, "guidance") from error

    own.__signature__ = inspect.signature(made)  # type: ignore[attr-defined]
    return own


@dataclass(frozen=True)
class Own:
    """A guidance from a file or an installed package, whose mistakes are InputErrors of one line
    that name the file."""

    guidance: Guidance
    written: Written
    path: Path  # of its code

    def __getattr__(self, name: str) -> Any:
        if name in ("inner", "parts", "scale", "sources", "unpaired"):
            return getattr(self.guidance, name)
        raise AttributeError(name)

    def branches(self, sigma: float) -> tuple[str, ...]:
        names = self._tried("branches", sigma)
        if not isinstance(names, tuple | list) or not names or not all(map(_is_text, names)):
            raise InputError(
                f"{self.path}: branches({sigma:g}) returns {names!r:.80} and not the names "
                'of one or more branches, as ("uncond", "cond")'
            )
        return tuple(names)

    def combine(self, predictions: Mapping[str, Prediction], x: Tensor, sigma: float) -> Prediction:
        prediction = self._tried("combine", predictions, x, sigma)
        if not isinstance(prediction, Prediction) or prediction.x0.shape != x.shape:
            kind = type(prediction).__name__
            raise InputError(
                f"{self.path}: combine returns {kind} and not a Prediction of x's shape "
                f"{list(x.shape)}"
            )
        return prediction

    def _tried(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self.guidance, method)(*arguments)
        except InputError:
            raise
        except Exception as error:
            raise blame(error, self.path, "guidance") from error


def _is_text(name: object) -> bool:
    return isinstance(name, str)
