"""Write docs/quantization.md: `python -m scripts.quantization`, some minutes on a CPU.

Every type and layout of `sdcore quantize`, on the bundled model: how large the file is, what it
does to pictures of eight seeds, how long loading and a step take. What this code has measured on
this machine is taken from `--work`: stopped, the same command goes on. `--type` and `--layout`
print some of the rows, and leave the page alone.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch

import sdcore
from scripts.measured import state
from sdcore.checkpoints import open_model
from sdcore.checkpoints.quantize import GGUF_TYPES, LAYOUTS, TYPES, quantize
from sdcore.cli.bench import processor
from sdcore.compare.quantization import FLIPPED, Loss, pictures, psnr
from sdcore.pipeline import StableDiffusion
from sdcore.writing import write_whole

PAGE = Path(__file__).parents[1] / "docs" / "quantization.md"
MODEL, PROMPT = "picturebook", "a red house at sunset"
HOW: dict[str, Any] = {"scheduler": "dpmpp_2m", "spacing": "karras", "steps": 20, "cfg": 7.5}

TEXT = """# Quantized weights

```
sdcore quantize MODEL small.gguf                            # the UNet in q4_0: blocks of 4.5 bits
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

`python -m scripts.quantization` writes this page.

The bundled model `{model}` ({millions:.1f} M weights in the UNet), {seeds} pictures of
"{prompt}" by {scheduler} on {spacing} sigmas in {steps} steps, cfg {cfg}, in float32.
PSNR is to the pictures of the model as it is, in dB. Below {flipped:.0f} dB it is another picture
rather than a noisier one: a mean hides that, so the worst and the share of such pictures stand
beside it. Small networks suffer more than large ones. Seconds are those of one thread of
{machine}, by the processor's own clock.

Bits are all of the file's, over all the weights in it. A block of q4_0 is 18 bytes for 32 weights,
4.5 bits each (q4_1 5, q5_0 5.5, q5_1 6, q8_0 8.5). With what stays float16 and float32 the average
is {comfy}; in the layout sdcpp it is {sdcpp}, since of this small model little is quantized there.

| type | layout | MB | bits | PSNR mean | worst | others | load | step | step, kept small |
|---|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    type: str
    layout: str
    size: int
    bits: float
    decibels: tuple[float, ...]  # of each picture; none of the model as it is
    load: float
    step: float
    kept: float

    def __str__(self) -> str:
        quality = "itself | itself | -"
        if self.decibels:
            loss = Loss(self.decibels)
            share = loss.flipped / len(self.decibels)
            quality = f"{loss.mean:.1f} | {loss.worst:.1f} | {share:.0%}"
        seconds = f"{self.load:.2f} | {self.step:.3f} | {self.kept:.3f}"
        size = f"{self.size / 1e6:.1f} | {self.bits:.2f}"
        return f"| {self.type} | {self.layout} | {size} | {quality} | {seconds} |"


def step_seconds(sd: StableDiffusion, steps: int = 6) -> float:
    """The median time of a guided step."""
    times = []
    with torch.inference_mode():
        run = iter(sd.prepare(PROMPT, seeds=[0], **{**HOW, "steps": steps}))
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


def measured(type: str, layout: str, seeds: int, folder: Path) -> Row:
    """One row; type float16: of the model as it is."""
    checkpoint = open_model(MODEL)
    plain = sdcore.load(MODEL, device="cpu", dtype="float32")
    if type == "float16":
        size = checkpoint.components["unet"].files[0].stat().st_size
        bits = 8 * size / sum(p.numel() for p in plain.unet.parameters())
        kept = step_seconds(sdcore.load(MODEL, device="cpu", dtype="float32", memory="quantized"))
        return Row(type, layout, size, bits, (), load_seconds(), step_seconds(plain), kept)
    before = pictures(plain, seeds, PROMPT, **HOW)
    path = folder / f"{type}-{layout}.{'gguf' if type in GGUF_TYPES else 'safetensors'}"
    path.unlink(missing_ok=True)
    written = quantize(checkpoint, path, type, layout)
    names = checkpoint.components if layout == "sdcpp" else ("unet",)
    parts = dict.fromkeys(names, str(path))
    sd = sdcore.load(MODEL, device="cpu", dtype="float32", **parts)
    decibels = tuple(map(psnr, pictures(sd, seeds, PROMPT, **HOW), before))
    small = sdcore.load(MODEL, device="cpu", dtype="float32", memory="quantized", **parts)
    seconds = load_seconds(**parts), step_seconds(sd), step_seconds(small)
    path.unlink()
    return Row(type, layout, written.nbytes, written.bits, decibels, *seconds)


def kept(type: str, layout: str, seeds: int, work: Path) -> Row:
    """The row, measured once for each model, code and machine, and kept in `work`."""
    (digest,) = sdcore.load(MODEL, device="cpu").digests.values()
    path = work / state() / f"{type}-{layout.replace(' ', '-')}-{seeds}-{digest[:12]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        values = json.loads(path.read_text())
        return Row(**{**values, "decibels": tuple(values["decibels"])})
    row = measured(type, layout, seeds, work)
    write_whole(path, json.dumps(asdict(row)).encode())
    return row


@click.command()
@click.option("--seeds", default=8, show_default=True)
@click.option("--type", "types", multiple=True, help="Of these alone.  [default: all]")
@click.option("--layout", "layouts", multiple=True, help="Of these alone.  [default: both]")
@click.option(
    "--work", type=click.Path(path_type=Path), default=Path("runs/quantization"), show_default=True,
    help="Folder for what has been measured.",
)  # fmt: skip
def main(seeds: int, types: tuple[str, ...], layouts: tuple[str, ...], work: Path) -> None:
    """Print the rows, and of all types and layouts write the page."""
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    wanted = [("float16", "the UNet")]
    wanted += [(type, layout) for type in types or TYPES for layout in layouts or LAYOUTS]
    rows = []
    for type, layout in wanted:
        rows.append(kept(type, layout, seeds, work))
        click.echo(rows[-1])
    if types or layouts:
        return
    sd = sdcore.load(MODEL, device="cpu")
    bits = {(row.type, row.layout): f"{row.bits:.2f}" for row in rows}
    text = TEXT.format(
        types=", ".join(type.upper() for type in GGUF_TYPES),
        model=MODEL,
        millions=sum(p.numel() for p in sd.unet.parameters()) / 1e6,
        seeds=seeds,
        prompt=PROMPT,
        **HOW,
        machine=processor() or platform.machine(),
        flipped=FLIPPED,
        comfy=bits["q4_0", "comfy"],
        sdcpp=bits["q4_0", "sdcpp"],
    )
    write_whole(PAGE, (text + "".join(f"{row}\n" for row in rows)).encode())


if __name__ == "__main__":
    main()
