"""What every solver must keep, each law a function that says what is broken, or None.

The laws need no weights and no reference: they follow from what a solver is (docs/architecture.md)
and from worlds whose answer is known. `sdcore check` runs them on a stranger's file, and the tests
on every scheduler there is.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sdcore.lab.order import moments
from sdcore.lab.setting import EXACT, Setting
from sdcore.lab.worlds import Mixture, point
from sdcore.process import PREDICTION_TYPES
from sdcore.sampling import Memo, Memory, Prediction, Solver, State

Law = Callable[[Solver, Setting], str | None]


def _far(what: str, ours: Tensor, exact: Tensor, limit: float) -> str | None:
    """`what` and the number, where two tensors are farther apart than allowed."""
    if ours.shape != exact.shape:
        return f"{what}: shape {list(ours.shape)}, not {list(exact.shape)}"
    apart = (ours - exact).abs().max().item()
    return None if apart <= limit else f"{what}: max abs error {apart:.1e}"


def answers_well(solver: Solver, setting: Setting) -> str | None:
    """x_next is a finite tensor of x's shape, dtype and device; memory is a tuple of Memos."""
    for dtype in (torch.float32, torch.float64):
        x = setting.state.x.to(dtype)
        for step in setting.run(solver, state=replace(setting.state, x=x)):
            for what, value in (("x_next", step.x_next), ("x0", step.prediction.x0)):
                if not isinstance(value, Tensor):
                    return f"{what} is no tensor but {type(value).__name__}"
                if (value.shape, value.device) != (x.shape, x.device):
                    return f"{what} is {list(value.shape)} on {value.device}, x {list(x.shape)}"
                if value.dtype != dtype:
                    return f"{what} is {value.dtype} where x is {dtype}"
                if not value.isfinite().all():
                    return f"{what} is not finite in step {step.index + 1}"
            memos = isinstance(step.memory, tuple) and all(
                isinstance(kept, Memo) and isinstance(kept.value, Tensor) for kept in step.memory
            )
            if not memos:
                return "memory is not a tuple of Memos: Memo(kind, sigma, tensor)"
    return None


def asks_first_at_x(solver: Solver, setting: Setting) -> str | None:
    """The model is asked through `denoise`; the prediction returned is its answer at (x, sigma).

    And at sigma above 0 only: x is the picture at 0, and a network was not trained there.
    """
    answers: list[Prediction] = []  # at (x, sigma), in the step that runs
    beyond: list[float] = []

    def watched(ask, x, interval, memory, draw):
        answers.clear()

        def noting(at: Tensor, sigma: float) -> Prediction:
            if not sigma > 0:
                beyond.append(sigma)
            prediction = ask(at, sigma)
            if sigma == interval.sigma and torch.equal(at, x):
                answers.append(prediction)
            return prediction

        return solver(noting, x, interval, memory, draw)

    for step in setting.run(watched):
        if step.nfe == 0:
            return f"step {step.index + 1} does not ask the model"
        if beyond:
            return f"step {step.index + 1} asks at sigma {beyond[0]:g}; the model answers above 0"
        if not any(torch.equal(step.prediction.x0, answer.x0) for answer in answers):
            return f"the prediction of step {step.index + 1} is not the one at (x, sigma)"
    return None


def leaves_arguments(solver: Solver, setting: Setting) -> str | None:
    """Neither x, nor what is remembered, nor what the model said is changed in place."""
    answers: list[tuple[str, Tensor, Tensor]] = []

    def remember(what: str, *tensors: Tensor) -> None:
        answers.extend((what, tensor, tensor.clone()) for tensor in tensors)

    def denoise(x: Tensor, sigma: float) -> Prediction:
        prediction = Mixture()(x, sigma)
        remember("the model's answer", prediction.x0, prediction.eps)
        return prediction

    def watched(ask, x, interval, memory, draw):
        remember("x", x)
        remember("memory", *(memo.value for memo in memory))

        def drawn(sigma: float, sigma_next: float) -> Tensor:
            noise = draw(sigma, sigma_next)
            remember("noise", noise)
            return noise

        return solver(ask, x, interval, memory, drawn)

    for step in setting.run(watched, denoise):
        for what, now, before in answers:
            if not torch.equal(now, before):
                return f"step {step.index + 1} changes {what} in place"
    return None


