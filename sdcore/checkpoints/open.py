"""A model by its name, described: whichever layout it lies in."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdcore.checkpoints.checkpoint import Checkpoint, check_agreement
from sdcore.checkpoints.find import find_model
from sdcore.checkpoints.folder import PARTS, open_folder
from sdcore.checkpoints.ldm_families import edm_refusal
from sdcore.checkpoints.one_component import open_part
from sdcore.checkpoints.single_file import open_file
from sdcore.errors import InputError
from sdcore.models.vae_config import TINY, VAEConfig

OPTIONS = ("variant", "revision", "ema")


def open_model(
    model: str | Path,
    parts: Mapping[str, str | Path | None] | None = None,
    *,
    variant: str | None = None,
    revision: str | None = None,
    ema: bool = False,
) -> Checkpoint:
    """The checkpoint of a bundled name, a folder, a file or a hub id; no weights are read yet.

    Args:
        parts: components to take from elsewhere: "vae", "unet", "text_encoder", "text_encoder_2",
            each from whatever `open_part` takes; None: the model's own.
        variant: which form of a folder's weights ("fp16").
        revision: of a hub id.
        ema: of a single file, the UNet's averaged weights.

    Raises:
        InputError: what is not there or cannot be made out.
    """
    path = find_model(model, variant, revision)
    if path.is_file():
        if variant is not None:
            raise InputError(f"{path} is one file: it has no variants")
        given = [name for name, place in ({} if parts is None else parts).items() if place]
        checkpoint = open_file(path, ema, given)
    elif ema:
        raise InputError(f"{path} is a folder: its averaged weights are its plain ones")
    else:
        checkpoint = open_folder(path, variant)
    components, notes = dict(checkpoint.components), list(checkpoint.notes)
    for name, place in ({} if parts is None else parts).items():
        if place is None:
            continue
        old = components.get(name, checkpoint.lacking.get(name))
        if old is None:
            raise InputError(f"{path} has no {name} to replace; it has {', '.join(components)}")
        new = open_part(place, old)
        scales = [c.config.get("scaling_factor", VAEConfig.scaling_factor) for c in (new, old)]
        tiny = new.config.get("_class_name") == TINY  # of the model's own latents
        if name == "vae" and scales[0] != scales[1] and not tiny:
            notes.append(
                f"{place} is a VAE for other latents than {path} makes: its scaling factor is "
                f"{scales[0]}, the model's own has {scales[1]}"
            )
        components[name] = new
    order = [name for name in PARTS if name in components]
    components = {name: components[name] for name in order}
    check_agreement(components)
    return replace(checkpoint, components=components, notes=tuple(notes))


def open_source(model: str | Path, source: Mapping[str, Any]) -> Checkpoint:
    """`open_model` with all that `sdcore.load` takes of a model's source in one mapping.

    Raises InputError as it does, and for a model that is not drawn with here.
    """
    unknown = sorted(source.keys() - {*PARTS, *OPTIONS})
    if unknown:
        raise TypeError(f"load() knows no {unknown[0]!r}")
    parts = {name: place for name, place in source.items() if name in PARTS}
    checkpoint = open_model(model, parts, **{k: v for k, v in source.items() if k in OPTIONS})
    refusal = edm_refusal(checkpoint.scheduler, checkpoint.components["vae"].config)
    if refusal:
        raise InputError(f"{checkpoint.path}: {refusal}")
    return checkpoint
