"""Write docs/quantization.md: `python -m scripts.quantization`, some minutes on a CPU.

Every type and layout of `sdcore quantize`, on the bundled model: how large the file is, what it
does to pictures of eight seeds, how long loading and a step take. `--type` and `--layout` print
some of the rows, and leave the page alone.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import torch

import sdcore
from sdcore.checkpoints import open_model
from sdcore.checkpoints.quantize import GGUF_TYPES, LAYOUTS, TYPES, quantize
from sdcore.cli.bench import processor
from sdcore.compare.quantization import FLIPPED, Loss, pictures, psnr
from sdcore.pipeline import StableDiffusion
from sdcore.writing import write_whole

PAGE = Path(__file__).parents[1] / "docs" / "quantization.md"
MODEL, PROMPT = "picturebook", "a red house at sunset"

TEXT = """# Quantized weights

```
sdcore quantize MODEL small.gguf                            # the UNet in 4.5 bits a weight
sdcore sample "a red house" --model MODEL --unet small.gguf
sdcore sample "a red house" --model MODEL --unet small.gguf --memory quantized
sdcore quantize MODEL whole.gguf --type q8_0 --layout sdcpp # the whole model, one file
sdcore quantize MODEL small.gguf --measure                  # and how far its pictures are
```

Writing GGUF takes the package `gguf` (`pip install 'sdcore[gguf]'`); reading takes nothing. Read
are GGUF files of sdcore, stable-diffusion.cpp and ComfyUI-GGUF, of the types {types}
and the K types Q2_K to Q6_K; float8 files with scales in both of ComfyUI's spellings, and plain
ones. Weights are worked out on loading, so a step takes as long as ever. With `--memory quantized`
they stay in their small form on the device, and each layer is worked out when its turn comes: less
memory, slower steps, and the picture that `--engine plain` draws, to the bit. LoRAs lie over
either. What is quantized is not quantized again.

| layout | holds | read by |
|---|---|---|
| comfy | the UNet, convolutions too | sdcore; GGUF: ComfyUI-GGUF; fp8: ComfyUI |
| sdcpp | the whole model; its linear layers are quantized | sdcore; GGUF: stable-diffusion.cpp |

A GGUF block lies within a row of a weight, and the rows of a 3x3 convolution have 3 numbers. The
comfy layout lays such a weight out anew and notes its shape; stable-diffusion.cpp has no such note,
and keeps convolutions in 16 bits. They are 63% of the UNet of SD 1.5, and 12% of that of SDXL: for
SD 1.x take comfy. First and last layer, the embeddings of time and sizes, norms and biases stay
float16 or float32 everywhere. Scales of fp8 (`--spelling comfy_quant`, or `scaled_fp8` for older
programs) are of linear layers, since no other reader applies one to a convolution. int8 has one for
every row, of the UNet's convolutions too, and is sdcore's own.

`python -m scripts.sdcpp` checks both ways with stable-diffusion.cpp at the size of SD 1.5; a test
does on a small model. For ComfyUI the files keep to what its readers' code says, and a test holds
names, shapes and notes to that with the `gguf` package's reader: ComfyUI itself was not run.

## Measured

The bundled model `{model}` ({millions:.1f} M weights in the UNet), {seeds} pictures of
"{prompt}" with its own scheduler at {steps} steps, in float32. PSNR is to the
pictures of the model as it is, in dB. Below {flipped:.0f} dB it is another picture rather than a
noisier one: a mean hides that, so the worst and the share of such pictures stand beside it. Bits
are of the file, over the weights in it. Small networks suffer more than large ones. Seconds are
those of one thread of {machine}, by the processor's own clock.

| type | layout | MB | bits | PSNR mean | worst | others | load | step | step, kept small |
|---|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    type: str
    layout: str
    size: int
    bits: float
    loss: Loss
    load: float
    step: float
    kept: float

    def __str__(self) -> str:
        loss, share = self.loss, self.loss.flipped / len(self.loss.decibels)
        quality = f"{loss.mean:.1f} | {loss.worst:.1f} | {share:.0%}"
        seconds = f"{self.load:.2f} | {self.step:.3f} | {self.kept:.3f}"
        size = f"{self.size / 1e6:.1f} | {self.bits:.2f}"
        return f"| {self.type} | {self.layout} | {size} | {quality} | {seconds} |"


def step_seconds(sd: StableDiffusion, steps: int = 6) -> float:
    """The median time of a guided step."""
    times = []
    with torch.inference_mode():
        run = iter(sd.prepare(PROMPT, seeds=[0], steps=steps))
        for _ in range(steps):
            begun = time.process_time()
            next(run)
            times.append(time.process_time() - begun)
    return statistics.median(times[1:])


def load_seconds(rounds: int = 3, **parts: str) -> float:
    times = []
    for _ in range(rounds):
        begun = time.process_time()
        sdcore.load(MODEL, device="cpu", dtype="float32", **parts)
        times.append(time.process_time() - begun)
    return statistics.median(times)


def rows(folder: Path, seeds: int, types: Sequence[str], layouts: Sequence[str]) -> Iterator[Row]:
    checkpoint = open_model(MODEL)
    plain = sdcore.load(MODEL, device="cpu", dtype="float32")
    before = pictures(plain, seeds, PROMPT)
    size = checkpoint.components["unet"].files[0].stat().st_size
    bits = 8 * size / sum(p.numel() for p in plain.unet.parameters())
    same = Loss(tuple(map(psnr, before, before)))
    kept = step_seconds(sdcore.load(MODEL, device="cpu", dtype="float32", memory="quantized"))
    yield Row("float16", "the UNet", size, bits, same, load_seconds(), step_seconds(plain), kept)
    for type in types:
        for layout in layouts:
            ending = "gguf" if type in GGUF_TYPES else "safetensors"
            path = folder / f"{type}-{layout}.{ending}"
            written = quantize(checkpoint, path, type, layout)
            names = checkpoint.components if layout == "sdcpp" else ("unet",)
            parts = dict.fromkeys(names, str(path))
            sd = sdcore.load(MODEL, device="cpu", dtype="float32", **parts)
            loss = Loss(tuple(map(psnr, pictures(sd, seeds, PROMPT), before)))
            small = sdcore.load(MODEL, device="cpu", dtype="float32", memory="quantized", **parts)
            seconds = load_seconds(**parts), step_seconds(sd), step_seconds(small)
            yield Row(type, layout, written.nbytes, written.bits, loss, *seconds)


@click.command()
@click.option("--seeds", default=8, show_default=True)
@click.option("--type", "types", multiple=True, help="Of these alone.  [default: all]")
@click.option("--layout", "layouts", multiple=True, help="Of these alone.  [default: both]")
def main(seeds: int, types: tuple[str, ...], layouts: tuple[str, ...]) -> None:
    """Print the rows, and of all types and layouts write the page."""
    torch.set_num_threads(1)
    sd = sdcore.load(MODEL, device="cpu")
    text = TEXT.format(
        types=", ".join(type.upper() for type in GGUF_TYPES),
        model=MODEL,
        millions=sum(p.numel() for p in sd.unet.parameters()) / 1e6,
        seeds=seeds,
        prompt=PROMPT,
        steps=len(sd.prepare(PROMPT)),
        machine=processor() or platform.machine(),
        flipped=FLIPPED,
    )
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(Path(folder), seeds, types or TYPES, layouts or LAYOUTS):
            click.echo(row)
            text += f"{row}\n"
    if not types and not layouts:
        write_whole(PAGE, text.encode())


if __name__ == "__main__":
    main()
