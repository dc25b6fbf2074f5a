"""`sdcore replay` and `sdcore diff`: what `--record` kept, without the model."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdcore.cli.echo import echo, tell
from sdcore.errors import InputError
from sdcore.paths import check_folder, path_of

if TYPE_CHECKING:
    from sdcore.settings import Settings
    from sdcore.trajectory import Difference, Shape


@click.command()
@click.argument("record", metavar="FILE")
@click.option("--film", metavar="FILE", help="A film strip of x0 and of x, as PNG.")
@click.option("--animation", metavar="FILE", help="The same step by step, as animated WebP.")
@click.option("--plot", metavar="FILE", help="Norms, angles and curvature, as PNG.")
@click.option("--milliseconds", default=120, show_default=True, help="Of a step of the animation.")
@click.option("--json", "as_json", is_flag=True, help="The table as JSON.")
def replay(record: str, as_json: bool, milliseconds: int, **files: str | None) -> None:
    """Show FILE, a run that `sdcore sample --record` kept, without the model.

    Prints a line for each recorded step: the root mean square of x, x0 and eps, how far x0 moved,
    the angle between eps and the step before in degrees, and the curvature, the change of eps for
    each unit of ln sigma, relative to eps: 0 where the path is straight.

    Colours of latents come from a linear map that was fitted to the run's own pictures.
    """
    from sdcore.images import save_png
    from sdcore.trajectory import Trajectory, animation, plot, shapes, strip
    from sdcore.writing import write_whole

    if milliseconds < 1:
        raise InputError(f"a step is shown for at least 1 millisecond, not {milliseconds}")
    targets = {name: _target(name, file) for name, file in files.items() if file is not None}
    trajectory = Trajectory.load(record)
    rows = shapes(trajectory)
    echo(json.dumps([asdict(row) for row in rows], indent=1) if as_json else table(rows))
    if not trajectory.complete:
        last = trajectory.moments[-1].index + 1
        tell(f"{record} ends with step {last} of {len(trajectory.sigmas) - 1}")
    if trajectory.colours is None and {"film", "animation"} & targets.keys():
        tell("no picture was decoded when this was recorded: the colours are false")
    for name, path in targets.items():
        if name == "animation":
            write_whole(path, animation(trajectory, milliseconds))
        else:
            save_png(strip(trajectory) if name == "film" else plot(trajectory, rows), path)
        echo(str(path), err=as_json)


def _target(name: str, file: str) -> Path:
    path, ending = path_of(file), ".webp" if name == "animation" else ".png"
    if path.suffix.lower() != ending:
        raise InputError(f"--{name} is written as {ending}: --{name} {path.with_suffix(ending)}")
    check_folder(path.parent)
    return path


def table(rows: list[Shape]) -> str:
    """The shape of a run as a text."""
    heads = ("step", "sigma", "t", "|x|", "|x0|", "|eps|", "x0 moved", "angle", "curvature")
    lines = ["".join(f"{head:>10}" for head in heads)]
    lines += ["".join(f"{_number(value):>10}" for value in astuple(row)) for row in rows]
    return "\n".join(lines)


def _number(value: float | int | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.4g}"


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--tolerance", default=0.0, help="A difference that is none.  [default: 0]")
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
def diff(a: str, b: str, tolerance: float, as_json: bool) -> int:
    """Where two recorded runs part, how far they get, and what differs in their settings.

    A and B are files of `sdcore sample --record`, or two pictures: of those the settings and the
    pixels are compared. The exit status is 1 where they differ.
    """
    from sdcore.trajectory import Trajectory, difference
    from sdcore.trajectory.file import is_record

    records = [is_record(path_of(each)) for each in (a, b)]
    if not any(records):
        return _pictures(path_of(a), path_of(b), as_json)
    result = difference(Trajectory.load(a), Trajectory.load(b), tolerance)
    if as_json:
        echo(json.dumps(asdict(result) | {"same": result.same}, indent=1))
    else:
        echo(report(result))
    return 0 if result.same else 1


def report(result: Difference) -> str:
    """What `diff` prints."""
    from sdcore.trajectory.difference import WHY

    lines = _settings(result.settings)
    lines += [f"{name}: {one} | {other}" for name, (one, other) in result.machine.items()]
    if result.sigmas is not None:
        lines.append(f"the noise levels differ from index {result.sigmas} on")
    if not result.steps:
        lines.append("no two steps are at the same noise level: only their ends can be compared")
    elif result.first is None:
        lines.append("no step that both recorded at the same sigma differs")
    else:
        step, what = result.first
        lines.append(f"they part at step {step}, in {what}: {WHY[what]}")
        names = list(result.steps[0].most)
        heads = ("step", "sigma", *(f"max {name}" for name in names), "rms x_next")
        lines += ["", "".join(f"{head:>12}" for head in heads)]
        for each in result.steps:
            values = [each.most.get(name) for name in names] + [each.rms.get("x_next")]
            row = [str(each.step), f"{each.sigma:.4g}", *map(_number, values)]
            lines.append("".join(f"{cell:>12}" for cell in row))
    lines.append(f"the last latents are {result.end:.4g} apart (root mean square)")
    return "\n".join(lines)


def _settings(apart: dict[str, tuple[Any, Any]]) -> list[str]:
    if not apart:
        return ["the settings are the same"]
    return [f"{name}: {one} | {other}" for name, (one, other) in apart.items()]


def _pictures(a: Path, b: Path, as_json: bool) -> int:
    """The same of two pictures."""
    from sdcore.images import open_picture, to_tensor
    from sdcore.trajectory.difference import pixels_apart, settings_apart

    most, psnr = pixels_apart(*(to_tensor(open_picture(each)) for each in (a, b)))
    held = [_held(each) for each in (a, b)]
    apart = settings_apart(*([each] for each in held if each)) if all(held) else {}
    if as_json:
        echo(json.dumps({"settings": apart, "most": most, "psnr": psnr if most else None}))
        return 1 if most else 0
    for path, settings in zip((a, b), held, strict=True):
        if settings is None:
            echo(f"{path} holds no settings")
    lines = _settings(apart) if all(held) else []
    lines.append(
        "no pixel differs" if most == 0
        else f"a pixel differs by up to {most} of 255; PSNR {psnr:.2f} dB"
    )  # fmt: skip
    echo("\n".join(lines))
    return 1 if most else 0


def _held(path: Path) -> Settings | None:
    from sdcore.images import read_settings

    try:
        return read_settings(path)
    except InputError:
        return None
