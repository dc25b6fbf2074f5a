"""What the modes of memory cost and save: `python -m scripts.memory_modes --model FOLDER`.

Each mode draws one picture in a process of its own. Peak memory: largest resident set, with
(`all`) and without (`own`) the pages of mapped files, which the system takes back when it needs
them. Without --model: random float16 weights of SD 1.5's size, and a model of 2.2 GB is written
for as long as it runs. With --limits each mode draws by the command `sdcore sample` within so many
GB of address space (`ulimit -v`): drawn, or the line by which it was refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import click

MODES = ("fast", "balanced", "low")


class Peak(threading.Thread):
    """The largest anonymous memory of this process, looked at every 5 ms (Linux)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = self.all = 0

    def run(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text().splitlines()
            sizes = {line.split(":")[0]: line.split()[1] for line in status if "kB" in line}
            self.own = max(self.own, int(sizes["RssAnon"]))
            self.all = max(self.all, int(sizes["VmHWM"]))
            time.sleep(0.005)


def draw(model: str, mode: str, dtype: str, side: int, steps: int) -> None:
    """One picture; figures as JSON on stdout."""
    import torch

    import sdcore

    peak = Peak()
    peak.start()
    begun = time.perf_counter()
    sd = sdcore.load(model, device="cpu", dtype=dtype, memory=mode)
    ready = time.perf_counter()
    run = sd.prepare("a red house", steps=steps, width=side, height=side)
    with torch.inference_mode():
        for step in run:
            x = step.x_next
        looped = time.perf_counter()
        picture = run.decode(x)[0]
    figures = {
        "load": ready - begun,
        "step": (looped - ready) / steps,
        "decode": time.perf_counter() - looped,
        "own": peak.own / 1e6,
        "all": peak.all / 1e6,
        "digest": hashlib.sha256(picture.tobytes()).hexdigest()[:8],
    }
    print(json.dumps(figures))


def limited(model: str, mode: str, dtype: str, side: int, steps: int, limit: float) -> str:
    """A row of the table of --limits."""
    import resource

    command = [sys.executable, "-m", "sdcore", "sample", "a red house", "--model", model]
    command += ["--device", "cpu", "--dtype", dtype, "--memory", mode, "--seed", "1"]
    command += ["--width", str(side), "--height", str(side), "--steps", str(steps)]
    kept = round(limit * 1e9)
    with tempfile.TemporaryDirectory() as out, tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [*command, "--out", f"{out}/a.png"],
            stdout=subprocess.DEVNULL,
            stderr=said,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (kept, kept)),
        )
        _, status, used = os.wait4(process.pid, 0)
        drawn = os.waitstatus_to_exitcode(status) == 0 and Path(out, "a.png").is_file()
        said.seek(0)
        lines = [line.strip() for line in said if line.startswith("sdcore: ")]
        said.seek(0)
        how = "drawn" if drawn else f"refused ({os.waitstatus_to_exitcode(status)})"
        how = "TRACEBACK" if "Traceback" in said.read() else how
    told = "; ".join(line.removeprefix("sdcore: ") for line in lines)
    return f"| {limit:g} | {mode} | {how} | {used.ru_maxrss * 1024 / 1e9:.2f} | {told} |"


@click.command()
@click.option("--model", help="Bundled name, folder, file.")
@click.option("--dtype", default="float32", show_default=True)
@click.option("--side", default=256, show_default=True, help="Of the picture, pixels.")
@click.option("--steps", default=2, show_default=True)
@click.option("--limits", metavar="GB,GB...", help="E.g. 5,4,3,2.")
@click.option("--child", hidden=True)
def main(
    model: str | None, dtype: str, side: int, steps: int, limits: str | None, child: str | None
) -> None:
    """Print a table: mode, seconds, peak memory in GB, and whether the pictures are equal."""
    if child is not None:
        assert model is not None
        draw(model, child, dtype, side, steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        if model is None:
            from scripts.load_benchmark import write_model

            write_model(Path(folder))
            model = folder
        if limits is not None:
            click.echo("| limit GB | mode | | peak GB | said |")
            click.echo("|---:|---|---|---:|---|")
            for limit in map(float, limits.split(",")):
                for mode in MODES:
                    click.echo(limited(model, mode, dtype, side, steps, limit))
            return
        click.echo("| mode | load s | s a step | decode s | own GB | all GB | picture |")
        click.echo("|---|---:|---:|---:|---:|---:|---|")
        for mode in MODES:
            command = [sys.executable, "-m", "scripts.memory_modes", "--model", model]
            command += ["--dtype", dtype, "--side", str(side), "--steps", str(steps)]
            done = subprocess.run(
                [*command, "--child", mode], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise click.ClickException(done.stderr.strip().splitlines()[-1])
            f = json.loads(done.stdout.splitlines()[-1])
            numbers = " | ".join(f"{f[k]:.2f}" for k in ("load", "step", "decode", "own", "all"))
            click.echo(f"| {mode} | {numbers} | {f['digest']} |")


if __name__ == "__main__":
    main()
