"""How a server is set up: by `sdcore serve`, or by the environment for uvicorn."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sdcore.chosen import AUTO
from sdcore.errors import InputError
from sdcore.server.limits import Limits

KEY = "SDCORE_API_KEY"
PREFIX = "SDCORE_SERVE_"  # SDCORE_SERVE_MODELS, SDCORE_SERVE_LORA_DIR ...: lists by os.pathsep
LONGEST_KEY = 4096
LONGEST_GRACE = 86400.0  # seconds


@dataclass(frozen=True)
class ServerOptions:
    """What a server is told at its start, and nothing that a request may change."""

    host: str = "127.0.0.1"
    port: int = 7860
    models: tuple[str, ...] = ()  # (): the bundled ones
    lora_dir: tuple[str, ...] = ()
    embedding_dir: tuple[str, ...] = ()
    loaded: int = 1  # models in memory
    source: Mapping[str, Any] = field(default_factory=dict)  # device, dtype, memory, engine
    key: str | None = None
    cors: tuple[str, ...] = ()  # origins that may ask from a page of theirs
    host_allowed: tuple[str, ...] = ()  # further names under which it is reached
    max_prompt: int = 500  # letters, of /generate
    lenient: bool = False  # a warning in place of a refusal, for what cannot be honoured
    grace: float = 30.0  # seconds, at the end
    filter: tuple[str, ...] = ()  # of the user's own: `sdcore.filters`
    safety: str | None = None  # a folder with the published safety checker
    safety_action: str | None = None
    no_settings: bool = False
    no_mark: bool = False
    limits: Limits = field(default_factory=Limits)

    @property
    def is_local(self) -> bool:
        """Whether it listens to this machine alone."""
        return is_loopback(self.host)

    @property
    def hides_places(self) -> bool:
        """Whether pictures name models without their folders: where others may ask for them, also
        by way of a proxy on this machine."""
        return not self.is_local or bool(self.host_allowed or self.cors) or self.key is not None


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_options(options: ServerOptions, no_auth: bool = False) -> ServerOptions:
    """Raises InputError for what is not safe to do, and for what cannot be."""
    if not options.is_local and options.key is None and not no_auth:
        raise InputError(
            f"on {options.host} others reach this server: give it a key, by {KEY} or --key-file, "
            "or say --no-auth"
        )
    for origin in options.cors:
        if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
            raise InputError(f"--cors takes an origin like http://localhost:3000, not {origin!r}")
    if not 0 <= options.port <= 65535:
        raise InputError(f"a port is 0 to 65535, not {options.port}")
    if options.limits.batch < 1 or options.loaded < 1:
        raise InputError("--batch and --loaded are at least 1")
    for name, most in {**vars(options.limits), "prompt": options.max_prompt}.items():
        if not most > 0:  # nor NaN, which nothing exceeds
            raise InputError(f"--max-{name} is above 0, not {most:g}")
    if not 0 <= options.grace <= LONGEST_GRACE:
        raise InputError(f"--grace is 0 to {LONGEST_GRACE:g} seconds, not {options.grace:g}")
    _check_source(options.source)
    return options


def _check_source(source: Mapping[str, Any]) -> None:
    """Raises InputError where no model could be loaded so: at the start, not in each request."""
    from sdcore.devices import choose_device, choose_dtype
    from sdcore.engine import check_engine
    from sdcore.memory import choose

    choose_dtype(source.get("dtype"), choose_device(source.get("device")))
    choose(source.get("memory"), (), None)
    check_engine(source.get("engine", "auto"))


def read_key(file: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key of a file, else of SDCORE_API_KEY. It is no option: others would see it in `ps`.

    Raises InputError for one that is empty, of several lines, or cannot be read.
    """
    if file is None:
        key = environment.get(KEY)
        if key is not None and not key.strip():
            raise InputError(f"{KEY} is set and empty")
    else:
        try:
            key = Path(file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file} cannot be read: {error}") from None
    if key is None:
        return None
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or len(key) > LONGEST_KEY:
        raise InputError("a key is one line of printable ASCII")
    return key


def of_environment(environment: Mapping[str, str] = os.environ) -> ServerOptions:
    """What SDCORE_API_KEY, SDCORE_SERVE_MODELS ... say. Raises InputError."""
    known: dict[str, Callable[[str], Any]] = {
        "MODELS": _listed, "LORA_DIR": _listed, "EMBEDDING_DIR": _listed,
        "LOADED": int, "CORS": lambda text: tuple(text.split()),
        "HOST_ALLOWED": lambda text: tuple(text.split()), "MAX_PROMPT": int, "GRACE": float,
        "LENIENT": _truth, "NO_SETTINGS": _truth, "NO_MARK": _truth, "FILTER": _listed,
        "SAFETY": str, "SAFETY_ACTION": str,
    }  # fmt: skip
    parts = {"DEVICE": "device", "DTYPE": "dtype", "MEMORY": "memory", "ENGINE": "engine"}
    limits = {f"MAX_{each.name.upper()}": each for each in fields(Limits)}
    limits["BATCH"] = limits.pop("MAX_BATCH")
    given: dict[str, Any] = {}
    source: dict[str, str] = {}
    bounds: dict[str, Any] = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX):
            continue
        short = name.removeprefix(PREFIX)
        try:
            if short in parts:
                source |= {} if text == AUTO else {parts[short]: text}
            elif short in known:
                given[short.lower()] = known[short](text)
            elif short in limits:
                kind = float if limits[short].type == "float" else int
                bounds[limits[short].name] = kind(text)
            elif short not in ("KEY_FILE", "HOST", "NO_AUTH"):
                raise InputError(f"{name} is not known")
        except ValueError as error:
            raise InputError(f"{name} is {text!r}: {error}") from None
    host = environment.get(f"{PREFIX}HOST", "127.0.0.1")
    key = read_key(environment.get(f"{PREFIX}KEY_FILE"), environment)
    options = ServerOptions(**given, host=host, key=key, source=source, limits=Limits(**bounds))
    return check_options(options, _truth(environment.get(f"{PREFIX}NO_AUTH", "")))


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(os.pathsep) if part)


def _truth(text: str) -> bool:
    return text.strip().casefold() in ("1", "true", "yes", "on")