def same_call_twice(solver: Solver, setting: Setting) -> str | None:
    """The same arguments give the same bits: nothing is kept but in memory."""

    def twice(denoise, x, interval, memory, draw):
        drawn: list[Tensor] = []

        def first(sigma: float, sigma_next: float) -> Tensor:
            drawn.append(draw(sigma, sigma_next))
            return drawn[-1]

        answer = solver(denoise, x, interval, memory, first)
        again = iter(drawn)
        other = solver(denoise, x, interval, memory, lambda *_: next(again))
        if not _equal(answer, other):
            broken.append(f"step {interval.index + 1} called twice gives two answers")
        return answer

    broken: list[str] = []
    for _ in setting.run(twice):
        pass
    return broken[0] if broken else None


Answer = tuple[Tensor, Prediction, Memory]


def _equal(a: Answer, b: Answer) -> bool:
    plain, same = ([(m.kind, m.sigma, m.origin, m.note) for m in kept] for kept in (a[2], b[2]))
    if plain != same:
        return False
    pairs = [
        (a[0], b[0]),
        (a[1].x0, b[1].x0),
        *((m.value, n.value) for m, n in zip(a[2], b[2], strict=True)),
    ]
    return all(torch.equal(one, other) for one, other in pairs)


def interleaves(solver: Solver, setting: Setting) -> str | None:
    """Two loops that take turns end as each does alone."""
    other = replace(setting, seed=setting.seed + 50)
    alone = [each.end(solver) for each in (setting, other)]
    ends = [pair[-2:] for pair in zip(setting.run(solver), other.run(solver), strict=True)][-1]
    if all(torch.equal(step.x_next, x) for step, x in zip(ends, alone, strict=True)):
        return None
    return "two loops that take turns disturb each other"


def resumes(solver: Solver, setting: Setting) -> str | None:
    """Going on from any step's State ends at the same bits."""
    whole = list(setting.run(solver))
    for step in whole[:: max(1, len(whole) // 3)]:
        for rest in setting.run(solver, state=step.state):
            if not torch.equal(rest.x_next, whole[rest.index - setting.start].x_next):
                return f"resuming after step {step.index + 1} gives another result"
    return None


def draws_through_draw(solver: Solver, setting: Setting) -> str | None:
    """No random numbers but those of `draw`: no global generator moves or matters."""
    ends: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):
        kept = random.getstate(), np.random.get_state()
        try:
            for seed in (1, 2):
                torch.manual_seed(seed)
                random.seed(seed)
                np.random.seed(seed)
                before = _random_state()
                ends.append(setting.end(solver))
                if _random_state() != before:
                    return "random numbers are drawn from a global generator, not through draw"
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])
    return None if torch.equal(*ends) else "the result depends on a global seed"


def _random_state() -> tuple[bytes, object, bytes]:
    return (
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        pickle.dumps(np.random.get_state()),
    )


def ignores_its_batch(solver: Solver, setting: Setting) -> str | None:
    """Each image of a batch ends as it does alone, to rounding."""
    batch = setting.end(solver)
    for image in range(setting.shape[0]):
        alone = replace(setting, shape=(1, *setting.shape[1:]), seed=setting.seed + image)
        end = alone.end(solver)
        broken = _far(
            "an image alone and in a batch", end, batch[image : image + 1], 10 * setting.unit
        )
        if broken:
            return broken
    return None


