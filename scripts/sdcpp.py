"""Quantized files between sdcore and stable-diffusion.cpp: `python -m scripts.sdcpp`.

A whole model of SD 1.5's size with seeded random weights, as one float16 file (with the folder that
it is made of 4.3 GB, in `--work`), and with its Python binding (pip install cyllama):

* sdcore quantizes it in the layout sdcpp; stable-diffusion.cpp draws with that file, and with the
  float16 one and its own quantized one, from the same seed;
* stable-diffusion.cpp quantizes it; sdcore loads that file strictly, and compares every weight
  with the float16 one.

What is done is kept in `--work`: stopped, the same command goes on. Files of other code or of
another machine are not looked at.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch

from scripts import families
from scripts.measured import state
from sdcore.checkpoints import load_component, open_file, open_model
from sdcore.checkpoints.convert import convert
from sdcore.checkpoints.quantize import quantize
from sdcore.checkpoints.read import Weights, read_header
from sdcore.compare.quantization import psnr
from sdcore.writing import write_whole

OURS = ("q8_0", "q4_0")
THEIRS_BY = "stable-diffusion.cpp"
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


def rows(work: Path, steps: int) -> Iterator[str]:
    """A line for each file: who wrote it, how large, both readers' results."""
    model, source = work / "model", work / "sd15.safetensors"
    if not source.is_file():
        if not (model / "model_index.json").is_file():  # which is written last
            families.write(model, families.find("sd15"), torch.float16)
        convert(open_model(model), source)
    work /= state()
    work.mkdir(exist_ok=True)
    reference = _kept(work / f"float16-{steps}.npy", source, steps)
    yield _line("float16", "sdcore", source) + _spread(reference)
    files = [(type, THEIRS_BY) for type in THEIRS] + [(t, "sdcore") for t in OURS]
    for type, by in files:
        line = work / f"{by}-{type}-{steps}.txt"
        if not line.is_file():
            write_whole(line, _row(work, model, source, type, by, steps, reference).encode())
        yield line.read_text()


def _row(
    work: Path, model: Path, source: Path, type: str, by: str, steps: int, reference: np.ndarray
) -> str:
    path = work / f"{by}-{type}.gguf"
    path.unlink(missing_ok=True)
    if by == "sdcore":
        quantize(open_model(model), path, type, "sdcpp")
    else:
        from cyllama.sd.stable_diffusion import SDType, convert_model  # type: ignore

        # Without any rule the binding hands on a null pointer, which ends the process.
        convert_model(str(source), str(path), SDType[type], tensor_type_rules="no such name=f16")
    for component in open_file(path).components.values():  # strictly: each key is wanted
        load_component(component, "cpu", None, packed=True)
    stored, worst = errors(path, source)
    text = _line(type, by, path) + (
        f"; sdcore reads {', '.join(f'{kind} {n}' for kind, n in stored.most_common())}, "
        f"largest error {worst:.1e}"
    )
    if type.lower() in OURS:
        picture = _kept(work / f"{by}-{type.lower()}-{steps}.npy", path, steps)
        beside, whose = reference, "float16's"
        if by == "sdcore":
            beside, whose = np.load(work / f"{THEIRS_BY}-{type}-{steps}.npy"), "its own file's"
        text += _spread(picture) + f", PSNR to {whose} picture {psnr(picture, beside):.1f} dB"
    path.unlink()
    return text


def _kept(path: Path, model: Path, steps: int) -> np.ndarray:
    """The picture that was drawn with a file, once."""
    if not path.is_file():
        picture = drawn(model, steps)
        data = io.BytesIO()
        np.save(data, picture)
        write_whole(path, data.getvalue())
    return np.load(path)


def _line(type: str, by: str, path: Path) -> str:
    return f"{type:8} by {by:20} {path.stat().st_size / 1e6:6.0f} MB"


def _spread(picture: np.ndarray) -> str:
    return f"; stable-diffusion.cpp draws it: spread {picture.std():.0f} of 255"


@click.command()
@click.option("--steps", default=1, show_default=True, help="Of a picture of 64 x 64.")
@click.option(
    "--work", type=click.Path(path_type=Path), default=Path("runs/sdcpp"), show_default=True
)
def main(steps: int, work: Path) -> None:
    """Print a line for each file: who wrote it, how large, both readers' results."""
    work.mkdir(parents=True, exist_ok=True)
    for row in rows(work, steps):
        click.echo(row)


if __name__ == "__main__":
    main()
