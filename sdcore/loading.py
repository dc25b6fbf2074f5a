"""From a checkpoint's files to a model that is ready to draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdcore.checkpoints import (
    Checkpoint,
    Component,
    load_component,
    open_part,
    open_source,
    read_ahead,
    ready_bytes,
)
from sdcore.checkpoints.pack import mode_of, pack
from sdcore.devices import TF32, choose_device, choose_dtype
from sdcore.engine import check_engine
from sdcore.engine import choose as choose_engine
from sdcore.errors import InputError
from sdcore.fingerprint import fingerprint
from sdcore.free_memory import available, give_back, is_out_of_memory
from sdcore.garbage import collection_paused
from sdcore.memory import MODES, apply, choose, next_ready
from sdcore.models import VAE, TextEncoder, TinyVAE
from sdcore.models.unet_inputs import unet_inputs
from sdcore.networks import Reader
from sdcore.options import takes
from sdcore.picture_options import Source
from sdcore.pipeline import StableDiffusion
from sdcore.prompts import Tokenizer, load_tokenizer
from sdcore.stored_weights import note_origin


@takes(Source)
@collection_paused()
def load(source: Source) -> StableDiffusion:
    """A model, ready to draw: sdcore.load(model, device, dtype, memory, and the parts below).

    Raises InputError: no such model or device, broken or contradictory files.
    """
    engine = check_engine("auto" if source.engine is None else source.engine)
    device, tf32 = choose_device(source.device), source.dtype == TF32
    dtype = choose_dtype(source.dtype, device)
    memory = mode_of(source.weights, source.memory)
    checkpoint = open_source(source.model, source.places)
    # A quarter of what is free: the cache must hold it until it is read.
    free = available(torch.device("cpu"))
    read_ahead(checkpoint.components.values(), limit=0 if free is None else free // 4)
    tokenizers = {
        name: load_tokenizer(*checkpoint.vocabulary(name))
        for name in ("text_encoder", "text_encoder_2")
        if name in checkpoint.components
    }
    parts, mode, notes = _that_fit(checkpoint, replace(source, memory=memory), device, dtype)
    notes = (*checkpoint.notes, *notes)
    if engine in ("fast", "compile"):  # asked for by name, or by a picture
        notes = (*notes, *filter(None, [choose_engine(parts["unet"], engine).why]))
    for name, tokenizer in tokenizers.items():
        _check_agreement(checkpoint, tokenizer, parts[name])
    sd = StableDiffusion(
        name=str(source.model),
        readers=tuple(Reader(name, tokenizers[name], parts[name]) for name in tokenizers),
        unet=parts["unet"],
        vae=parts["vae"],
        scheduler_config=checkpoint.scheduler or None,
        device=device,
        dtype=dtype,
        tf32=tf32,
        memory=mode,
        engine=engine,
        zero_empty=checkpoint.index.get("force_zeros_for_empty_prompt", len(tokenizers) > 1),
        notes=notes,
        source=source,
        digests=_digests(checkpoint, source),
    )
    try:
        _ = sd.family
    except InputError as error:
        raise InputError(f"{checkpoint.path}: {error}") from None
    return sd


def _that_fit(
    checkpoint: Checkpoint, source: Source, device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """The networks, the mode of memory in which there is room for them, and a line for each that
    was tried before. Raises InputError where there is none."""
    components, notes = checkpoint.components, ()
    dtypes = {name: _dtype_of(c, checkpoint, dtype) for name, c in components.items()}
    sizes = [ready_bytes(c, dtypes[name]) for name, c in components.items()]
    mode = choose(source.memory, sizes, available(device))
    while True:
        try:
            return _parts(components, mode, device, dtypes, source.weights), mode, notes
        except (RuntimeError, MemoryError, OSError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the except clause, whose traceback holds on to the tensors.
        give_back()
        mode = next_ready(mode)
        if mode is None:
            raise InputError(
                f"out of memory on {device} while loading {source.model}, even with --memory low: "
                f"its weights take {sum(sizes) / 1e9:.1f} GB in {_name(dtype)}"
            )
        notes = (*notes, f"out of memory while loading; going on with --memory {mode}")


def _parts(
    components: Mapping[str, Component],
    mode: str,
    device: torch.device,
    dtypes: Mapping[str, torch.dtype],
    weights: str | None,
) -> dict[str, Any]:
    """The networks, in this mode of memory, the UNet's weights held so."""
    stored = MODES[mode].ready != "all"
    parts: dict[str, Any] = {}
    for name, component in components.items():
        where = ("cpu", None) if stored else (device, dtypes[name])
        parts[name] = load_component(component, *where, packed=stored)
        if not stored:
            note_origin(parts[name], component.files, partial(_stored_weights, component))
        if name == "unet" and weights is not None:
            pack(parts[name], weights)
    apply(parts, mode, device, dtypes)
    return parts


def _stored_weights(component: Component) -> dict[str, Tensor]:
    """A component's weights as its files have them."""
    return load_component(component, "cpu", None, packed=True).state_dict(keep_vars=True)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def load_vae(
    place: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    scaling_factor: float = 0.18215,
) -> VAE | TinyVAE:
    """A VAE by itself, such as a tiny one (TAESD) that shows every step: `.decode(x0)`.

    Args:
        place: a file of it or of a whole model, a folder, a hub id.
        scaling_factor: of its latents, where it is a file that does not say (SDXL's: 0.13025).

    Raises:
        InputError: nothing of that name, or no VAE in it.
    """
    like = Component("vae", {"scaling_factor": scaling_factor}, Path(), (), lambda key: {})
    vae = load_component(open_part(place, like), device, dtype)
    assert isinstance(vae, VAE | TinyVAE)
    return vae


def _digests(checkpoint: Checkpoint, source: Source) -> dict[str, str]:
    """The fingerprint of what was read from each place."""
    files: dict[str, list[Path]] = {}
    for name, component in checkpoint.components.items():
        place = str(source.places.get(name, source.model))
        files.setdefault(place, []).extend(component.files)
    return {place: fingerprint(paths) for place, paths in files.items()}


def _dtype_of(component: Component, checkpoint: Checkpoint, dtype: torch.dtype) -> torch.dtype:
    """The networks' dtype; SDXL's VAE, which overflows in float16 and says so, is float32."""
    sdxl = unet_inputs(checkpoint.components["unet"].config).added
    # null is diffusers' default, true; the configuration is checked where the VAE is built.
    upcast = component.name == "vae" and component.config.get("force_upcast") is not False
    return torch.float32 if sdxl and upcast and dtype == torch.float16 else dtype


def _check_agreement(checkpoint: Checkpoint, tokenizer: Tokenizer, encoder: TextEncoder) -> None:
    last = max(tokenizer.backend.get_vocab().values(), default=0)
    known = encoder.config.vocab_size
    if last >= known:  # how many there are says nothing: there may be gaps
        raise InputError(
            f"{checkpoint.path}: the tokenizer has ids up to {last}, and the encoder knows {known}"
        )
    if tokenizer.length > encoder.config.max_position_embeddings:
        raise InputError(f"{checkpoint.path}: the tokenizer writes more tokens than can be read")
