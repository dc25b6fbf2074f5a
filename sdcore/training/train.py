"""A whole training: data read and counted, steps taken, looked at and saved, the result written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sdcore.errors import InputError
from sdcore.free_memory import is_out_of_memory
from sdcore.inpainting import MAX_SIDE
from sdcore.models.reordered import restore
from sdcore.networks import Networks
from sdcore.paths import path_of
from sdcore.training.dataset import examples_of, items_of
from sdcore.training.home import check_place, open_home, origins_of
from sdcore.training.plan import Plan, with_defaults
from sdcore.training.process import check_trainable, readied
from sdcore.training.ranks import Ranks, ToldByFirst
from sdcore.training.session import Session
from sdcore.training.watcher import Silent, Tell, Watcher


def train(
    networks: Networks,
    folder: str | Path,
    plan: Plan,
    out: str | Path,
    *,
    name: str | None = None,
    tell: Tell = lambda line: None,
    watcher: Watcher | None = None,
    ranks: Ranks | None = None,
) -> Path:
    """Train on the pictures of a folder, and return the path of what came out.

    What an earlier call with the same plan has left in `out` is gone on from.

    Args:
        networks: not changed.
        out: a folder; made where it is not there.
        name: of the result; None: the folder's.
        tell: gets a line for whatever should be known: counts, pictures passed over.

    Raises:
        InputError: data that cannot be trained on, a model that is not trained, another plan's
            training in `out`, too little memory, a loss that is no number. Where steps had been
            taken they are saved.
        Stopped: by the user; it is saved.
    """
    watcher = Silent() if watcher is None else watcher
    ranks = Ranks() if ranks is None else ranks
    tell = tell if ranks.first else lambda line: None
    check_trainable(networks)
    factor = networks.vae.config.factor
    side = max(networks.unet.config.sides) * factor
    plan = with_defaults(plan, networks.prediction_type, side)
    assert plan.resolution is not None
    if not factor <= plan.resolution <= MAX_SIDE:
        raise InputError(
            f"resolution {plan.resolution} is out of range: {factor} to {MAX_SIDE} pixels"
        )
    networks = replace(readied(networks, plan), engine="plain")  # nothing laid out for drawing
    for module in networks.modules.values():
        restore(module)  # what drew with it may have laid its weights for itself
    place = path_of(out)
    name = (place.name or "trained") if name is None else name
    check_place(place, name, folder)
    examples, skipped = examples_of(folder, plan, tell)
    with ranks.together():
        if ranks.first:
            open_home(place, plan, origins_of(networks, examples))
    try:
        items, prior = items_of(networks, examples, skipped, plan, place, tell, watcher, ranks)
        return Session(networks, plan, place, name, items, prior, tell, watcher, ranks).run()
    except (RuntimeError, MemoryError) as error:  # in a step it is told more closely
        if not is_out_of_memory(error):
            raise
    text = f"out of memory on {networks.device}: take a smaller --resolution than {plan.resolution}"
    raise InputError(text) if ranks.first else ToldByFirst(text)
