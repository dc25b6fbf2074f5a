"""k-diffusion's functions `sample_xyz(model, x, sigmas, ...)`, which ComfyUI and others run too.

Theirs as solvers of our loop, and ours as such functions. k-diffusion itself is not imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from sdcore.brownian import noise_named
from sdcore.errors import InputError
from sdcore.interop.rebound import rebound
from sdcore.interop.remembered import Told, kept, note, steps_before, values
from sdcore.process import Process, process_of, to_s
from sdcore.sampling import Denoise, Draw, Interval, Memory, Noise, Prediction, Solver, sample
from sdcore.schedulers import resolve
from sdcore.schedulers.config import SD15
from sdcore.schedulers.flow_schedule import to_sigma
from sdcore.user_file import said
from sdcore.written import format_value

_FLOW: Mapping[str, Any] = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
_SAME = 1e-6  # relative: a sigma that went through float32


class SampleFunction(Protocol):
    """k-diffusion's form of a sampler. x and what is returned: [B,...]; sigmas: N + 1, falling.

    model: (x, sigma [B], **extra_args) -> x0, "denoised". callback is given a dict of x, i, sigma,
    sigma_hat and denoised in every step; noise_sampler: (sigma, sigma_next) -> unit noise like x.
    """

    def __call__(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
        noise_sampler: Callable[[Tensor, Tensor], Tensor] | None = None,
        **options: Any,
    ) -> Tensor: ...


def as_k_diffusion(
    solver: str | Solver, config: Mapping[str, Any] | None = None, flow: bool | None = None
) -> SampleFunction:
    """A solver of ours as a function of k-diffusion's form, in ComfyUI's use of it as well.

        samples = as_k_diffusion("dpmpp_2m")(model, x, sigmas, extra_args={"cond": cond})

    solver, config: as of `sdcore.schedulers.resolve`; further keywords of the call are options of
    the solver.
    flow: whether x is (1 - s) x0 + s eps and sigmas are s, as ComfyUI has it for networks of flow
        matching; None asks the model as ComfyUI's own samplers do.

    Noise comes from noise_sampler; else from the seeds extra_args["seed"], seed + 1 ..., one for
    each picture; else from torch's own generator. Raises InputError for what `resolve` refuses.
    """
    resolve(solver, config=config)  # refused here, and not when the first picture is drawn

    def sampled(
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
        noise_sampler: Callable[[Tensor, Tensor], Tensor] | None = None,
        **options: Any,
    ) -> Tensor:
        extra = {} if extra_args is None else extra_args
        flows = _flows(model) if flow is None else flow
        usual = _FLOW if flows else SD15
        chosen = resolve(_with(solver, options), config=usual if config is None else config)
        process = process_of(chosen.prediction_type, chosen.noise_schedule)
        given = [float(sigma) for sigma in sigmas]
        levels = [*map(to_sigma, given)] if flows else given
        own = dict(zip(levels, given, strict=True))
        denoise = _asking(model, extra, process if flows else None, own)
        noise = _noise(chosen.entry.noise, noise_sampler, extra.get("seed"), x)
        x = x * process.spread(levels[0]) if flows else x
        steps = sample(denoise, x, levels, chosen.solver, noise)
        for step in tqdm(steps, total=len(levels) - 1, disable=disable):
            if callback is not None:
                x_seen = step.x * process.c_in(step.sigma) if flows else step.x
                place = sigmas[step.index]
                callback({"x": x_seen, "i": step.index, "sigma": place, "sigma_hat": place,
                          "denoised": step.prediction.x0})  # fmt: skip
            x = step.x_next
        return x * process.c_in(levels[-1]) if flows else x

    return sampled


def _with(solver: str | Solver, options: Mapping[str, Any]) -> str | Solver:
    """The solver with the options of a call, which are checked as those of a name."""
    if not options:
        return solver
    if not isinstance(solver, str):
        raise InputError(f"this solver takes no options here: {', '.join(options)}")
    written = ",".join(f"{name}={format_value(value)}" for name, value in options.items())
    return f"{solver}{',' if ':' in solver else ':'}{written}"


def _flows(model: Any) -> bool:
    """Whether a model of ComfyUI's says that it is of flow matching."""
    inner = getattr(model, "inner_model", None)
    patcher = getattr(inner, "model_patcher", None)
    sampling = getattr(inner, "model_sampling", None)
    if patcher is not None:
        sampling = patcher.get_model_object("model_sampling")
    return any(kind.__name__ == "CONST" for kind in type(sampling).__mro__)


def _asking(
    model: Callable[..., Tensor],
    extra: Mapping[str, Any],
    process: Process | None,
    given: Mapping[float, float],
) -> Denoise:
    """process: of the form in which the model takes x, None for x0 + sigma * eps; given: its own
    level of a sigma of the schedule."""

    def denoise(x: Tensor, sigma: float) -> Prediction:
        level, seen = sigma, x
        if process is not None:
            level, seen = given.get(sigma, to_s(sigma)), x * process.c_in(sigma)
        x0 = model(seen, x.new_full((len(x),), level), **extra)
        return Prediction(x0, (x - x0) / sigma)

    return denoise


