"""The written form of a thing with options: what a user types and what a picture's settings hold.

    name:option=value,option=value            heun_churn:s_churn=10,s_noise=1.003
    tool:name:option=value                    comfyui:dpm_2_ancestral:eta=0.5
    file.py:Name,option=value                 mine.py:Mine,scale=3
    file.tableau:option=value                 mine.tableau:variable=lambda

Solvers, spacings, noises and guidances are named so.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sdcore.errors import InputError

FILES = (".py", ".tableau")  # how the files end that a written form may name
Value = bool | int | float | str | tuple["Value", ...] | None

_KEY = r"[^\W\d]\w*"
_NAMED = re.compile(rf"(?P<name>.*?)(?::(?P<options>{_KEY}\s*=.*))?", re.DOTALL)
_ENDS = "|".join(map(re.escape, FILES))
_FILE = re.compile(
    rf"(?P<file>.+?(?:{_ENDS}))(?::(?:(?P<name>{_KEY})(?P<more>,|$))?(?P<options>.*))?", re.DOTALL
)
_QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_VALUE = rf"{_QUOTED}|\[(?:{_QUOTED}|[^\[\]'\"])*\]|(?:[^\s,'\"\[][^,]*)?"
_OPTION = re.compile(rf"\s*(?P<key>{_KEY})\s*=\s*(?P<value>{_VALUE})\s*(?:,(?=.)|$)", re.DOTALL)
_ITEM = re.compile(rf"\s*(?P<value>{_QUOTED}|[^,]*?)\s*(?:,(?=.)|$)", re.DOTALL)
_WORDS = {"true": True, "false": False, "none": None}
_DIGITS = 100  # of a number; more are a text
_MOST = 10_000  # letters; nothing that a person writes is longer


@dataclass(frozen=True)
class Written:
    """A name or a file, and options by name."""

    name: str  # with a tool's prefix where it has one; of what is in the file, "" if none is said
    options: Mapping[str, Value] = field(default_factory=dict)
    file: str | None = None  # the path as it was written

    def __str__(self) -> str:
        return format(self)


def names_a_file(text: str) -> bool:
    """Whether a file may be meant, wherever it stands, also inside an option's value."""
    return any(end in text.casefold() for end in FILES)


def parse(text: str) -> Written:
    """What a text names.

    Options begin behind the first colon that a key and an equals sign follow, so drives ("C:\\"),
    prefixes ("comfyui:euler") and lists ("sigmas:14.6,2,0") stay in the name. A value is a Python
    number, true, false, none, numbers or texts in square brackets (a tuple), or else a text;
    quotes make a text of anything. Raises InputError for what is empty or cannot be read.

    >>> parse("comfyui:dpm_2:eta=1").options
    {'eta': 1}
    >>> parse("mine.py:Mine,scale=3").name
    'Mine'
    """
    if len(text) > _MOST:
        raise InputError(f"{_short(text)} is {len(text)} letters long: at most {_MOST} are read")
    if match := _FILE.fullmatch(text.strip()):
        file, name, more, options = match.group("file", "name", "more", "options")
        if not re.search(rf":{_KEY}\s*=", file):  # else it is an option's value that ends so
            if options == "" and more != "":
                raise InputError(f"{_short(text)} ends where a name or an option should follow")
            return Written(name or "", _options(options or "", text), file)
    match = _NAMED.fullmatch(text.strip())
    name, options = match.group("name", "options") if match else ("", None)
    if not name.strip():
        raise InputError(f"{_short(text)} names nothing: write name or name:option=value")
    return Written(name.strip(), _options(options or "", text))


def format(written: Written) -> str:
    """The text that `parse` reads as this.

    Raises InputError for a name, a path or a value that has no such text.
    """
    parts = [f"{key}={format_value(value)}" for key, value in written.options.items()]
    if written.file is None:
        text = f"{written.name}:{','.join(parts)}" if parts else written.name
    else:
        parts = [written.name, *parts] if written.name else parts
        text = f"{written.file}:{','.join(parts)}" if parts else written.file
    read = parse(text)
    if repr(read) != repr(Written(written.name, dict(written.options), written.file)):
        raise InputError(f"{_short(text)} would be read as another name: rename the file or option")
    return text


def _options(text: str, whole: str) -> dict[str, Value]:
    options: dict[str, Value] = {}
    while text:
        match = _OPTION.match(text)
        if match is None:
            raise InputError(
                f"{_short(whole)} has {_short(text)} where option=value should stand; "
                "several are separated by commas"
            )
        key = match["key"]
        if key in options:
            raise InputError(f"{_short(whole)} gives {key} twice")
        options[key] = _value(match["value"].strip())
        text = text[match.end() :]
    return options


def _value(text: str) -> Value:
    """A value, as it is written."""
    if text.startswith("[") and text.endswith("]"):
        return tuple(_simple(match["value"]) for match in _items(text[1:-1]))
    return _simple(text)


def _items(text: str) -> list[re.Match[str]]:
    found: list[re.Match[str]] = []
    start = 0
    while start < len(text) and (match := _ITEM.match(text, start)):
        found.append(match)
        start = match.end()
    return found


def _simple(text: str) -> bool | int | float | str | None:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if re.fullmatch(_QUOTED, text, re.DOTALL):
        try:
            return ast.literal_eval(text)
        except (SyntaxError, ValueError):
            return text
    for number in (int, float) if len(text) <= _DIGITS else ():
        try:
            return number(text)
        except ValueError:
            continue
    return text


def format_value(value: Value) -> str:
    """A value as `parse` reads it."""
    if isinstance(value, tuple):
        return f"[{','.join(format_value(item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        bare = _simple(value) == value and not re.search(r"[\s,'\"\[\]]", value) and value
        return value if bare else repr(value)
    if isinstance(value, list):
        return format_value(tuple(value))
    return repr(value)


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
