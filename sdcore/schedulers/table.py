"""The table of names: what a user can call a scheduler, and which step function that is."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from sdcore.errors import InputError
from sdcore.sampling import Solver
from sdcore.schedulers.dpmpp import dpmpp_2m
from sdcore.schedulers.euler import euler
from sdcore.schedulers.heun import heun
from sdcore.schedulers.plms import plms
from sdcore.schedulers.spacing import SPACINGS


@dataclass(frozen=True)
class Entry:
    """One scheduler: its names, its solver and what the solver claims."""

    name: str  # ours
    solver: Solver
    class_name: str  # diffusers' class, whose conventions for spacing it follows
    labels: tuple[str, ...]  # k-diffusion's, ComfyUI's and A1111's names
    order: int  # of convergence, where deterministic
    nfe: int  # model evaluations a step; the first or last step may differ by one
    eta: float | None  # the default; None where there is nothing to choose
    paper: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, self.class_name, *self.labels)


TABLE = (
    Entry("ddim", euler, "DDIMScheduler", ("DDIM",), 1, 1, 0.0, "arXiv 2010.02502"),
    Entry("pndm", plms, "PNDMScheduler", ("plms", "PLMS"), 2, 1, None, "arXiv 2202.09778"),
    Entry("euler", euler, "EulerDiscreteScheduler", ("Euler",), 1, 1, 0.0, "arXiv 2206.00364"),
    Entry(
        "euler_a",
        euler,
        "EulerAncestralDiscreteScheduler",
        ("euler_ancestral", "Euler a"),
        1,
        1,
        1.0,
        "arXiv 2010.02502",
    ),
    Entry("heun", heun, "HeunDiscreteScheduler", ("Heun",), 2, 2, None, "arXiv 2206.00364"),
    Entry(
        "dpmpp_2m",
        dpmpp_2m,
        "DPMSolverMultistepScheduler",
        ("DPM++ 2M",),
        2,
        1,
        None,
        "arXiv 2211.01095",
    ),
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
        if plain.endswith(spacing) and plain.removesuffix(spacing) in entries:
            return entries[plain.removesuffix(spacing)], spacing
    raise unknown("scheduler", name, (known for entry in TABLE for known in entry.names))


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for an unknown name, with near ones or, where nothing is near, all short ones."""
    by_plain = {_plain(each): each for each in reversed(list(known))}
    near = difflib.get_close_matches(_plain(name), by_plain, n=3, cutoff=0.5)
    if near:
        return InputError(f"unknown {kind} {name!r}; near: {', '.join(by_plain[n] for n in near)}")
    short = [entry.name for entry in TABLE] if kind == "scheduler" else list(by_plain.values())
    return InputError(f"unknown {kind} {name!r}; known: {', '.join(short)}")


def _plain(name: str) -> str:
    name = name.strip().casefold().removeprefix("sample_").replace("++", "pp")
    return "".join(letter for letter in name if letter.isalnum())
