"""What recording a run costs: the size of the file, and the time that it adds to drawing.

    python -m scripts.recording --rounds 9

Each round draws the same picture without and with recording, in turns; decoding is in both. Two
shares, medians over the rounds: (with - without) / without, and the seconds that the recorder
itself took, which a busy machine blurs less.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click
import torch

import sdcore
from sdcore.trajectory import Recorder


def drawn(run: sdcore.Run, path: Path | None) -> tuple[float, float]:
    """Seconds of drawing a picture, recorded where there is a path, and of them the recorder's."""
    begun, spent = time.perf_counter(), 0.0
    with torch.inference_mode():
        recorder = None if path is None else Recorder(run)
        for step in run:
            if recorder is not None:
                before = time.perf_counter()
                recorder.add(step)
                spent += time.perf_counter() - before
        pictures = run.decode(step.x_next)
        if recorder is not None and path is not None:
            before = time.perf_counter()
            recorder.save(path, pictures)
            spent += time.perf_counter() - before
    return time.perf_counter() - begun, spent


@click.command()
@click.option("--model", default="picturebook", show_default=True)
@click.option("--steps", default=20, show_default=True)
@click.option("--rounds", default=9, show_default=True)
def main(model: str, steps: int, rounds: int) -> None:
    """Print size and share."""
    run = sdcore.load(model).prepare("a red house at sunset", steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        pairs = [(drawn(run, None), drawn(run, path)) for _ in range(rounds + 1)][1:]
        size = path.stat().st_size
    shares = sorted(100 * (b - a) / a for (a, _), (b, _) in pairs)
    own = statistics.median(100 * spent / a for (a, _), (_, spent) in pairs)
    plain = statistics.median(a for (a, _), _ in pairs)
    shape = "x".join(map(str, run.start.x.shape[1:]))
    click.echo(
        f"{model}, {steps} steps, latents {shape}, {torch.get_num_threads()} threads: "
        f"{size:,} bytes (x, x0, eps in float32); drawing takes {plain:.3f} s, recording adds "
        f"{statistics.median(shares):.2f} % ({shares[0]:.2f} to {shares[-1]:.2f}), the recorder's "
        f"own work {own:.2f} %"
    )


if __name__ == "__main__":
    main()
