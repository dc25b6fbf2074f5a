"""How fast a call is: UNet, decoder, attention."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from scripts.gpu_check.networks import SD15, SDXL, apart, asked, halves, ours, theirs, told
from scripts.gpu_check.report import Report


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


def time_upload(report: Report) -> None:
    """Weights to the device: through page-locked buffers, and as torch copies them."""
    from sdcore.checkpoints.upload import Upload

    count = 2 if report.tiny else 64
    held = [torch.randn(1 << 22) for _ in range(count)]  # 16 MB each
    upload = Upload(report.device)
    for name, send in (("torch", lambda t: t.to(report.device)), ("page-locked", upload)):
        sent: list[torch.Tensor] = []
        for number in ("first", "second", "third"):
            sent = []
            report.sync()
            begun = time.time()
            sent = [send(tensor) for tensor in held]
            report.sync()
            report[f"{name}, {number} pass, GB/s"] = count * 2**24 / 1e9 / (time.time() - begun)
        same = all(torch.equal(a, b.cpu()) for a, b in zip(held, sent, strict=True))
        report[f"{name}, the same bits"] = same
        del sent
