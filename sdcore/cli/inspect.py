"""`sdcore inspect`: what is in a file or a folder."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from sdcore.cli.echo import echo
from sdcore.errors import InputError, one_line
from sdcore.paths import path_of
from sdcore.settings import Settings


@click.command()
@click.argument("place", metavar="FILE_OR_FOLDER")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--variant", metavar="NAME", help="Of a folder's weights: fp16, non_ema ...")
def inspect(place: str, as_json: bool, variant: str | None) -> None:
    """Say what is in FILE_OR_FOLDER: a model, a LoRA, a textual inversion. No weights are read.

    Of a picture: what it says that it was drawn with, by sdcore, A1111 or ComfyUI. Of a run's file
    (sample --state, --record): where it stands, and what it draws.
    """
    report = _picture(place) or _run(place)
    if report is None:
        from sdcore.inspection import inspect as look

        report = look(place, variant)
    echo(json.dumps(report, indent=2) if as_json else "\n".join(_lines(report)))


def _picture(place: str) -> dict[str, Any] | None:
    """What a picture says of itself, by the tool that wrote it; None where it says nothing."""
    from sdcore.images import KEY, texts_of

    path = path_of(place)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp") or not path.is_file():
        return None
    texts = texts_of(path)
    for name, facts in ((KEY, _ours), ("parameters", _a1111), ("prompt", _comfyui)):
        if name in texts:
            try:
                return {"path": str(path), "kind": "picture"} | facts(texts[name])
            except InputError as error:
                raise InputError(f"{place}: {error}") from None
    return None


def _run(place: str) -> dict[str, Any] | None:
    """What is in a file that sample --state or --record wrote; None for any other."""
    from sdcore import state_file
    from sdcore.checkpoints.read import read_metadata
    from sdcore.trajectory.file import KEY as RECORD
    from sdcore.trajectory.file import Trajectory

    path = path_of(place)
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return None
    metadata = read_metadata(path)
    if state_file.KEY in metadata:
        held = state_file.read(path)
        settings = [Settings.from_json(text) for text in held.settings]
        kind, found = "a run on its way: sdcore resume goes on from it", len(held.x)
        facts = {"steps_done": held.index, "steps": max(len(held.sigmas) - 1, 0)}
        facts |= {} if held.sigma is None else {"sigma": held.sigma}
    elif RECORD in metadata:
        record = Trajectory.load(path)
        settings, found = record.settings, len(record.x_next)
        kind = "a recorded run: sdcore replay shows it"
        facts = {"steps": len(record.sigmas) - 1, "steps_recorded": len(record.moments)}
        facts |= {"recorded": [*record.tensors]}
    else:
        return None
    words = [f"{each.prompt}, seed {each.seed}, {each.scheduler}" for each in settings]
    return {"path": str(path), "kind": kind, "pictures": found, **facts, "draws": words}


def _ours(text: str) -> dict[str, Any]:
    settings = asdict(Settings.from_json(text))
    given = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in settings.items()
        if value is not False and value not in (None, (), "")
    }
    return {"drawn_by": f"sdcore {settings['version']}"} | given


def _a1111(text: str) -> dict[str, Any]:
    from sdcore.a1111 import read

    info = read(text)
    loras = [f"{name} ({unet:g}, text {text:g})" for name, unet, text in info.loras]
    told = {"prompt": info.prompt, "negative": info.negative, "loras": loras, **info.options}
    told |= {"seed": info.seed, "model": info.model, "model_hash": info.model_hash}
    return {"drawn_by": "A1111 or alike"} | told | {"notes": list(info.warnings)}


def _comfyui(text: str) -> dict[str, Any]:
    from sdcore.comfyui import read

    samplers = read(text)
    many = {f"sampler {n}": facts for n, facts in enumerate(samplers, 1)}
    return {"drawn_by": "ComfyUI"} | (samplers[0] if len(samplers) == 1 else {"samplers": many})


def _lines(report: dict[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in report.items():
        label = key.replace("_", " ")
        if isinstance(value, dict) and any(isinstance(v, dict) for v in value.values()):
            yield f"{indent}{label}:"
            for name, part in value.items():
                yield f"{indent}  {name:16}" + "  ".join(
                    f"{k} {_shown(v)}" for k, v in part.items()
                )
        elif value not in ([], None):
            yield f"{indent}{label:16}  {_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{one_line(k)} ({_shown(v)})" for k, v in value.items())
    if isinstance(value, list):
        more = f" and {len(value) - 8} more" if value[8:] else ""
        return ", ".join(one_line(str(v)) for v in value[:8]) + more
    return f"{value:,}" if isinstance(value, int) else one_line(str(value))
