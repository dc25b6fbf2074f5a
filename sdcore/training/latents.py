"""Pictures to latents, once: what the VAE says of each at its size, kept in a file beside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import ImageOps
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sdcore.checkpoints.read import read_metadata
from sdcore.errors import InputError
from sdcore.fitting import to_rgb
from sdcore.images import open_picture, to_tensor
from sdcore.networks import Networks
from sdcore.training.buckets import Size, bucket_of, bucket_sizes, covering, mirrored_cut
from sdcore.training.folder import Example, Skipped
from sdcore.training.plan import Plan
from sdcore.writing import write_whole

CACHE = "latents.safetensors"
Bar = Callable[[Sequence[Example]], Iterable[Example]]


@dataclass(frozen=True)
class Item:
    """A picture that is trained on, as it was read."""

    example: Example
    size: Size  # at which it is trained
    original: Size  # of the file, upright
    cuts: tuple[Size, ...]  # where it was cut; a second one is the mirrored picture's
    mean: Tensor  # of its unit-variance latents, [1 or 2,C,h,w]: the second one is mirrored
    std: Tensor

    @property
    def enlarged(self) -> bool:
        """Whether it is smaller than what it is trained at."""
        return self.original[0] < self.size[0] or self.original[1] < self.size[1]


def encoded(
    examples: Sequence[Example],
    networks: Networks,
    plan: Plan,
    cache: Path | None = None,
    bar: Bar = lambda examples: examples,
) -> tuple[list[Item], list[Skipped]]:
    """The latents of every picture that can be opened, and those that cannot.

    plan: with its resolution. cache: the file that they are kept in, and read from where it is
    whole, and of the same pictures at the same sizes by the same VAE. bar: around the examples, to
    show progress.
    """
    mark = _mark(examples, networks, plan)
    if cache is not None and (kept := _kept(examples, cache, mark)) is not None:
        return kept
    items, skipped = [], []
    for example in bar(examples):
        try:
            items.append(_encoded(example, networks, plan))
        except InputError as error:
            skipped.append(Skipped(example.path, _short(example.path, str(error))))
    if cache is not None:
        _write(items, skipped, cache, mark)
    return items, skipped


def step_of(plan: Plan, factor: int) -> int:
    """What the sides of the sizes are multiples of: of SD 1.x 64 pixels."""
    assert plan.resolution is not None
    step = max(1, plan.resolution // 8) if plan.bucket_step is None else plan.bucket_step
    return max(factor, step // factor * factor)


@torch.no_grad()
def _encoded(example: Example, networks: Networks, plan: Plan) -> Item:
    picture = to_rgb(open_picture(example.path))
    side, factor = plan.resolution, networks.vae.config.factor
    assert side is not None
    side = side // factor * factor
    sizes = ((side, side),) if plan.square else bucket_sizes(side, step_of(plan, factor))
    size = bucket_of(picture.size, sizes)
    fitted, cut = covering(picture, size)
    cuts, images = [cut], [to_tensor(fitted)]
    if plan.flip:
        scaled = max(size[0], round(picture.width * max(size[0] / picture.width,
                                                        size[1] / picture.height)))  # fmt: skip
        cuts.append(mirrored_cut(scaled, size[0], cut))
        images.append(to_tensor(ImageOps.mirror(fitted)))
    codes = [networks.vae.encode(image.to(networks.device)) for image in images]
    mean, std = (torch.cat([getattr(c, k) for c in codes]).float().cpu() for k in ("mean", "std"))
    if not (mean.isfinite().all() and std.isfinite().all()):
        raise InputError("the VAE gives numbers that are not finite")
    return Item(example, size, picture.size, tuple(cuts), mean, std)


def _short(path: Path, reason: str) -> str:
    """A reason that does not begin with the path again."""
    return reason.removeprefix(f"{path} ")


# --- kept in a file ------------------------------------------------------------------------------


def _mark(examples: Sequence[Example], networks: Networks, plan: Plan) -> str:
    """What the latents depend on."""
    files = [(str(e.path), (s := e.path.stat()).st_size, s.st_mtime_ns) for e in examples]
    model = (networks.name, str(networks.source.vae), sorted(networks.digests.values()),
             networks.precision)  # fmt: skip
    sizes = (plan.resolution, plan.square, plan.bucket_step, plan.flip)
    return json.dumps([files, model, sizes])


def _write(items: Sequence[Item], skipped: Sequence[Skipped], path: Path, mark: str) -> None:
    tensors = {}
    for item in items:
        tensors[f"{item.example.path}.mean"], tensors[f"{item.example.path}.std"] = (
            item.mean, item.std,
        )  # fmt: skip
    rows = [[str(i.example.path), i.size, i.original, i.cuts] for i in items]
    left = [[str(s.path), s.reason] for s in skipped]
    notes = {"mark": mark, "items": json.dumps([rows, left])}
    write_whole(path, save(tensors, notes))


def _kept(
    examples: Sequence[Example], path: Path, mark: str
) -> tuple[list[Item], list[Skipped]] | None:
    """What a file holds of these examples; None for that of others, and one that cannot be read."""
    try:
        if not path.is_file() or read_metadata(path).get("mark") != mark:
            return None
        return _read(examples, path)
    except (InputError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _read(examples: Sequence[Example], path: Path) -> tuple[list[Item], list[Skipped]]:
    tensors, by_path = load_file(path), {str(e.path): e for e in examples}
    rows, left = json.loads(read_metadata(path)["items"])
    items = [
        Item(
            by_path[name], tuple(size), tuple(original), tuple(map(tuple, cuts)),
            tensors[f"{name}.mean"], tensors[f"{name}.std"],
        )
        for name, size, original, cuts in rows
    ]  # fmt: skip
    return items, [Skipped(Path(name), reason) for name, reason in left]
