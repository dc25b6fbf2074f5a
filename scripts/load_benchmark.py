"""Loading a model of SD 1.5's size, sdcore against diffusers: `python -m scripts.load_benchmark`.

A folder of float16 weights, random and seeded, is written by diffusers with the published
configurations. Then each engine loads it in processes of its own, in turns, to float32 and to
bfloat16, with the files in the page cache (hot) and dropped from it (cold). Needs 2.2 GB of disk
and 7 GB of memory for as long as it runs.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

ENGINES = ("sdcore", "diffusers")
DTYPES = ("float32", "bfloat16")
CACHES = ("hot", "cold")
TARGETS = {"load": 0.5, "peak": 0.7}  # of diffusers' time and memory
IMPORT_TARGET = 0.2  # seconds beyond `import torch`
UNET = {
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "sample_size": 64,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}


def write_model(folder: Path) -> None:
    """A model of SD 1.5's shape in float16, 2.1 GB."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from sdcore.checkpoints import find_model

    builds = {
        "unet": lambda: UNet2DConditionModel(**UNET),
        "vae": lambda: AutoencoderKL(**VAE),
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig(vocab_size=49408, **TEXT)),
    }
    generator = torch.Generator().manual_seed(0)
    for name, build in builds.items():
        with torch.device("meta"):
            network = build()
        network = network.to(torch.float16).to_empty(device="cpu")
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
        network.save_pretrained(folder / name)
        del network
    PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    shutil.copytree(find_model("picturebook") / "tokenizer", folder / "tokenizer")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))


def load_and_tell(engine: str, folder: Path, dtype: str, started: float) -> None:
    """In a fresh process: import, load, and say how long it took in how much memory."""
    if engine == "sdcore":
        import sdcore.loading

        imported, busy = time.time(), time.process_time()
        model = sdcore.loading.load(folder, device="cpu", dtype=dtype)
        parts = (model.text_encoder, model.unet, model.vae)
    else:
        import torch
        from diffusers import StableDiffusionPipeline

        imported, busy = time.time(), time.process_time()
        model = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=getattr(torch, dtype))
        parts = (model.text_encoder, model.unet, model.vae)
    ready, busy = time.time(), time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert {str(p.dtype) for part in parts for p in part.parameters()} == {f"torch.{dtype}"}
    # A sum over every weight: both engines must have read the same ones.
    total = sum(float(p.double().sum()) for part in parts for p in part.parameters())
    result = {
        "load": ready - imported,
        "ready": ready - started,
        "cpu": busy,
        "peak": peak,
        "sum": total,
        "bytes": sum(p.nbytes for part in parts for p in part.parameters()),
    }
    print(json.dumps(result))


def measure(engine: str, folder: Path, dtype: str, cache: str) -> dict[str, float]:
    """One fresh process, after the files have been read once or dropped from the page cache."""
    for path in folder.rglob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            if cache == "cold":
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 24):
                    pass
    command = [sys.executable, "-m", "scripts.load_benchmark", "--child", engine, "--dtype", dtype]
    command += ["--folder", str(folder), "--started", repr(time.time())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=with_bytecode())
    if done.returncode:
        raise click.ClickException(f"{engine} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def with_bytecode() -> dict[str, str]:
    """Each engine with its bytecode at hand, as it is from a user's second run on."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def memory_seconds(size: float, rounds: int) -> float:
    """The least that any loading takes: torch asks the system for so many bytes and fills them."""
    code = (
        "import time, torch; t = time.time(); "
        f"torch.empty({int(size)}, dtype=torch.uint8).fill_(1); print(time.time() - t)"
    )
    return statistics.median(_printed(code) for _ in range(rounds))


def _printed(code: str) -> float:
    """The number that this line of Python prints in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=with_bytecode()
    )
    return float(done.stdout)


def import_seconds(rounds: int) -> dict[str, float]:
    """Medians of importing each of three packages, in fresh processes; the first is not counted."""
    times: dict[str, list[float]] = {"torch": [], "sdcore": [], "sdcore.loading": []}
    for _ in range(rounds + 1):
        for name, seconds in times.items():
            code = f"import time; t = time.time(); import {name}; print(time.time() - t)"
            seconds.append(_printed(code))
    return {name: statistics.median(seconds[1:]) for name, seconds in times.items()}


def _verdict(met: bool) -> str:
    return "met" if met else "missed"


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Processes of each kind.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the model here, or take it.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="All figures, here.")
@click.option("--child", type=click.Choice(ENGINES), hidden=True)
@click.option("--dtype", type=click.Choice(DTYPES), hidden=True)
@click.option("--started", type=float, hidden=True)
def main(
    rounds: int,
    folder: Path | None,
    json_path: Path | None,
    child: str | None,
    dtype: str | None,
    started: float | None,
) -> None:
    """Time both engines at loading one and the same model; print a table."""
    if child is not None:
        assert folder is not None
        assert dtype is not None
        assert started is not None
        load_and_tell(child, folder, dtype, started)
        return
    from tqdm import tqdm

    results: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) if folder is None else folder
        if not (folder / "model_index.json").is_file():
            write_model(folder)
        os.sync()  # pages that are not on the disk yet cannot be dropped
        for _ in tqdm(range(rounds), desc="rounds", disable=None):
            for dtype in DTYPES:
                for cache in CACHES:
                    for engine in ENGINES:
                        row = results.setdefault(f"{engine} {dtype} {cache}", [])
                        row.append(measure(engine, folder, dtype, cache))

    import torch

    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch "
          f"{torch.__version__}, medians of {rounds}\n")  # fmt: skip
    print("| SD 1.5's size, float16 files to | cache | | sdcore | diffusers | ratio | target |")
    print("|---|---|---|---|---|---|---|")
    labels = {"load": "loading", "ready": "process start to ready", "cpu": "loading, CPU time"}
    for dtype in DTYPES:
        for cache in CACHES:
            for row, label in {**labels, "peak": "peak memory"}.items():
                ours, theirs = (
                    statistics.median(r[row] for r in results[f"{engine} {dtype} {cache}"])
                    for engine in ENGINES
                )
                shown = (f"{v:.0f} MB" if row == "peak" else f"{v:.2f} s" for v in (ours, theirs))
                ratio, target = ours / theirs, TARGETS.get(row)
                verdict = "" if target is None else f"{target}: {_verdict(ratio <= target)}"
                print(
                    f"| {dtype} | {cache} | {label} | {' | '.join(shown)} | {ratio:.2f} "
                    f"| {verdict} |"
                )
    for dtype in DTYPES:
        size = results[f"sdcore {dtype} hot"][0]["bytes"]
        print(f"\nnew memory for the weights in {dtype}, {size / 2**20:.0f} MB, filled once: "
              f"{memory_seconds(size, rounds):.2f} s")  # fmt: skip
    sums = {round(r["sum"], 3) for key, rows in results.items() for r in rows if "float32" in key}
    seconds = import_seconds(rounds)
    more = seconds["sdcore.loading"] - seconds["torch"]
    print("\n" + ", ".join(f"import {name} {value:.2f} s" for name, value in seconds.items()))
    print(f"sdcore.loading beyond torch: {more:.2f} s, target {IMPORT_TARGET}: "
          f"{_verdict(more <= IMPORT_TARGET)}")  # fmt: skip
    if json_path is not None:
        from sdcore.writing import write_whole

        write_whole(json_path, json.dumps(results, indent=1).encode())
    if len(sums) > 1:
        raise click.ClickException(f"the engines did not load the same weights: {sums}")


if __name__ == "__main__":
    main()
