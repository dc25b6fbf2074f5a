"""SD 1.5's own networks on a CPU, sdcore against others: `python -m scripts.benchmark_size`.

    python -m scripts.benchmark_size --work FOLDER                     # 512x512, bfloat16, 3 rounds
    python -m scripts.benchmark_size --work FOLDER --batch 4 --rounds 1
    python -m scripts.benchmark_size --work FOLDER --table             # what was measured so far
    python -m scripts.benchmark_size --profile                         # where the time goes

Networks of the published configuration from random weights. Each measurement is a process of its
own, the engines in turns; it is written into the folder as soon as it is there, and never made
again: an interrupted run goes on. What is timed is the UNet's call of a guided step and the
decoding of a picture, after one call that warms, on one thread and in that thread's own time, which
others on the machine change little. In the same run each answer is compared with diffusers'
in float32.

diffusers tuned: channels-last, fused projections. compiled: torch.compile with frozen weights,
channels-last. OpenVINO, where it is installed: the same network converted, one thread, and the
precision that is asked for. "sdcore lossy tome:ratio=0.5" among the --engines is the fast form with
that `--lossy` (what it remembers from step to step does not show in equal questions).
"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from scripts.gpu_check.networks import SD15, apart, asked, ours, theirs
from scripts.gpu_check.report import Report
from sdcore.cli.bench import processor

BASE, OPENVINO, LOSSY = "diffusers", "OpenVINO", "sdcore lossy "
ENGINES = ("sdcore fast", "sdcore plain", BASE, "diffusers tuned", "diffusers compiled", OPENVINO)
CALL = Callable[[Tensor], Tensor]
CLOSE, NO_FARTHER = 1e-5, 1.05  # relative error of float32; ratio of halves' errors
GMAC = {"unet": 803.5, "vae": 1257.0}  # of a guided call at 512x512, and of decoding a picture
ROWS = {  # what is measured: (label, unit, scale)
    "first": ("first call: made ready, s", 1.0),
    "call": ("a call, s", 1.0),
    "peak": ("peak memory of the process, MB", 1.0),
}


@dataclass(frozen=True)
class Job:
    """What every engine is asked for."""

    part: str  # "unet" or "vae"
    dtype: str
    size: int
    batch: int
    calls: int

    @property
    def title(self) -> str:
        what = "UNet, guided" if self.part == "unet" else "decoder"
        return f"SD 1.5, {what}, {self.size}x{self.size}, batch {self.batch}, {self.dtype}"


def inputs(job: Job) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)
    side, dtype = job.size // 8, getattr(torch, job.dtype)
    rows = 2 if job.part == "unet" else 1
    drawn = {
        "x": torch.randn(rows, 4, side, side, generator=rng),
        "context": torch.randn(rows, 77, 768, generator=rng),
    }  # every picture of a batch is the same one
    return {n: t.repeat_interleave(job.batch, dim=0).to(dtype) for n, t in drawn.items()}


def by_sdcore(engine: str, job: Job, network: Any, given: dict[str, Tensor]) -> CALL:
    import sdcore
    from sdcore.batch_invariance import EachAlone
    from sdcore.engine import Lossy, ready, ready_decoder

    sdcore.tune_allocator()
    name = "plain" if engine == "sdcore plain" else "auto"
    if job.part == "vae":
        decode = ready_decoder(network, name)
        return lambda x: torch.cat([decode(row[None]) for row in x])
    lossy = Lossy.read(engine.removeprefix(LOSSY)) if engine.startswith(LOSSY) else None
    unet = EachAlone(ready(network, [500.0], name, lossy), job.batch)
    return lambda x: unet(x, 500.0, context=given["context"])


def by_diffusers(engine: str, job: Job, network: Any, given: dict[str, Tensor]) -> CALL:
    other = theirs(SD15, job.part, network, Report(None, torch.device("cpu"), tiny=False))
    if engine != BASE:
        other = other.to(memory_format=torch.channels_last)
    if engine == "diffusers tuned":
        other.fuse_qkv_projections()
    if job.part == "vae":
        factor = other.config.scaling_factor
        call = lambda x: other.decode(x / factor).sample  # noqa: E731
    else:
        call = lambda x: asked(other, x, 500.0, given)  # noqa: E731
    if engine == "diffusers compiled":
        import torch._inductor.config as inductor

        inductor.freezing = True
        call = torch.compile(call, fullgraph=True)
    if engine == OPENVINO:
        call = converted(job, other, given)
    return call


def converted(job: Job, other: Any, given: dict[str, Tensor]) -> CALL:
    import openvino

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.other = other

        def forward(self, x: Tensor, context: Tensor) -> Tensor:
            if job.part == "vae":
                return self.other.decode(x / self.other.config.scaling_factor).sample
            return asked(self.other, x, torch.tensor(500.0), {"context": context})

    whole = Plain().float()
    given = {name: value.float() for name, value in given.items()}
    graph = openvino.convert_model(whole, example_input=(given["x"], given["context"]))
    precision = {"float32": "f32", "bfloat16": "bf16"}[job.dtype]
    how = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": precision}
    model = openvino.Core().compile_model(graph, "CPU", how)
    two = len(model.inputs) == 2

    def call(x: Tensor) -> Tensor:
        told = [x.float().numpy(), given["context"].numpy()][: 1 + two]
        return torch.from_numpy(model(told)[0])

    return call


def busy() -> float:
    """Seconds of processor time, of this process and of those that it has waited for."""
    return time.process_time() + sum(os.times()[2:4])


def child(engine: str, job: Job, out: Path) -> None:
    """In a process of its own: make ready, ask, and say how long it took."""
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    report = Report(None, torch.device("cpu"), tiny=False)
    network = ours(SD15, job.part, report, getattr(torch, job.dtype))
    given = inputs(job)
    taken = []
    with torch.inference_mode():
        for number in range(1 + job.calls):
            begun = busy()
            if number == 0:
                build = by_sdcore if engine.startswith("sdcore") else by_diffusers
                call = build(engine, job, network, given)
            answer = call(given["x"])
            taken.append(busy() - begun)
    if not out.exists():
        save_file({"out": answer.float().contiguous()}, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    times = taken[1:] or taken
    print(json.dumps({"first": taken[0], "call": statistics.median(times), "peak": peak}))


def measure(engine: str, job: Job, out: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "scripts.benchmark_size", "--child", engine]
    command += [f"--{name}={value}" for name, value in asdict(job).items()]
    begun = time.time()
    done = subprocess.run(
        [*command, "--out", str(out)], capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise click.ClickException(f"{engine} failed: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout.strip().splitlines()[-1]) | {"wall": time.time() - begun}


def answer_of(work: Path, job: Job, engine: str) -> Path:
    plain = re.sub(r"[ :=,]", "-", engine)
    name = f"{job.part}-{job.dtype}-{job.size}-{job.batch}-{plain}"
    return work / f"{name}.safetensors"


def run(job: Job, engines: list[str], rounds: int, work: Path) -> None:
    """Whatever is not measured yet, round by round."""
    work.mkdir(parents=True, exist_ok=True)
    truth = answer_of(work, Job(job.part, "float32", job.size, 1, 0), BASE)
    if not truth.exists():
        measure(BASE, Job(job.part, "float32", job.size, 1, 0), truth)
    for number in range(rounds):
        for engine in engines:
            known = [r for r in done(work) if r["job"] == asdict(job) and r["engine"] == engine]
            if len(known) > number:
                continue
            result = measure(engine, job, answer_of(work, job, engine))
            line = {"engine": engine, "job": asdict(job), "round": number, **result}
            with (work / "done.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(f"{engine}: {result}", file=sys.stderr, flush=True)


def done(work: Path) -> list[dict[str, Any]]:
    file = work / "done.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def errors(job: Job, engines: list[str], work: Path) -> dict[str, float]:
    """How far each engine's answer is from diffusers' float32, of the first picture."""
    from safetensors.torch import load_file

    right = load_file(answer_of(work, Job(job.part, "float32", job.size, 1, 0), BASE))["out"]
    found = {}
    for engine in engines:
        out = load_file(answer_of(work, job, engine))["out"]
        found[engine] = apart(out[:: job.batch], right)
    return found


def table(work: Path) -> list[str]:
    """Every job that was measured: ratios to diffusers of the same round, median and spread."""
    lines: list[str] = []
    jobs = dict.fromkeys(json.dumps(each["job"]) for each in done(work))
    for job in (Job(**json.loads(text)) for text in jobs):
        rounds = [r for r in done(work) if r["job"] == asdict(job)]
        there = dict.fromkeys(r["engine"] for r in rounds)
        engines = [e for e in (*ENGINES, *(e for e in there if e not in ENGINES)) if e in there]
        if BASE not in engines:
            continue
        of = {e: {r["round"]: r for r in rounds if r["engine"] == e} for e in engines}
        lines += [f"{job.title}:", "", "| | " + " | ".join(engines) + " |"]
        lines += ["|---" * (len(engines) + 1) + "|"]
        for row, (label, scale) in ROWS.items():
            cells = [_cell(of, engine, row, scale) for engine in engines]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
        far = errors(job, engines, work)
        ends = [f"{far[e]:.1e}" for e in engines]
        lines += ["| relative distance from diffusers' float32 | " + " | ".join(ends) + " |"]
        lines.append("")
        for engine in ("sdcore fast", "sdcore plain"):
            limit = CLOSE if job.dtype == "float32" else NO_FARTHER * far[BASE]
            if far.get(engine, 0.0) > limit:
                raise click.ClickException(f"{engine} is wrong: {far[engine]:.1e} from diffusers")
    return lines


def _cell(of: dict[str, dict[int, dict]], engine: str, row: str, scale: float) -> str:
    middle = scale * statistics.median(r[row] for r in of[engine].values())
    cell = f"{middle:.0f}" if middle > 100 else f"{middle:.2f}"
    shares = [r[row] / of[BASE][n][row] for n, r in of[engine].items() if n in of[BASE]]
    if engine == BASE or not shares:
        return cell
    spread = f" ({min(shares):.2f} to {max(shares):.2f})" if len(shares) > 1 else ""
    return f"{cell}, **{statistics.median(shares):.2f}**{spread}"


KINDS = {  # of torch's operations, by what their names hold
    "convolutions": ("convolution",),
    "linear layers": ("linear",),
    "attention": ("attention", "aten::addmm", "aten::mm", "softmax", "amax"),
    "norms": ("norm",),
    "activations": ("silu", "gelu"),
    "concatenations, copies, doublings": ("cat", "copy", "clone", "upsample", "contiguous"),
}


def profile(job: Job) -> list[str]:
    """What each kind of operation takes of a call of the fast form; of the limit, what is reached.

    The limit: the operations of the network at the speed of one large matrix product here.
    """
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    torch.set_num_threads(1)
    dtype = getattr(torch, job.dtype)
    network = ours(SD15, job.part, Report(None, torch.device("cpu"), tiny=False), dtype)
    given = inputs(job)
    with torch.inference_mode():
        call = by_sdcore("sdcore fast", job, network, given)
        call(given["x"])
        begun = time.process_time()
        call(given["x"])
        whole = time.process_time() - begun
        a = torch.randn(2048, 2048).to(dtype)
        a @ a
        begun = time.process_time()
        for _ in range(5):
            a @ a
        speed = 5 * 2048**3 / (time.process_time() - begun)
        with profiled(activities=[ProfilerActivity.CPU]) as seen:
            call(given["x"])
    rows = [(e.key, e.self_cpu_time_total / 1e6) for e in seen.key_averages()]
    total, rest = sum(spent for _, spent in rows), dict(rows)
    limit = GMAC[job.part] * 1e9 * (job.size / 512) ** 2 * job.batch / speed
    lines = [
        f"{job.title}: {whole:.2f} s a call; a matrix product reaches {speed / 1e9:.0f} GMAC/s,",
        f"at which the network's {GMAC[job.part]:.0f} GMAC would take {limit:.2f} s: "
        f"{100 * limit / whole:.0f} % of what it takes.",
        "",
        "| | share |",
        "|---|---|",
    ]
    for kind, words in KINDS.items():
        names = [name for name in rest if any(word in name for word in words)]
        lines.append(f"| {kind} | {100 * sum(rest.pop(name) for name in names) / total:.0f} % |")
    lines.append(f"| the rest | {100 * sum(rest.values()) / total:.0f} % |")
    return lines


@click.command()
@click.option("--part", type=click.Choice(["unet", "vae"]), default="unet", show_default=True)
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--size", default=512, show_default=True, help="Pixels of a side.")
@click.option("--batch", default=1, show_default=True, help="Pictures at a time.")
@click.option("--calls", default=2, show_default=True, help="Timed after one that warms.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--engines", default=",".join(ENGINES), help="Which, comma-separated.  [all]")
@click.option("--work", type=click.Path(path_type=Path), help="Folder of what was measured.")
@click.option("--table", "only_table", is_flag=True, help="Print what is in --work.")
@click.option("--profile", "profiled", is_flag=True, help="Where the fast form's time goes.")
@click.option("--child", "engine", hidden=True)
@click.option("--out", type=click.Path(path_type=Path), hidden=True)
def main(
    part: str, dtype: str, size: int, batch: int, calls: int, rounds: int, engines: str,
    work: Path | None, only_table: bool, profiled: bool, engine: str | None, out: Path | None,
) -> None:  # fmt: skip
    """Time the networks of SD 1.5 by every engine; print a table."""
    job = Job(part, dtype, size, batch, calls)
    if engine is not None:
        assert out is not None
        child(engine, job, out)
        return
    if profiled:
        print("\n".join(profile(job)))
        return
    if work is None:
        raise click.UsageError("--work FOLDER keeps what is measured")
    chosen = [e for e in engines.split(",") if e != OPENVINO or find_spec("openvino")]
    if not only_table:
        run(job, chosen, rounds, work)
    print(
        f"{processor()}, one thread, torch {torch.__version__}, Python "
        f"{platform.python_version()}; in bold the ratio to diffusers as it comes\n"
    )
    print("\n".join(table(work)))


if __name__ == "__main__":
    main()
