"""`sdcore sweep`: a matrix of pictures, each drawn exactly once, by one process or by many."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from sdcore.cli.echo import echo, tell
from sdcore.cli.sweep_plan import read_plan
from sdcore.errors import InputError
from sdcore.paths import path_of

if TYPE_CHECKING:
    from sdcore.experiments.cells import Studio
    from sdcore.experiments.sweep.folder import Folder
    from sdcore.experiments.sweep.plan import Picture, Shard
    from sdcore.experiments.sweep.work import Drawers, Tally


@click.command()
@click.argument("plan", metavar="PLAN.yaml")
@click.argument("out", metavar="OUT")
@click.option("--dry-run", is_flag=True, help="Only print pictures, NFE and the time estimated.")
@click.option("--shard", metavar="I/N", help="Only this part, where no folder is shared.")
@click.option("--batch", type=int, help="How many are drawn at once.  [default: by device]")
@click.option("--retry", default=1, show_default=True, help="How often what failed is tried again.")
@click.option("--lease", default=120.0, show_default=True, help="Seconds until a claim is stale.")
@click.option("--mix", is_flag=True, help="Go on with other weights or another precision.")
@click.option("--ray", metavar="ADDRESS", help="Draw on a Ray cluster: auto, local, host:port.")
@click.option("--workers", type=int, help="Of Ray.  [default: one for each GPU, or CPU]")
def sweep(
    plan: str,
    out: str,
    dry_run: bool,
    shard: str | None,
    batch: int | None,
    retry: int,
    lease: float,
    mix: bool,
    ray: str | None,
    workers: int | None,
) -> int:
    """Draw every picture of PLAN.yaml into OUT, exactly once.

    Run it again to go on where it stopped; start it several times, on any machines that share OUT,
    and they divide the work. Under torchrun and SLURM each process begins at its own part. What
    fails is noted, tried again, and told: the exit status is then 1.
    """
    from sdcore.experiments.cells import Studio
    from sdcore.experiments.sweep.claims import Claims
    from sdcore.experiments.sweep.folder import Folder
    from sdcore.experiments.sweep.plan import Shard

    for name, number, least in (
        ("batch", batch, 1), ("retry", retry, 0), ("workers", workers, 1), ("lease", lease, 1),
    ):  # fmt: skip
        if number is not None and not number >= least:
            raise InputError(f"--{name} is at least {least}, not {number}")
    read = read_plan(plan)
    part = Shard.of_environment(os.environ) if shard is None else Shard.read(shard)
    pictures, studio = _placed(read.pictures), Studio(tell)
    if dry_run:
        _estimate(pictures, path_of(out), studio)
        return 0
    with ExitStack() as stack:
        claims = Claims(path_of(out) / ".sweep" / "claims", lease)
        folder = Folder(path_of(out), claims.worker, mix)
        folder.open(read.layout, pictures)
        stack.enter_context(claims)
        if ray is None:
            from sdcore.experiments.sweep.work import Here

            drawers: Drawers = Here(studio)
        else:
            from sdcore.experiments.sweep.ray_pool import RayPool

            drawers = stack.enter_context(RayPool(ray, workers))
        tally = _worked(pictures, folder, claims, drawers, part, batch or 1, retry)
        claims.clear()
        folder.write_results(pictures)
    return _told(pictures, folder, tally, part)


def _placed(pictures: list[Picture]) -> list[Picture]:
    """The cells on the GPU that torchrun or SLURM give to this process, where there are several."""
    rank = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", ""))
    if not rank.isdigit() or not _gpus() > 1:
        return pictures
    device = f"cuda:{int(rank) % _gpus()}"
    return [
        each if each.cell.options.get("device") is not None
        else replace(each, cell=each.cell.asking(device=device))
        for each in pictures
    ]  # fmt: skip


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _worked(
    pictures: Sequence[Picture], folder: Folder, claims: Any, drawers: Drawers, shard: Shard,
    batch: int, retry: int,
) -> Tally:  # fmt: skip
    from sdcore.experiments.sweep.work import Work

    bar: Any = None
    if sys.stderr.isatty():
        from tqdm import tqdm

        left = sum(not folder.is_done(each) for each in pictures)
        bar = tqdm(total=left, unit="picture", leave=False)
    work = Work(
        pictures, folder, claims, drawers, shard, batch, retry, tell,
        (lambda: None) if bar is None else bar.update,
    )  # fmt: skip
    try:
        return work.run()
    finally:
        if bar is not None:
            bar.close()


def _told(pictures: Sequence[Picture], folder: Folder, tally: Tally, shard: Shard) -> int:
    """Say how it stands; the exit status: 1 where a picture of this process's part is not there."""
    done = sum(folder.is_done(each) for each in pictures)
    echo(f"{done} of {len(pictures)} pictures are in {folder.root}; {tally.drawn} drawn now")
    if orphans := folder.orphans(pictures):
        tell(f"{orphans} pictures there are of another plan: they stay")
    if tally.lost:
        tell(f"{tally.lost} were drawn in vain: another process was first")
    paths = {each.cell.id: each.path for each in pictures}
    for name, why in tally.failed.items():
        tell(f"{paths[name]} failed: {why}")
    return 1 if tally.failed or (done < len(pictures) and not shard.fixed) else 0


def _estimate(pictures: Sequence[Picture], out: Any, studio: Studio) -> None:
    """Print how many pictures, how many evaluations, and about how long on this machine."""
    from sdcore.experiments.budget import nfe_of
    from sdcore.experiments.sweep.folder import Folder

    folder = Folder(out, "")
    left = [each for each in pictures if not folder.is_done(each)]
    sets: dict[str, list[Picture]] = {}
    for each in left:
        sets.setdefault(each.cell.shared, []).append(each)
    nfe = {key: nfe_of(studio, same[0].cell) for key, same in sets.items()}
    total = sum(nfe[key] * len(same) for key, same in sets.items())
    many = f"{len(pictures)} picture{'s' * (len(pictures) != 1)}"
    echo(f"{many}, {len(pictures) - len(left)} there; {len(left)} to draw, {total} NFE")
    seconds = _seconds_a_nfe(folder.manifest())
    if seconds is None and left:
        cell = min(left, key=lambda each: nfe[each.cell.shared]).cell
        studio.draw([cell])  # the first one also warms up
        drawing = studio.draw([cell])[0]
        seconds = drawing.seconds / drawing.nfe
    if seconds is not None:
        echo(f"about {_time(seconds * total)} for one process on this machine")


def _seconds_a_nfe(manifest: Mapping[str, Mapping[str, Any]]) -> float | None:
    """From what has been drawn already."""
    shares = [line["seconds"] / line["nfe"] for line in manifest.values() if line.get("nfe")]
    return statistics.median(shares) if shares else None


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
