"""Quantized files between sdcore and stable-diffusion.cpp: `python -m scripts.sdcpp`.

A whole model of SD 1.5's size with seeded random weights, as one float16 file (2.1 GB; all is
written to a temporary folder and removed), and with its Python binding (pip install cyllama):

* sdcore quantizes it in the layout sdcpp; stable-diffusion.cpp draws with that file, and with the
  float16 one and its own quantized one, from the same seed;
* stable-diffusion.cpp quantizes it; sdcore loads that file strictly, and compares every weight
  with the float16 one.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from scripts import families
from sdcore.checkpoints import load_component, open_file, open_model
from sdcore.checkpoints.convert import convert
from sdcore.checkpoints.quantize import quantize
from sdcore.checkpoints.read import Weights, read_header
from sdcore.compare.quantization import psnr

OURS = ("q8_0", "q4_0")
THEIRS = ("Q8_0", "Q4_0", "Q4_K", "Q6_K")
SIDE, SEED, PROMPT = 64, 1, "a red house at sunset"


def drawn(path: Path, steps: int) -> np.ndarray:
    """A picture by stable-diffusion.cpp, [H, W, 3] of 0 to 255."""
    from cyllama.sd import text_to_image  # type: ignore

    image = text_to_image(
        str(path), PROMPT, width=SIDE, height=SIDE, seed=SEED, sample_steps=steps, cfg_scale=2.0
    )
    return image.to_numpy().astype(np.float64)


def errors(path: Path, source: Path) -> tuple[Counter[str], float]:
    """How a file stores its tensors, and the largest relative error of a quantized one."""
    info, whole = read_header(path), read_header(source)
    worst = 0.0
    # One of each a time: both files are mapped.
    for key, tensor in Weights((path,)).read(info.keys() & whole.keys(), torch.float32):
        ((_, true),) = Weights((source,)).read({key}, torch.float32)
        if info[key].packed:
            worst = max(worst, float((tensor.view_as(true) - true).norm() / true.norm()))
    return Counter(i.dtype for i in info.values()), worst


def rows(folder: Path, steps: int) -> Iterator[tuple[Any, ...]]:
    from cyllama.sd.stable_diffusion import SDType, convert_model  # type: ignore

    model = families.write(folder / "model", families.find("sd15"), torch.float16)
    checkpoint, source = open_model(model), folder / "sd15.safetensors"
    convert(checkpoint, source)
    reference = drawn(source, steps)
    yield "float16", "sdcore", source, None, reference, reference
    pictures: dict[str, np.ndarray] = {}
    for type in THEIRS:
        path = folder / f"theirs-{type}.gguf"
        # Without any rule the binding hands on a null pointer, which ends the process.
        convert_model(str(source), str(path), SDType[type], tensor_type_rules="no such name=f16")
        if type.lower() in OURS:
            pictures[type] = drawn(path, steps)
        _load(path)
        yield (
            type,
            "stable-diffusion.cpp",
            path,
            errors(path, source),
            pictures.get(type),
            reference,
        )
        path.unlink()
    for type in OURS:
        path = folder / f"ours-{type}.gguf"
        quantize(checkpoint, path, type, "sdcpp")
        _load(path)
        yield type, "sdcore", path, errors(path, source), drawn(path, steps), pictures[type.upper()]
        path.unlink()


def _load(path: Path) -> None:
    """Every network, strictly: each key is wanted, and each wanted key is there."""
    for component in open_file(path).components.values():
        load_component(component, "cpu", None, packed=True)


@click.command()
@click.option("--steps", default=1, show_default=True, help="Of a picture of 64 x 64.")
def main(steps: int) -> None:
    """Print a line for each file: who wrote it, how large, both readers' results."""
    with tempfile.TemporaryDirectory() as folder:
        for type, by, path, found, picture, beside in rows(Path(folder), steps):
            text = f"{type:8} by {by:20} {path.stat().st_size / 1e6:6.0f} MB"
            if found is not None:
                stored = ", ".join(f"{kind} {n}" for kind, n in found[0].most_common())
                text += f"; sdcore reads {stored}, largest error {found[1]:.1e}"
            if picture is not None:
                text += f"; stable-diffusion.cpp draws it: spread {picture.std():.0f} of 255"
            if picture is not None and picture is not beside:
                whose = "its own file's" if by == "sdcore" else "float16's"
                text += f", PSNR to {whose} picture {psnr(picture, beside):.1f} dB"
            click.echo(text)


if __name__ == "__main__":
    main()
