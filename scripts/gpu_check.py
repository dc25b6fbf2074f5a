"""The fast engine on a GPU: is it right, and how fast is it beside diffusers.

    python -m scripts.gpu_check --out FOLDER --apart      # about 3 minutes
    python -m scripts.gpu_check --out FOLDER --compile    # and diffusers by torch.compile
    python -m scripts.gpu_check --tiny --device cpu       # does the script itself run

Networks of the published sizes from random weights, scaled so that numbers keep their size: what is
compared is arithmetic. Each section stands by itself, prints as it goes, and its failure is printed
and ends nothing else; report.md and report.json hold everything that was measured.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

STARTED = time.time()
PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text())
SD15, SDXL = "runwayml/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0"
STEPS, CFG_SCALE = 20, 7.5
TINY: dict[str, Any] = {"layers_per_block": 1, "norm_num_groups": 8}


class Report:
    """What was measured, by section; printed at once, written after each section."""

    def __init__(self, out: Path | None, device: torch.device, tiny: bool) -> None:
        self.out, self.device, self.tiny = out, device, tiny
        self.sections: dict[str, dict[str, Any]] = {}
        self.now: dict[str, Any] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        self.now[name] = value
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"   {name}: {shown}", flush=True)

    @contextmanager
    def section(self, name: str) -> Iterator[Report]:
        print(f"\n## {name}  [{time.time() - STARTED:.0f} s]", flush=True)
        self.now = self.sections.setdefault(name, {})
        begun = time.time()
        try:
            yield self
        except Exception as error:
            self.now["FAILED"] = f"{type(error).__name__}: {error}"
            traceback.print_exc(limit=-6, file=sys.stdout)
            print(f"   FAILED: {type(error).__name__}: {str(error)[:300]}", flush=True)
        self.now["seconds"] = round(time.time() - begun, 1)
        self.write()

    def write(self) -> None:
        if self.out is None:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "report.json").write_text(json.dumps(self.sections, indent=1, default=str))
        lines = []
        for name, values in self.sections.items():
            lines += [f"## {name}", "", "| | |", "|---|---|"]
            for key, value in values.items():
                shown = f"{value:.4g}" if isinstance(value, float) else str(value)
                lines.append(f"| {key} | {shown} |")
            lines.append("")
        (self.out / "report.md").write_text("\n".join(lines))

    def timed(self, function: Callable[[], Any], count: int = 20, warm: int = 3) -> float:
        """Milliseconds a call, the median; on a GPU between events, the host not waited for."""
        if self.device.type != "cuda":
            count, warm = 2, 1
        with torch.inference_mode():
            for _ in range(warm):
                function()
            if self.device.type != "cuda":
                times = []
                for _ in range(count):
                    begun = time.perf_counter()
                    function()
                    times.append(1e3 * (time.perf_counter() - begun))
                return statistics.median(times)
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
            torch.cuda.synchronize()
            marks[0].record()
            for mark in marks[1:]:
                function()
                mark.record()
            torch.cuda.synchronize()
        return statistics.median(a.elapsed_time(b) for a, b in pairwise(marks))

    def hosted(self, function: Callable[[], Any], count: int = 10) -> float:
        """Microseconds until a call returns, whatever the device is still at."""
        with torch.inference_mode():
            function()
            self.sync()
            begun = time.perf_counter()
            for _ in range(count):
                function()
            taken = time.perf_counter() - begun
            self.sync()
        return 1e6 * taken / count

    def sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def config_of(model: str, part: str, tiny: bool) -> dict[str, Any]:
    config = dict(PUBLISHED[model][part])
    if tiny:
        widths = len(config["block_out_channels"])
        config |= {**TINY, "block_out_channels": [32, 32, 64, 64][:widths], "sample_size": 8}
        if part == "unet":
            config |= {"attention_head_dim": 4, "cross_attention_dim": 16}
            if "transformer_layers_per_block" in config:
                config["transformer_layers_per_block"] = 1
    return config


def ours(model: str, part: str, report: Report, dtype: torch.dtype = torch.float32) -> Any:
    """A network with random weights, made on the device."""
    from sdcore.checkpoints.load import BUILD, NoInit

    with torch.device("meta"), NoInit():
        network = BUILD[part](config_of(model, part, report.tiny))
    network = network.to(dtype).to_empty(device=report.device)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter, dtype=torch.float32))
                parameter.mul_(parameter[0].numel() ** -0.5)
            else:
                parameter.normal_(std=0.1).add_(1.0 if "norm" in name and "weight" in name else 0.0)
    return network.eval().requires_grad_(False)


def theirs(model: str, part: str, network: Any, report: Report) -> Any:
    """diffusers' network of the same weights, shared."""
    import diffusers

    cls = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}[part]
    with torch.device("meta"):
        other = cls.from_config(config_of(model, part, report.tiny))
    other.load_state_dict(network.state_dict(), strict=True, assign=True)
    return other.eval().requires_grad_(False)


