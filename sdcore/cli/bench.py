"""`sdcore bench`: how long a model takes on this machine."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

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
    """Time a guided step and the decoding of a picture, plainly and in the fast form.

    Each form runs in a process of its own, so there must be room for the model twice.
    """
    if min(batch, rounds) < 1:
        raise InputError("--batch and --rounds are at least 1")
    from sdcore.checkpoints import find_model
    from sdcore.cli.bench_process import Asked, EngineProcess
    from sdcore.engine.bench import in_turns

    find_model(model)  # before there are processes; and is fetched once, where it must be
    asked = Asked(model, device, dtype, width, height, batch)
    engines = ("plain", "auto", *(("compile",) if compiled else ()))
    processes = {engine: EngineProcess(asked, engine) for engine in engines}
    about = {engine: process.ask("about") for engine, process in processes.items()}
    timings: dict[str, dict[str, Timing]] = {}
    for what in about["plain"]["works"]:
        able = [engine for engine in engines if what in about[engine]["works"]]
        ask = {engine: partial(processes[engine].ask, what) for engine in able}
        timings[what] = in_turns(ask, rounds)
    peaks = {e: processes[e].ask("peak") for e in engines if about[e]["works"]}
    for process in processes.values():
        process.end()
    if as_json:
        raw = {what: {e: asdict(t) for e, t in by.items()} for what, by in timings.items()}
        settings = about["plain"]["settings"]
        echo(json.dumps({"settings": settings, "timings": raw, "peak_bytes": peaks}))
    else:
        echo("\n".join(table(model, batch, about["plain"], timings, peaks)))


def table(
    model: str,
    batch: int,
    about: dict[str, Any],
    timings: dict[str, dict[str, Timing]],
    peaks: dict[str, int | None],
) -> list[str]:
    """Lines of markdown: of what, on what, and a row for each engine and work."""
    said, device = about["settings"], about["device"]
    lines = [
        f"{model}, {said['width']}x{said['height']}, batch {batch}, {said['dtype']} on "
        f"{device or processor()}, torch {about['torch']}, {about['threads']} threads",
        "",
        "| | first call | median | of plain, in the same round |",
        "|---|---|---|---|",
    ]
    for what, by in timings.items():
        lines += [_row(f"{what}, {engine}", timing, by["plain"]) for engine, timing in by.items()]
    whose = "the device" if device else "the process"
    for engine, peak in peaks.items():
        if peak is not None:
            share = "1" if engine == "plain" else f"{peak / (peaks['plain'] or peak):.2f}"
            lines.append(f"| peak memory of {whose}, {engine} | | {peak / 1e6:.0f} MB | {share} |")
    if "auto" not in timings["step"]:
        why = about["why"]
        lines += ["", "there is no fast form here" + ("" if why is None else f": {why}")]
    return lines


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