def _noise(
    name: str, sampler: Callable[[Tensor, Tensor], Tensor] | None, seed: int | None, x: Tensor
) -> Noise:
    if sampler is not None:
        return lambda draw, sigma, after: sampler(x.new_tensor(sigma), x.new_tensor(after))
    first = int(torch.randint(2**62, ())) if seed is None else seed
    seeds = tuple(first + number for number in range(len(x)))
    return noise_named(name)(seeds, tuple(x.shape[1:]), x.device)


# --- theirs in our loop ---------------------------------------------------------------------------


def from_k_diffusion(function: Callable[..., Tensor], **options: Any) -> Solver:
    """A function of k-diffusion's form as a solver of ours.

        run = sd.prepare("a red house", scheduler=from_k_diffusion(sample_lms), spacing="karras")

    options: further keywords of it. Such a function runs a whole schedule by itself. Here it is run
    over that part of it that ends with the step in question, from where the run began, and is told
    again what the model said there: so what it remembers, it remembers, and any step is a pure
    function still. Where x is another than the last step left, or guidance is, it begins anew.

    Its noise comes from the loop: what it draws by noise_sampler, or by torch.randn_like; it is
    Brownian where the function's own is. Raises InputError for a function that does not take
    (model, x, sigmas), as DPM-fast and DPM-adaptive, and for an s_churn, which counts the steps to
    come; the solver does so where it asks more of the model than x0, or draws by other means.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        takes = inspect.signature(function).parameters
    except (TypeError, ValueError):
        takes = {}
    if [*takes][:3] != ["model", "x", "sigmas"]:
        raise InputError(f"{name} takes ({', '.join(takes)}), and not (model, x, sigmas, ...)")
    churn = takes.get("s_churn")
    if churn is not None and options.get("s_churn", churn.default) != 0:
        raise InputError(
            f"{name} divides s_churn among all steps of a schedule, and is given those behind it "
            "alone: take ours, euler_churn or heun_churn"
        )
    return KDiffusionSolver(function, name, "noise_sampler" in takes, churn is None, options)


@dataclass(frozen=True)
class KDiffusionSolver:
    """A Solver. See `from_k_diffusion`."""

    function: Callable[..., Tensor]
    name: str
    takes_noise: bool
    draws: bool  # what randn_like gives is used: k-diffusion draws for s_churn 0, too
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def __name__(self) -> str:
        return self.name

    @property
    def noise(self) -> Literal["independent", "brownian"]:
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        brownian = "BrownianTreeNoiseSampler" in getattr(code, "co_names", ())
        return "brownian" if brownian else "independent"

    def __call__(
        self, denoise: Denoise, x: Tensor, interval: Interval, memory: Memory, draw: Draw
    ) -> tuple[Tensor, Prediction, Memory]:
        prediction = denoise(x, interval.sigma)
        origin = prediction.origin
        steps = steps_before(self.name, memory, interval, origin)
        if steps and not torch.equal(values(steps[-1], "end")[0].value, x):
            steps = []
        answers = iter([memo.value for told in steps for memo in values(told, "x0")])
        noises = iter([memo.value for told in steps for memo in values(told, "noise")])
        now: Told = [note(self.name, "x", interval.sigma, x, origin, interval)]
        fresh = [prediction]  # of the first question of this step
        asking = False  # an error within is none of the function's

        def model(x_asked: Tensor, sigma: Tensor, **_: Any) -> Tensor:
            nonlocal asking
            if (known := next(answers, None)) is not None:
                return known
            place = _exact(float(sigma.flatten()[0]), interval)
            first = bool(fresh) and place == interval.sigma
            if first and not torch.equal(x_asked, x):
                raise InputError(
                    f"{self.name} draws noise that is not the loop's, so no step of it comes "
                    "twice: give it a noise_sampler"
                )
            asking = True
            answer = fresh.pop() if first else denoise(x_asked, place)
            asking = False
            now.append(note(self.name, "x0", place, answer.x0, origin, interval))
            return answer.x0

        def noise_sampler(sigma: Any, sigma_next: Any) -> Tensor:
            if (known := next(noises, None)) is not None:
                return known
            noise = draw(float(sigma), float(sigma_next))
            now.append(note(self.name, "noise", float(sigma), noise, origin, interval))
            return noise

        def randn_like(like: Tensor, **_: Any) -> Tensor:
            return noise_sampler(interval.sigma, interval.sigma_next) if self.draws else 0 * like

        start = interval.index - len(steps)
        begin = values(steps[0], "x")[0].value if steps else x
        sigmas = x.new_tensor(interval.sigmas[start : interval.index + 2])
        keywords = dict(self.options)
        if self.takes_noise:
            keywords["noise_sampler"] = noise_sampler
        try:
            function = rebound(self.function, torch=_Drawing(randn_like))
            x_next = function(model, begin, sigmas, disable=True, **keywords)
        except (AttributeError, TypeError) as error:
            if asking:
                raise
            raise InputError(
                f"{self.name} asks more of its model than x0 of x and sigma: {said(error)}"
            ) from error
        now.append(note(self.name, "end", interval.sigma_next, x_next, origin, interval))
        return x_next, prediction, kept([*steps, now])


class _Drawing:
    """torch, for a function that draws by randn_like."""

    def __init__(self, randn_like: Callable[..., Tensor]) -> None:
        self.randn_like = randn_like

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _exact(sigma: float, interval: Interval) -> float:
    """The schedule's own sigma, where this is it in another precision."""
    near = (s for s in (interval.sigma, interval.sigma_next) if abs(s - sigma) <= _SAME * s)
    return next(near, sigma)
