"""The folder that holds all of a training, and what it is a training of.

OUT/plan.json                      what was asked for
OUT/latents.safetensors            the pictures, encoded
OUT/log.jsonl                      every step, every measurement
OUT/checkpoint-000250.safetensors  where it stands; the same command goes on from there
OUT/samples/000250.png             pictures drawn on the way
OUT/NAME.safetensors               the result, and as NAME-000250 what the pictures show
OUT/report.html                    all of it to look at
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from sdcore.errors import InputError
from sdcore.networks import Networks
from sdcore.paths import check_folder, path_of
from sdcore.training.checkpoint import NUMBERED
from sdcore.training.folder import PLAN, Example
from sdcore.training.latents import CACHE
from sdcore.training.plan import Plan
from sdcore.training.record import LOG
from sdcore.writing import write_whole

REPORT, SAMPLES, CLASS = "report.html", "samples", "class"
CLASS_CACHE = f"class-{CACHE}"
OWN = {PLAN, LOG, REPORT, SAMPLES, CLASS, CACHE, CLASS_CACHE}


def check_place(place: Path, name: str, folder: str | Path) -> None:
    """Raises InputError where a training and its result would lie over its own files, or the data.

    folder: of the pictures.
    """
    if place.resolve() == path_of(folder).resolve():
        raise InputError(f"{place} holds the pictures: a training needs an --out of its own")
    if not name or Path(name).name != name:
        raise InputError(f"{name!r} is no name of a result: --out says where it goes")
    if {name, f"{name}.safetensors"} & OWN or NUMBERED.fullmatch(f"{name}.safetensors"):
        raise InputError(f"{name} is what a training calls a file of its own: take another --name")


def origins_of(networks: Networks, examples: Sequence[Example]) -> dict[str, str]:
    """Digests of what a training is made of beside its plan: the model's files, and the data."""
    files = sorted(networks.digests.items())
    data = [(each.path.name, each.path.stat().st_size, each.captions, each.repeats)
            for each in examples]  # fmt: skip
    return {
        name: hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        for name, told in (("model", files), ("set of pictures", data))
    }


def _shown(value: object) -> str:
    return "the usual" if value is None else str(value)


def open_home(place: Path, plan: Plan, origins: dict[str, str]) -> None:
    """Make the folder of a training, or find in it one of the same plan, model and data.

    Raises InputError for another's.
    """
    there = place / PLAN
    if there.is_file():
        try:
            held = json.loads(there.read_text())
            other, begun = Plan.from_dict(held), held.get("of", origins)
            differs = plan.differs(other)
            changed = [name for name in origins if begun.get(name) != origins[name]]
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{there} is garbled: {error}") from None
        if differs:
            told = ", ".join(
                f"{n} {_shown(getattr(other, n))}, not {_shown(getattr(plan, n))}"
                for n in differs[:4]
            )
            raise InputError(
                f"{place} holds another training ({told}): go on with that, or name another --out"
            )
        if changed:
            raise InputError(
                f"{place} holds a training of another {' and another '.join(changed)}: go on with "
                "the same, or name another --out"
            )
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {place}: {error.strerror}") from None
    check_folder(place)
    text = json.dumps({**plan.as_dict(), "of": origins}, indent=2)
    write_whole(there, (text + "\n").encode())