def told(model: str, unet: Any, report: Report, dtype: torch.dtype) -> tuple[Tensor, dict, int]:
    """x [2,4,h,w] and what a UNet is told, for a guided picture of the published size."""
    side = 8 if report.tiny else {SD15: 64, SDXL: 128}[model]
    rng = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=rng).to(report.device, dtype)  # noqa: E731
    config = unet.config
    what = {"context": draw(2, 77, config.cross_attention_dim)}
    if config.inputs.added:
        ids = torch.tensor([[1024, 1024, 0, 0, 1024, 1024]] * 2, device=report.device)
        what |= {"text_embeds": draw(2, config.added_dims[0] - 6 * config.added_dims[1])}
        what["time_ids"] = ids.float()
    return draw(2, 4, side, side), what, side


def asked(other: Any, x: Tensor, t: Any, what: dict) -> Tensor:
    added = {k: v for k, v in what.items() if k != "context"}
    return other(x, t, what["context"], added_cond_kwargs=added or None).sample


def apart(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def halves(report: Report) -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16] if report.device.type == "cuda" else [torch.bfloat16]


def uncaptured(network: Any) -> Any:
    """`ready`, asking for its kernels one by one."""
    from sdcore.engine import ready

    call = ready(network, [500.5, 1.0], "auto")
    call.record = False
    return call


def check_kernels(report: Report) -> None:
    from sdcore.engine import kernels

    F = torch.nn.functional
    worst: dict[str, float] = {}
    shapes = [
        (2, 320, 64, 64, 32),
        (2, 1920, 16, 16, 32),
        (2, 960, 32, 31, 32),
        (1, 128, 512, 512, 32),
    ]
    for dtype in (torch.float32, torch.float16):
        for batch, channels, height, width, groups in shapes:
            x = torch.randn(batch, channels, height, width, device=report.device) * 2 + 3
            x = x.to(dtype).contiguous(memory_format=torch.channels_last)
            weight, bias = torch.randn(2, channels, device=report.device)
            shift = torch.randn(batch, channels, device=report.device)
            out = kernels.group_norm(x, weight, bias, groups, 1e-5, shift, True)
            whole = x.double() + shift.double()[:, :, None, None]
            right = F.silu(F.group_norm(whole, groups, weight.double(), bias.double(), 1e-5))
            worst[str(dtype)] = max(worst.get(str(dtype), 0.0), apart(out, right))
            again = kernels.group_norm(x, weight, bias, groups, 1e-5, shift, True)
            assert torch.equal(out, again), "GroupNorm differs from call to call"
            if dtype == torch.float16:
                half = weight.half(), bias.half()
                name = f"GroupNorm + SiLU {channels} x {height}x{width}, us"
                report[name] = 1e3 * report.timed(
                    lambda x=x, w=weight, b=bias, s=shift: kernels.group_norm(
                        x, w, b, 32, 1e-5, s, True
                    )
                )
                y = x.contiguous()
                report[f"{name}, torch (NCHW)"] = 1e3 * report.timed(
                    lambda y=y, half=half: F.silu(F.group_norm(y, 32, *half, 1e-5))
                )
    report["GroupNorm, worst relative error"] = worst
    x = torch.randn(8192, 2560, device=report.device, dtype=torch.float16)
    a, b = x.double().chunk(2, -1)
    report["GEGLU error"] = apart(kernels.geglu(x), a * F.gelu(b))
    report["GEGLU 8192 x 1280, us"] = 1e3 * report.timed(lambda: kernels.geglu(x))
    h, r, w = x[:, :320].contiguous(), x[:, 320:640].contiguous(), torch.randn(320, device=x.device)
    y, n = kernels.add_layer_norm(h.clone(), w, r, w, w, 1e-5)
    whole = h.double() + r.double() + w.double()
    report["add error"] = apart(y, whole)
    report["LayerNorm error"] = apart(n, F.layer_norm(whole, (320,), w.double(), w.double()))


