"""Whether it is right: kernels and networks beside double precision and diffusers."""

from __future__ import annotations

from typing import Any

import torch

from scripts.gpu_check.networks import apart, asked, halves, ours, theirs, told
from scripts.gpu_check.report import Report


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
