"""How fast a whole guided run is, by sdcore and by diffusers' scheduler around its UNet."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scripts.gpu_check.networks import apart, asked, ours, theirs, told
from scripts.gpu_check.report import Report

STEPS, CFG_SCALE = 20, 7.5
LOSSY = ("deepcache:every=3", "tome:ratio=0.5", "tgate:after=0.4", "deepcache:every=3+tgate")


@dataclass(frozen=True)
class Loop:
    """Twenty guided Euler steps of a network of random weights."""

    network: Any
    told: dict[str, Tensor]
    start: Tensor  # [1,4,h,w], unit variance
    dtype: torch.dtype

    @classmethod
    def of(cls, report: Report, model: str) -> Loop:
        dtype = torch.float16 if report.device.type == "cuda" else torch.float32
        network = ours(model, "unet", report, dtype)
        _, what, side = told(model, network, report, dtype)
        start = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(3))
        return cls(network, what, start.to(report.device), dtype)

    @property
    def timesteps(self) -> tuple[float, ...]:
        from sdcore.schedulers import resolve

        return resolve("euler", "linspace").plan(STEPS).timesteps

    def by_sdcore(self, unet: Callable[..., Tensor]) -> Tensor:
        from sdcore.denoiser import Denoiser
        from sdcore.guidance import CFG
        from sdcore.process import VariancePreserving
        from sdcore.sampling import sample
        from sdcore.schedulers import resolve

        scheduler = resolve("euler", "linspace")
        plan = scheduler.plan(STEPS)
        halved = [{k: v[i : i + 1] for k, v in self.told.items()} for i in (0, 1)]
        conditions = {"uncond": halved[0], "cond": halved[1]}
        process = VariancePreserving(plan, "epsilon")
        denoise = Denoiser(unet, process, conditions, CFG(CFG_SCALE), dtype=self.dtype)
        *_, last = sample(denoise, self.start * plan.start_scale, plan.sigmas, scheduler.solver)
        return last.x_next

    def by_diffusers(self, unet: Any) -> Tensor:
        import diffusers

        loop: Any = diffusers.EulerDiscreteScheduler.from_config(
            {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        )
        loop.set_timesteps(STEPS, device=self.start.device)
        x = (self.start * loop.init_noise_sigma).to(self.dtype)
        for t in loop.timesteps:
            out = asked(unet, loop.scale_model_input(torch.cat([x, x]), t), t, self.told)
            uncond, cond = out.chunk(2)
            x = loop.step(uncond + CFG_SCALE * (cond - uncond), t, x, return_dict=False)[0]
        return x


def a_step(report: Report, function: Callable[[], Tensor], count: int) -> tuple[float, Tensor]:
    """Milliseconds a step, the least of some runs after a first one; and what was drawn."""
    times = []
    with torch.inference_mode():
        for _ in range(count):
            report.sync()
            begun = time.perf_counter()
            out = function()
            report.sync()
            times.append((time.perf_counter() - begun) / STEPS * 1e3)
    return min(times[1:]), out


def time_run(report: Report, model: str) -> None:
    from sdcore.engine import ready

    loop = Loop.of(report, model)
    network = loop.network
    other = theirs(model, "unet", network, report)  # before ours lays its weights anew
    fast = ready(network, loop.timesteps, "auto")
    report["sdcore fast, ms a step"], drawn = a_step(report, lambda: loop.by_sdcore(fast), 4)
    fast.record = False
    _, slow = a_step(report, lambda: loop.by_sdcore(fast), 2)
    report["run with graphs equal to the bit"] = torch.equal(drawn, slow)
    report["sdcore plain, ms a step"], plain = a_step(report, lambda: loop.by_sdcore(network), 2)
    report["fast and plain, latents apart"] = apart(drawn, plain)
    taken, reference = a_step(report, lambda: loop.by_diffusers(other), 3)
    report["diffusers default, ms a step"] = taken
    report["plain and diffusers, latents apart"] = apart(plain, reference)


def time_lossy(report: Report, model: str) -> None:
    """What each lossy option gains, and whether its recordings are equal to the bit."""
    from sdcore.engine import Lossy, ready

    loop = Loop.of(report, model)
    fast = ready(loop.network, loop.timesteps, "auto")
    report["exact, ms a step"], exact = a_step(report, lambda: loop.by_sdcore(fast), 4)
    for text in LOSSY:
        call = ready(loop.network, loop.timesteps, "auto", Lossy.read(text))
        report[f"{text}, ms a step"], drawn = a_step(report, lambda c=call: loop.by_sdcore(c), 4)
        report[f"{text}, latents off"] = apart(drawn, exact)
        call.record = False
        _, slow = a_step(report, lambda c=call: loop.by_sdcore(c), 2)
        report[f"{text}, graphs equal to the bit"] = torch.equal(drawn, slow)