def check_unet(report: Report, model: str) -> None:
    network = ours(model, "unet", report)
    other = theirs(model, "unet", network, report)
    x, what, _ = told(model, network, report, torch.float32)
    with torch.inference_mode():
        right = asked(other, x, 500.5, what)
        report["finite, std"] = (bool(right.isfinite().all()), float(right.std()))
        report["float32: plain, relative error"] = apart(network(x, 500.5, **what), right)
        fast = uncaptured(network)
        report["engine, layers"] = (fast.name, fast.network.ops.name)
        slow = fast(x, 500.5, **what)
        report["float32: fast, relative error"] = apart(slow, right)
        assert apart(slow, right) <= 1e-5, "the fast UNet is wrong"
        fast.record = True
        report["graph equal to the bit, float32"] = torch.equal(fast(x, 500.5, **what), slow)
        del fast
        for dtype in halves(report):
            own, two = network.to(dtype), other.to(dtype)
            xs, whats, _ = told(model, own, report, dtype)
            fast = uncaptured(own)
            slow = fast(xs, 500.5, **whats)
            errors = {
                "diffusers": apart(asked(two, xs, 500.5, whats), right),
                "plain": apart(own(xs, 500.5, **whats), right),
                "fast": apart(slow, right),
            }
            report[f"{dtype}: errors"] = errors
            report[f"{dtype}: fast / diffusers"] = errors["fast"] / errors["diffusers"]
            fast.record = True
            same = torch.equal(fast(xs, 500.5, **whats), slow)
            report[f"graph equal to the bit, {dtype}"] = same
            network = ours(model, "unet", report)
            other = theirs(model, "unet", network, report)


def time_unet(report: Report, model: str) -> None:
    from sdcore.engine import ready

    dtype = torch.float16 if report.device.type == "cuda" else torch.float32
    network = ours(model, "unet", report, dtype)
    x, what, _ = told(model, network, report, dtype)
    report["plain, ms"] = report.timed(lambda: network(x, 500.5, **what))
    other = theirs(model, "unet", network, report)
    report["diffusers default, ms"] = default = report.timed(lambda: asked(other, x, 500.5, what))
    report.sync()
    begun = time.time()
    fast = ready(network, [500.5], "auto")
    with torch.inference_mode():
        fast(x, 500.5, **what)
    report.sync()
    report["fast: warm-up, s"] = time.time() - begun
    report["fast, ms"] = quick = report.timed(lambda: fast(x, 500.5, **what))
    fast.record = False
    report["fast, no graph, ms"] = report.timed(lambda: fast(x, 500.5, **what))
    fast.record = True
    tuned = other.to(memory_format=torch.channels_last)
    tuned.fuse_qkv_projections()
    report["diffusers tuned, ms"] = best = report.timed(lambda: asked(tuned, x, 500.5, what))
    again = report.timed(lambda: fast(x, 500.5, **what))
    report["fast again, ms"] = again
    report["fast / diffusers default"] = quick / default
    report["fast / diffusers tuned"] = quick / best
    report["fast, TFLOP/s"] = {SD15: 1.607, SDXL: 13.522}[model] / quick * 1e3
    report["fast, us of the host a call"] = report.hosted(lambda: fast(x, 500.5, **what))
    if report.device.type == "cuda":
        profile(report, lambda: fast(x, 500.5, **what))
        fast.kept.recorded.clear()
        with torch.backends.cudnn.flags(benchmark=True):
            report["fast, cudnn.benchmark, ms"] = report.timed(lambda: fast(x, 500.5, **what))


