"""Pictures of a training under way: drawn as any picture is, laid out as a sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch

from sdcore.complete import complete
from sdcore.networks import Networks
from sdcore.prepare import prepare
from sdcore.request import Request, parts_of
from sdcore.sheets import contact_sheet

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdcore.settings import Settings

SEEDS = (0, 1)


@torch.no_grad()
def drawn(
    networks: Networks, prompts: Sequence[str], seeds: Sequence[int] = SEEDS, **options: object
) -> list[tuple[Image, Settings]]:
    """A picture for each prompt and seed, with the settings that draw it again."""
    request = Request(list(prompts), seeds=list(seeds), **options)  # type: ignore[arg-type]
    parts = parts_of(request, networks)
    pictures = []
    for settings in complete(request, networks, parts):
        run = prepare(networks, [settings], parts)
        x = run.start.x
        for step in run:
            x = step.x_next
        pictures += [(picture, settings) for picture in run.decode(x)]
    return cast("list[tuple[Image, Settings]]", pictures)


def sheet(pictures: Sequence[tuple[Image, Settings]]) -> Image:
    """All of them with their words: a row for each prompt."""
    captions = [f"{settings.prompt}\nseed {settings.seed}" for _, settings in pictures]
    columns = len({settings.seed for _, settings in pictures})
    return contact_sheet([picture for picture, _ in pictures], captions, columns)
