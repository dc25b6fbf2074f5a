"""What is measured in a process of its own: starting, memory, one section after another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from scripts.gpu_check.networks import asked, ours, theirs, told
from scripts.gpu_check.report import STARTED, Report


def child(report: Report, engine: str, model: str) -> None:
    """A process of its own: seconds to the first prediction and picture, and peak memory."""
    dtype = torch.float16 if report.device.type == "cuda" else torch.float32
    network, vae = (ours(model, part, report, dtype) for part in ("unet", "vae"))
    x, what, _ = told(model, network, report, dtype)
    z = x[:1]
    if engine == "sdcore":
        from sdcore.engine import ready, ready_decoder

        unet, decode = ready(network, [500.5], "auto"), ready_decoder(vae, "auto")
        call = lambda: unet(x, 500.5, **what)  # noqa: E731
    else:
        other, coder = theirs(model, "unet", network, report), theirs(model, "vae", vae, report)
        if engine == "compile":
            other = other.to(memory_format=torch.channels_last)
            coder = coder.to(memory_format=torch.channels_last)
            t = torch.tensor(500.5, device=report.device)
            mode = "max-autotune" if report.device.type == "cuda" else "default"
            other = torch.compile(other, mode=mode, fullgraph=True)
            coder.decode = torch.compile(coder.decode, mode=mode, fullgraph=True)
            call = lambda: asked(other, x, t, what)  # noqa: E731
        else:
            call = lambda: asked(other, x, 500.5, what)  # noqa: E731
        decode = lambda z: coder.decode(z / coder.config.scaling_factor).sample  # noqa: E731
    report.sync()
    taken: dict[str, Any] = {"built, s": time.time() - STARTED}
    for name, function in (("UNet", call), ("VAE", lambda: decode(z))):
        begun = time.time()
        with torch.inference_mode():
            for _ in range(3 if engine == "compile" else 1):
                function()
        report.sync()
        taken[f"{name}, first call, s"] = time.time() - begun
        taken[f"{name}, ms"] = report.timed(function)
        print(json.dumps(taken), flush=True)
    if report.device.type == "cuda":
        taken["peak allocated, MB"] = torch.cuda.max_memory_allocated() // 2**20
        taken["peak reserved, MB"] = torch.cuda.max_memory_reserved() // 2**20
    print(json.dumps(taken), flush=True)


def in_process(report: Report, engine: str, model: str, limit: float) -> None:
    command = [sys.executable, "-m", "scripts.gpu_check", "--child", engine, "--model", model]
    command += ["--device", str(report.device)] + (["--tiny"] if report.tiny else [])
    with tempfile.TemporaryDirectory() as cache:
        env = os.environ | {"TRITON_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": cache}
        log = Path(cache) / "log"
        with log.open("w") as file:
            try:
                subprocess.run(
                    command, env=env, stdout=file, stderr=file, timeout=limit, check=True
                )
            except (subprocess.SubprocessError, OSError) as error:
                report["ended by"] = str(error)[-200:]
                print(log.read_text()[-1500:], flush=True)
        lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    for key, value in (json.loads(lines[-1]) if lines else {}).items():
        report[key] = value


def each_apart(report: Report, names: list[str]) -> None:
    """Every section in a process of its own, which is begun while the one before it runs."""
    assert report.out is not None
    command = [sys.executable, "-m", "scripts.gpu_check", "--gate", "--compile"]
    command += ["--device", str(report.device)]
    command += ["--tiny"] if report.tiny else []
    begun: list[tuple[str, Path, subprocess.Popen]] = []

    def begin(number: int) -> None:
        if number < len(names):
            out = report.out / f"part{number}"
            process = subprocess.Popen(
                [*command, "--only", names[number], "--out", str(out)],
                stdin=subprocess.PIPE, text=True,
            )  # fmt: skip
            begun.append((names[number], out, process))

    begin(0)
    for number in range(len(names)):
        begin(number + 1)
        name, out, process = begun[number]
        print(f"\n#### {time.time() - STARTED:.0f} s", flush=True)
        assert process.stdin is not None
        try:
            process.communicate("\n", timeout=240)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            process.kill()
        written = out / "report.json"
        whole = {name: {"FAILED": "nothing was written"}}
        if written.exists():
            whole = json.loads(written.read_text())
            for file in out.iterdir():
                file.unlink()
            out.rmdir()
        report.sections.update(whole)
        report.write()