def profile(report: Report, function: Callable[[], Any]) -> None:
    """The kernels that take most of a call, microseconds."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    with torch.inference_mode():
        function()
        torch.cuda.synchronize()
        with profiled(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
            for _ in range(3):
                function()
            torch.cuda.synchronize()
    rows = [(e.key, e.self_device_time_total / 3, e.count // 3) for e in seen.key_averages()]
    rows = sorted((r for r in rows if r[1] > 0), key=lambda r: -r[1])
    report["kernels, us"] = round(sum(r[1] for r in rows))
    report["kernels, number"] = sum(r[2] for r in rows)
    for name, spent, count in rows[:22]:
        report[f"  {name[:110]}"] = f"{spent:.0f} us in {count}"


def time_run(report: Report, model: str) -> None:
    """A whole guided run: seconds a step, by sdcore and by diffusers' scheduler around its UNet."""
    import diffusers

    from sdcore.denoiser import Denoiser
    from sdcore.engine import ready
    from sdcore.guidance import CFG
    from sdcore.process import VariancePreserving
    from sdcore.sampling import sample
    from sdcore.schedulers import resolve

    dtype = torch.float16 if report.device.type == "cuda" else torch.float32
    network = ours(model, "unet", report, dtype)
    other = theirs(model, "unet", network, report)  # before ours lays its weights anew
    _, what, side = told(model, network, report, dtype)
    halved = [{k: v[i : i + 1] for k, v in what.items()} for i in (0, 1)]
    conditions = {"uncond": halved[0], "cond": halved[1]}
    scheduler = resolve("euler", "linspace")
    plan = scheduler.plan(STEPS)
    process = VariancePreserving(plan, "epsilon")
    start = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(3))
    start = start.to(report.device)

    def run(unet: Callable[..., Tensor]) -> Tensor:
        denoise = Denoiser(unet, process, conditions, CFG(CFG_SCALE), dtype=dtype)
        *_, last = sample(denoise, start * plan.start_scale, plan.sigmas, scheduler.solver)
        return last.x_next

    def guided(unet: Any) -> Tensor:
        loop = diffusers.EulerDiscreteScheduler.from_config(
            {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        )
        loop.set_timesteps(STEPS, device=report.device)
        x = (start * loop.init_noise_sigma).to(dtype)
        for t in loop.timesteps:
            out = asked(unet, loop.scale_model_input(torch.cat([x, x]), t), t, what)
            uncond, cond = out.chunk(2)
            x = loop.step(uncond + CFG_SCALE * (cond - uncond), t, x, return_dict=False)[0]
        return x

    def seconds(function: Callable[[], Tensor], count: int) -> tuple[float, Tensor]:
        times = []
        with torch.inference_mode():
            for _ in range(count):
                report.sync()
                begun = time.perf_counter()
                out = function()
                report.sync()
                times.append((time.perf_counter() - begun) / STEPS * 1e3)
        return min(times[1:]), out

    fast = ready(network, plan.timesteps, "auto")
    report["sdcore fast, ms a step"], drawn = seconds(lambda: run(fast), 4)
    fast.record = False
    _, slow = seconds(lambda: run(fast), 2)
    report["run with graphs equal to the bit"] = torch.equal(drawn, slow)
    report["sdcore plain, ms a step"], plain = seconds(lambda: run(network), 2)
    report["fast and plain, latents apart"] = apart(drawn, plain)
    report["diffusers default, ms a step"], reference = seconds(lambda: guided(other), 3)
    report["plain and diffusers, latents apart"] = apart(plain, reference)


def time_vae(report: Report, side: int = 64) -> None:
    from sdcore.engine import ready_decoder

    side = 8 if report.tiny else side
    network = ours(SD15, "vae", report)
    other = theirs(SD15, "vae", network, report)
    z = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(1)).to(report.device)
    decoded = lambda vae, z: vae.decode(z / vae.config.scaling_factor).sample  # noqa: E731
    with torch.inference_mode():
        right = decoded(other, z)
        fast = ready_decoder(network, "auto")
        fast.record = False
        slow = fast(z)
        report["float32: fast, relative error"] = apart(slow, right)
        fast.record = True
        report["graph equal to the bit"] = torch.equal(fast(z), slow)
        report["float32 diffusers default, ms"] = report.timed(lambda: decoded(other, z), 5)
        report["float32 fast, ms"] = report.timed(lambda: fast(z), 5)
        del fast
        dtype = halves(report)[0]
        network, other, z = network.to(dtype), other.to(dtype), z.to(dtype)
        plain = network.decode(z)
        errors = {"diffusers": apart(decoded(other, z), right), "plain": apart(plain, right)}
        report[f"{dtype} plain, ms"] = report.timed(lambda: network.decode(z), 10)
        report[f"{dtype} diffusers default, ms"] = base = report.timed(
            lambda: decoded(other, z), 10
        )
        fast = ready_decoder(network, "auto")
        report[f"{dtype} fast, ms"] = quick = report.timed(lambda: fast(z), 10)
        errors["fast"] = apart(fast(z), right)
        report[f"{dtype}: errors"] = errors
        report[f"{dtype}: fast / diffusers"] = errors["fast"] / errors["diffusers"]
        fast.record = False
        report[f"{dtype} fast, no graph, ms"] = report.timed(lambda: fast(z), 10)
        tuned = other.to(memory_format=torch.channels_last)
        tuned.fuse_qkv_projections()
        report[f"{dtype} diffusers tuned, ms"] = report.timed(lambda: decoded(tuned, z), 10)
        report["fast / diffusers default"] = quick / base
        if report.device.type == "cuda":
            profile(report, lambda: fast(z))


