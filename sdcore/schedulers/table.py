"""The table of names: what a user can call a scheduler, and which step function that is."""

from dataclasses import replace
from functools import cache

from sdcore import extensions
from sdcore.errors import InputError, unknown
from sdcore.extensions import Extension
from sdcore.members import declared
from sdcore.sampling import Solver
from sdcore.schedulers.conventions import CONVENTIONS
from sdcore.schedulers.spacing import SPACINGS, TOOLS, Tool
from sdcore.schedulers.table_entry import Entry
from sdcore.schedulers.user_solver import explained

_FILES = declared("sdcore.schedulers.solvers", "ENTRIES")
# What other tools have, too, first; the deterministic ones before those that draw noise.
TABLE: tuple[Entry, ...] = tuple(
    sorted(
        (entry for entries in _FILES for entry in entries),
        key=lambda entry: (not entry.labels, entry.stochastic, entry.name),
    )
)


# A1111's and ComfyUI's names of spacings, where they are not ours.
_ALIASES = {"uniform": "normal", "alignyoursteps": "ays", "automatic": None, "ddim": "ddim_uniform"}


def find(name: str) -> tuple[Entry, str | None, Tool | None]:
    """The entry of a name, the spacing if the name ends in one, and the tool whose name it is.

    Case, spaces and underscores do not matter. The tool comes from a prefix ("comfyui:euler"), from
    k-diffusion's "sample_" or "k_", or from A1111's spelling ("DPM++ 2M Karras", "Euler a",
    "Euler") of a sampler that it runs by sigma; None means diffusers' class. Raises InputError with
    the nearest names.
    """
    key, _, rest = name.strip().rpartition(":")
    entries = _by_plain_name()
    if key.casefold() not in ("", "diffusers", *TOOLS):
        if _plain(key.rpartition(":")[2]) in entries:
            option = rest.strip() or "option"
            raise InputError(f"{name!r} gives {option} no value: write {key}:{option}=...")
        raise unknown("tool", key, ("diffusers", *TOOLS))
    tool = TOOLS.get(key.casefold())
    plain = _plain(rest)
    plain = plain if tool is None else tool.renamed.get(plain, plain)
    suffixes: dict[str, str | None] = {_plain(known): known for known in SPACINGS} | _ALIASES
    match: tuple[Entry, str | None] | None = None
    if plain in entries:
        match = entries[plain], None
    else:
        for end, spacing in sorted(suffixes.items(), key=lambda item: -len(item[0])):
            if plain.endswith(end) and plain.removesuffix(end) in entries:
                match = entries[plain.removesuffix(end)], spacing
                break
    if match is None:
        alone, plus, _ = plain.partition("cfgpp")
        if plus and alone in entries:
            solver = entries[alone].name
            raise InputError(
                f"scheduler {name!r} is {solver} with CFG++, another guidance: take {solver} and "
                "guidance cfgpp"
            )
        installed = None if key else extensions.find("solver", rest)
        if installed is not None:
            return _installed(installed), None, None
        own = [*(entry.name for entry in TABLE), *extensions.names("solver")]
        labels = [label for entry in TABLE for label in entry.labels]
        raise unknown("scheduler", name, own + labels, short=own)
    if not key:
        tool = TOOLS.get(_spelt_by(rest))
        # A1111 runs DDIM and PLMS by timestep: what comes out is diffusers' `leading`. Its UniPC is
        # the authors' code, evenly in t.
        tool = tool if tool is not None and match[0].name in tool.has else None
    return match[0], match[1], tool


def _installed(extension: Extension) -> Entry:
    """The entry of an installed package's solver, which is a step function, or an Entry of one.

    Raises InputError for what is neither, or follows a class that is not here.
    """
    added, name = extension.load(), extension.name
    entry = added if isinstance(added, Entry) else Entry(name, added, order=0, nfe=0, paper="")
    if isinstance(entry.solver, type) or not callable(entry.solver):
        raise InputError(f"the solver {name} of {extension.package} is no step function")
    if entry.class_name not in CONVENTIONS:
        raise unknown(f"class of the solver {name}", entry.class_name, CONVENTIONS)
    solver = explained(entry.solver, extension.file())
    return replace(entry, name=name, labels=(), solver=solver)


def entry_of(solver: Solver) -> Entry | None:
    """The entry of one of our step functions, or of a functools.partial of it; None for another.

    Of several entries with one function the one of its own name, else the one whose options agree.
    """
    function = getattr(solver, "func", solver)
    bound = getattr(solver, "keywords", {})
    candidates = [
        entry for entry in TABLE
        if getattr(entry.solver, "func", entry.solver) is function
        and getattr(entry.solver, "keywords", {}).items() <= bound.items()
    ]  # fmt: skip

    def agreement(entry: Entry) -> tuple[bool, bool]:
        own = entry.name == getattr(function, "__name__", None)
        return entry.options.items() <= bound.items() and bool(entry.options), own

    return max(candidates, key=agreement, default=None)


def find_spacing(name: str) -> tuple[str, Tool | None, bool]:
    """(spacing, tool, whether a tool was named) of "karras", "a1111:karras", "diffusers:beta" ...

    Raises InputError with the nearest names.
    """
    key, colon, rest = name.strip().casefold().rpartition(":")
    if key not in ("", "diffusers", *TOOLS):
        raise unknown("tool", key, ("diffusers", *TOOLS))
    tool = TOOLS.get(key)
    known = SPACINGS if tool is None else tool.spacings
    if rest not in known:
        what = "spacing" if tool is None else f"spacing of {tool.label}"
        installed = extensions.names("spacing") if tool is None else ()
        raise unknown(what, rest, (*known, *installed))
    return rest, tool, bool(colon)


def _spelt_by(name: str) -> str:
    """Whose spelling this is: "kdiffusion", "a1111", or "" for ours and diffusers'."""
    name = name.strip()
    if name.casefold().startswith(("sample_", "k_")):
        return "kdiffusion"
    capital = name != name.lower() and not name.endswith("Scheduler")
    return "a1111" if capital or "++" in name or " " in name else ""


@cache
def _by_plain_name() -> dict[str, Entry]:
    return {_plain(known): entry for entry in TABLE for known in entry.names}


def _plain(name: str) -> str:
    name = name.strip().casefold().removeprefix("sample_").removeprefix("k_").replace("++", "pp")
    return "".join(letter for letter in name if letter.isalnum())