def passes_gradients(solver: Solver, setting: Setting, limit: float = 1e-4) -> str | None:
    """The derivative of the end by the start is the finite difference, to this share of it."""
    direction = torch.randn(
        setting.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    x = setting.state.x.clone().requires_grad_()
    end = list(setting.run(solver, state=State(x, setting.start)))[-1].x_next
    if not end.requires_grad:
        return "no gradient reaches x: something is detached, or computed without torch"
    (gradient,) = torch.autograd.grad(end.sum(), x, allow_unused=True)
    if gradient is None:
        return "no gradient reaches x"
    single = setting.unit > EXACT
    step, limit = (3e-3, max(limit, 3e-2)) if single else (1e-4, limit)
    with torch.no_grad():
        high, low = (
            list(setting.run(solver, state=State(x + side * direction, setting.start)))[-1].x_next
            for side in (step, -step)
        )
    slope, expected = (gradient * direction).sum(), (high - low).sum() / (2 * step)
    scale = (gradient * direction).abs().sum().item()
    if not (slope - expected).abs().item() <= limit * scale + 1e-6:
        return f"the gradient is {slope:.6g} where the finite difference is {expected:.6g}"
    return None


def exact_for_constant_eps(solver: Solver, setting: Setting) -> str | None:
    """Where the model always says the same eps, x ends at x + (sigma_end - sigma_start) eps.

    dx/dsigma = eps has no other solution, so any consistent rule must find it, on any sigmas and
    from any start; wrong weights, strides or start-ups show at once. For one that draws no noise,
    or has it switched off.
    """
    x = setting.state.x
    eps = replace(setting, seed=setting.seed + 99).noise.start().double()

    def always(x: Tensor, sigma: float) -> Prediction:
        return Prediction(torch.add(x, eps, alpha=-sigma), eps)

    exact = x + (setting.sigmas[-1] - setting.sigmas[setting.start]) * eps
    limit = setting.unit * (1 + max(setting.sigmas)) * len(setting.sigmas)
    last = list(setting.run(solver, always))[-1]
    if last.draws:
        return "noise is drawn where none should be"
    return _far("constant eps", last.x_next, exact, limit)


def exact_at_a_point(solver: Solver, setting: Setting, brownian: bool = False) -> str | None:
    """In the world of one picture: at sigma 0 x is that picture, above it the std is sigma.

    Both hold at any N, since the model's x0 is constant there. For solvers that draw.
    """
    sigmas = setting.sigmas[setting.start :]
    if sigmas[-1] == 0:
        limit = setting.unit * (1 + sigmas[0]) * len(sigmas)
        exact = torch.full_like(setting.state.x, 0.4)
        if broken := _far(
            "the world of one picture", setting.end(solver, point(0.4)), exact, limit
        ):
            return broken
        sigmas = sigmas[:-1]
    if len(sigmas) < 2:
        return None
    ends = moments(solver, sigmas, point(0.4), brownian)
    if abs(ends.mean - 0.4) > 1e3 * setting.unit:
        return f"in the world of one picture, 0.4, the mean ends at {ends.mean:.6g}"
    if abs(ends.variance - sigmas[-1] ** 2) > 1e3 * setting.unit * sigmas[-1] ** 2:
        std = ends.variance**0.5
        return f"in the world of one picture the std ends at {std:.6g}, not {sigmas[-1]:.6g}"
    return None


def one_truth_in_three_forms(solver: Solver, setting: Setting) -> str | None:
    """The same result whether the network says eps, v or x0.

    Through the engine's Denoiser. To 1e3 units: rounding, divided by the least sigma and summed.
    """
    ends = [replace(setting, prediction_type=form).end(solver) for form in PREDICTION_TYPES]
    for form, end in zip(PREDICTION_TYPES[1:], ends[1:], strict=True):
        if broken := _far(
            f"{form} against {PREDICTION_TYPES[0]}", end, ends[0], 1e3 * setting.unit
        ):
            return broken
    return None


# Kept by every solver in every setting; the words are those of `sdcore check`.
LAWS: dict[str, Law] = {
    "finite; shape, dtype and device kept": answers_well,
    "the prediction is the model's at (x, sigma)": asks_first_at_x,
    "arguments unchanged": leaves_arguments,
    "the same call twice, the same bits": same_call_twice,
    "interleaved loops": interleaves,
    "resuming from a State": resumes,
    "random only through draw": draws_through_draw,
    "independent of the batch": ignores_its_batch,
    "gradients flow": passes_gradients,
    "the same from eps, v and x0": one_truth_in_three_forms,
}
