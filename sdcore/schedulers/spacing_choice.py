"""The spacing that is asked for: what the names say together, and where it begins and ends."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sdcore.errors import InputError, unknown
from sdcore.schedulers.conventions import Conventions
from sdcore.schedulers.spacing import (
    TOOLS,
    Spacing,
    Tool,
    explicit,
    installed_spacing,
    load_spacing,
    shifted,
    user_spacing,
    without_penultimate,
)
from sdcore.schedulers.table import find_spacing
from sdcore.schedulers.table_entry import Entry
from sdcore.written import parse


def spacing_asked(
    name: object,
    named: str | None,
    tool: Tool | None,
    wanted: str | Spacing | Callable[..., Any] | None,
) -> tuple[str | Spacing | None, Tool | None]:
    """What the scheduler's name and the spacing say together, and whose rules it follows."""
    if wanted is None:
        return named, tool
    if isinstance(wanted, str):
        given, prefixed = _explicit(wanted)
        tool = tool if prefixed is None else prefixed
        if given is None:
            chosen, its_tool, prefixed = find_spacing(wanted)
            if named is not None and chosen != named:
                raise InputError(
                    f"scheduler {name!r} says {named} spacing, and spacing says {chosen!r}"
                )
            if prefixed:
                return chosen, its_tool
            return chosen, tool if tool is not None and chosen in tool.spacings else None
        wanted = given
    elif not isinstance(wanted, Spacing):
        wanted = user_spacing(wanted)
    if named is not None:
        raise InputError(f"scheduler {name!r} says {named} spacing, and spacing {wanted.name!r}")
    return wanted, tool


def _explicit(text: str) -> tuple[Spacing | None, Tool | None]:
    """The spacing of a list or of a file, and whose prefix a list has; None where it is a name."""
    key, _, rest = text.strip().partition(":")
    tool = TOOLS.get(key.casefold())
    spacing = explicit(text.strip() if tool is None else rest)
    if spacing is not None:
        return spacing, tool
    written = parse(text) if text.strip() else None
    if written is None:
        return None, None
    if written.file is None:
        return shifted(written) or installed_spacing(written), None
    return load_spacing(written), None


def with_ends(
    laid: str | Spacing | None,
    tool: Tool | None,
    of_class: Callable[[str | None], Spacing],
    entry: Entry,
) -> Spacing:
    """The spacing of a name, as the class or the tool lays it; the user's, with the class's ends.

    of_class: the class's spacing of a name, None for its own.
    """
    if not isinstance(laid, Spacing):
        laid = of_class(laid) if tool is None else tool.spacing(laid, entry.name)
        return replace(laid, written=laid.name)
    usual = of_class(None)
    tail = usual.tail if laid.tail == "zero" else laid.tail
    laid = replace(laid, start=usual.start, end=usual.end, tail=tail)
    if laid.steps is None:
        return laid
    # a list, which has no name of a tool's by itself
    name = laid.name if tool is None else f"{tool.key}:{laid.name}"
    return replace(laid, name=name, written=name, whole=tool is not None and tool.whole)


def ending(spacing: Spacing, tail: str | float) -> Spacing:
    """The spacing with another tail. Raises InputError for what is none, or for a list's."""
    if spacing.name.startswith("sigmas:"):
        raise InputError("a list of sigmas ends where its last one says; leave the tail out")
    if tail == "zero" or tail == "sigma_min":
        return replace(spacing, tail=tail)
    if tail == "discard_penultimate":
        return without_penultimate(replace(spacing, tail="zero"))
    try:
        sigma = float(tail)
    except ValueError:
        tails = ("zero", "sigma_min", "discard_penultimate", "a sigma")
        raise unknown("tail", str(tail), tails) from None
    if not 0 <= sigma < math.inf:
        raise InputError(f"the tail is a finite sigma of at least 0, not {tail}")
    return replace(spacing, tail=sigma)


def upwards(spacing: Spacing, conventions: Conventions) -> Spacing:
    """The spacing upwards: DDIM tells the t of the step's end, DPM-Solver, from sigma_min, its own.

    log sigma, in which DPM-Solver steps, has no sigma 0 to start from.
    """
    if conventions.form == "unit_variance":
        return replace(spacing, upwards="told_ahead")
    return replace(
        spacing, upwards="told", tail="sigma_min" if spacing.tail == "zero" else spacing.tail
    )
