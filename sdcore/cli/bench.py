"""`sdcore bench`: how long a model takes on this machine."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sdcore.cli.echo import echo
from sdcore.errors import InputError

if TYPE_CHECKING:
    from sdcore.engine.bench import Timing


@click.command()
@click.option("--model", default="picturebook", help="Bundled name, folder, file, or hub id.")
@click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps.  [default: the best]")
@click.option("--dtype", metavar="NAME", help="Of the networks: float32, bfloat16, float16.")
@click.option("--width", type=int, help="Pixels, a multiple of 8.  [default: the model's]")
@click.option("--height", type=int, help="Pixels, a multiple of 8.  [default: the model's]")
@click.option("--batch", default=1, show_default=True, help="Pictures in one step.")
@click.option("--rounds", default=10, show_default=True, help="Calls of each engine, in turns.")
@click.option("--compile", "compiled", is_flag=True, help="Time torch.compile too: minutes.")
@click.option("--json", "as_json", is_flag=True, help="Every call, in seconds, as JSON.")
def bench(
    model: str,
    device: str | None,
    dtype: str | None,
    width: int | None,
    height: int | None,
    batch: int,
    rounds: int,
    compiled: bool,
    as_json: bool,
) -> None:
    """Time a guided step and the decoding of a picture, plainly and in the fast form."""
    if min(batch, rounds) < 1:
        raise InputError("--batch and --rounds are at least 1")
    from sdcore.engine import choose
    from sdcore.engine.bench import bench as run
    from sdcore.loading import load

    sd = load(model, device, dtype)
    run_size = sd.prepare("", width=width, height=height, steps=1).settings[0]
    engines = ("plain", "auto", *(("compile",) if compiled else ()))
    size = (run_size.height, run_size.width)
    timings = run(sd.unet, sd.vae, size, engines, rounds, batch)
    if as_json:
        raw = {what: {e: asdict(t) for e, t in by.items()} for what, by in timings.items()}
        echo(json.dumps({"settings": asdict(run_size), "timings": raw}))
        return
    import torch

    machine = torch.cuda.get_device_name(sd.device) if sd.device.type == "cuda" else processor()
    echo(
        f"{model}, {size[1]}x{size[0]}, batch {batch}, {run_size.dtype} on {machine}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads\n"
    )
    echo("| | first call | median | of plain, in the same round |\n|---|---|---|---|")
    for what, by in timings.items():
        for engine, timing in by.items():
            echo(_row(f"{what}, {engine}", timing, by["plain"]))
    why = choose(sd.unet, "auto").why
    if "auto" not in timings["step"]:
        echo(f"\nthere is no fast form here{'' if why is None else ': ' + why}")


def _row(name: str, timing: Timing, plain: Timing) -> str:
    from sdcore.engine.bench import ratios

    middle, least, most = ratios(timing, plain)
    share = "1" if timing is plain else f"{middle:.2f} ({least:.2f} to {most:.2f})"
    return f"| {name} | {1e3 * timing.first:.1f} ms | {1e3 * timing.median:.1f} ms | {share} |"


def processor() -> str:
    """What the system calls it."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
