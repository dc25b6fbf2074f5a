"""The fast engine on a GPU: is it right, and how fast is it beside diffusers.

    python -m scripts.gpu_check --out FOLDER --apart      # about 3 minutes
    python -m scripts.gpu_check --out FOLDER --compile    # and diffusers by torch.compile
    python -m scripts.gpu_check --out FOLDER --apart --owed    # what no GPU has shown yet, first
    python -m scripts.gpu_check --tiny --device cpu       # does the script itself run

Networks of the published sizes from random weights, scaled so that numbers keep their size: what is
compared is arithmetic. Each section stands by itself, prints as it goes, and its failure is printed
and ends nothing else; report.md and report.json hold everything that was measured.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch

from scripts.gpu_check.networks import SD15, SDXL
from scripts.gpu_check.processes import child, each_apart, in_process
from scripts.gpu_check.report import STARTED, Report
from scripts.gpu_check.right import check_kernels, check_unet
from scripts.gpu_check.runs import time_lossy, time_run
from scripts.gpu_check.timing import time_attention, time_unet, time_upload, time_vae

OWED = ("environment", "pytest cuda", "right SDXL UNet", "right SD 1.5 UNet", "process sdcore",
        "process diffusers", "upload", "lossy SD 1.5", "process compile")  # fmt: skip


def environment(report: Report) -> None:
    report["torch"], report["python"] = torch.__version__, sys.version.split()[0]
    if report.device.type == "cuda":
        report["device"] = torch.cuda.get_device_name()
        report["cudnn"] = torch.backends.cudnn.version()
    for name in ("triton", "diffusers", "transformers"):
        try:
            report[name] = __import__(name).__version__
        except Exception as error:
            report[name] = f"{type(error).__name__}: {error}"


def tests(report: Report) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "cuda", "tests"],
        capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    print(done.stdout[-3000:], done.stderr[-500:], flush=True)
    report["pytest -m cuda"] = (done.stdout.strip().splitlines() or ["nothing"])[-1]


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Folder of report.md, report.json.")
@click.option("--device", default="cuda", show_default=True)
@click.option("--tiny", is_flag=True, help="Networks of no size, to try the script.")
@click.option("--compile", "compiled", is_flag=True, help="Also diffusers by torch.compile.")
@click.option("--only", help="Sections whose name holds one of these words, comma-separated.")
@click.option("--owed", is_flag=True, help="Only the sections that no GPU has shown yet.")
@click.option("--apart", is_flag=True, help="Each section in a process of its own.")
@click.option("--gate", is_flag=True, hidden=True)
@click.option("--child", "engine", hidden=True)
@click.option("--model", default=SD15, hidden=True)
def main(
    out: Path | None, device: str, tiny: bool, compiled: bool, only: str | None,
    owed: bool, apart: bool, gate: bool, engine: str | None, model: str,
) -> None:  # fmt: skip
    """Check and time the fast engine; print as it goes."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    report = Report(out, torch.device(device), tiny)
    if engine is not None:
        child(report, engine, model)
        return
    sections: dict[str, Callable[[], None]] = {
        "environment": lambda: environment(report),
        "time SD 1.5 512 UNet": lambda: time_unet(report, SD15),
        "time VAE 512": lambda: time_vae(report),
        "right SD 1.5 UNet": lambda: check_unet(report, SD15),
        "time SDXL 1024 UNet": lambda: time_unet(report, SDXL),
        "run SD 1.5": lambda: time_run(report, SD15),
        "kernels": lambda: check_kernels(report),
        "attention": lambda: time_attention(report),
        "process sdcore": lambda: in_process(report, "sdcore", SD15, 60),
        "process diffusers": lambda: in_process(report, "diffusers", SD15, 60),
        "pytest cuda": lambda: tests(report),
        "right SDXL UNet": lambda: check_unet(report, SDXL),
        "run SDXL": lambda: time_run(report, SDXL),
        "time VAE 1024": lambda: time_vae(report, 128),
        "upload": lambda: time_upload(report),
        "lossy SD 1.5": lambda: time_lossy(report, SD15),
        "process compile": lambda: in_process(report, "compile", SD15, 190),
    }
    words = None if only is None else only.split(",")
    names = OWED if owed else [n for n in sections if compiled or n != "process compile"]
    chosen = [n for n in names if words is None or any(word in n for word in words)]
    if apart:
        each_apart(report, chosen)
        chosen = []
    if gate:  # what takes long without the device is done while another section has it
        import diffusers  # noqa: F401

        import sdcore.engine.kernels  # noqa: F401

        sys.stdin.readline()
    for name in chosen:
        with report.section(name):
            sections[name]()
    failed = [name for name, values in report.sections.items() if "FAILED" in values]
    print(f"\ndone in {time.time() - STARTED:.0f} s; failed: {', '.join(failed) or 'none'}")


if __name__ == "__main__":
    main()