def time_attention(report: Report) -> None:
    """Every kernel of torch's attention on the shapes of the published networks, microseconds."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    shapes = {  # (heads, queries, keys, width of a head)
        "SD 1.5, 64x64": (8, 4096, 4096, 40),
        "SD 1.5, 32x32": (8, 1024, 1024, 80),
        "SD 1.5, 16x16": (8, 256, 256, 160),
        "SD 1.5, 64x64, text": (8, 4096, 77, 40),
        "SD 1.5, 32x32, text": (8, 1024, 77, 80),
        "SDXL, 64x64": (10, 4096, 4096, 64),
        "SDXL, 32x32": (20, 1024, 1024, 64),
        "SDXL, 64x64, text": (10, 4096, 77, 64),
        "SDXL, 32x32, text": (20, 1024, 77, 64),
        "VAE, 64x64": (1, 4096, 4096, 512),
    }
    backends = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "math": SDPBackend.MATH,
    }
    for name, (heads, rows, keys, width) in shapes.items():
        batch = 1 if heads == 1 else 2
        whole = torch.randn(3, batch, rows, heads * width, device=report.device).half()
        q, k, v = (
            part[:, :length].unflatten(-1, (heads, width)).transpose(1, 2)
            for part, length in zip(whole, (rows, keys, keys), strict=True)
        )
        run = lambda q=q, k=k, v=v: torch.nn.functional.scaled_dot_product_attention(q, k, v)  # noqa: E731
        taken = {"default": 1e3 * report.timed(run)}
        for kind, backend in backends.items():
            try:
                with sdpa_kernel(backend):
                    taken[kind] = 1e3 * report.timed(run)
            except RuntimeError:
                taken[kind] = float("nan")
        report[name] = {kind: round(spent, 1) for kind, spent in taken.items()}


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
    command = [sys.executable, "-m", "scripts.gpu_check", "--gate", "--device", str(report.device)]
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
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/engine"],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    print(done.stdout[-3000:], done.stderr[-500:], flush=True)
    report["pytest tests/engine"] = (done.stdout.strip().splitlines() or ["nothing"])[-1]


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Folder of report.md, report.json.")
@click.option("--device", default="cuda", show_default=True)
@click.option("--tiny", is_flag=True, help="Networks of no size, to try the script.")
@click.option("--compile", "compiled", is_flag=True, help="Also diffusers by torch.compile.")
@click.option("--only", help="Sections whose name holds one of these words, comma-separated.")
@click.option("--apart", is_flag=True, help="Each section in a process of its own.")
@click.option("--gate", is_flag=True, hidden=True)
@click.option("--child", "engine", hidden=True)
@click.option("--model", default=SD15, hidden=True)
def main(
    out: Path | None, device: str, tiny: bool, compiled: bool, only: str | None,
    apart: bool, gate: bool, engine: str | None, model: str,
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
        "pytest": lambda: tests(report),
        "right SDXL UNet": lambda: check_unet(report, SDXL),
        "run SDXL": lambda: time_run(report, SDXL),
        "time VAE 1024": lambda: time_vae(report, 128),
    }
    if compiled:
        sections["process compile"] = lambda: in_process(report, "compile", SD15, 190)
    words = None if only is None else only.split(",")
    chosen = [n for n in sections if words is None or any(word in n for word in words)]
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
