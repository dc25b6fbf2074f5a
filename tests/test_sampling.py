"""The loop with every scheduler. The laws of the solvers: tests/schedulers/test_laws.py."""

import itertools
import math

import pytest
import torch

from scripts.trajectories import SEEDS, SHAPE, our_latents, our_steps, wavy
from sdcore.denoiser import Denoiser
from sdcore.errors import InputError
from sdcore.guidance import CFG
from sdcore.lab import Gaussian
from sdcore.lab.worlds import denoiser as world_denoiser
from sdcore.noise import SeededNoise
from sdcore.process import VariancePreserving
from sdcore.sampling import Memo, Prediction, State, Step, sample
from sdcore.schedulers import TABLE, resolve

gaussian = Gaussian(0.3, 0.5)
NAMES = [entry.name for entry in TABLE]


def loop(name, steps=8, start=None, seeds=SEEDS):
    """A fresh loop of this scheduler; start: a State to resume from."""
    scheduler = resolve(name)
    plan = scheduler.plan(steps)
    noise = SeededNoise(seeds, SHAPE)
    told = {"cond": {"context": torch.zeros(len(seeds), 1, 1)}}
    denoise = Denoiser(wavy, VariancePreserving(plan), told, CFG(1))
    x = noise.start() * plan.start_scale if start is None else start
    return sample(denoise, x, plan.sigmas, scheduler.solver, noise)


@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_told(name):
    steps, entry = list(loop(name)), resolve(name).entry
    sigmas = resolve(name).plan(8).sigmas
    for i, step in enumerate(steps):
        assert isinstance(step, Step)
        assert (step.index, step.count) == (i, 8)
        assert (step.sigma, step.sigma_next) == (sigmas[i], sigmas[i + 1])
        if entry.raises_first and step.draws:
            continue
        rebuilt = step.prediction.x0 + step.sigma * step.prediction.eps
        assert (rebuilt - step.x).abs().max() <= 2e-5
        assert step.x_next.dtype == torch.float32
    for before, after in itertools.pairwise(steps):
        assert after.x is before.x_next
    assert len(steps) == 8


@pytest.mark.parametrize("name", NAMES)
def test_break_leaves_nothing_behind(name):
    whole = list(loop(name))
    for step in loop(name):
        if step.index == 3:
            break
    assert torch.equal(step.x_next, whole[3].x_next)
    assert torch.equal(list(loop(name))[-1].x_next, whole[-1].x_next)


@pytest.mark.parametrize("name", NAMES)
def test_assigning_x_next_intervenes(name):
    steps = []
    for step in loop(name):
        if step.index == 2:
            step.x_next = torch.full_like(step.x_next, 0.5)
        steps.append(step)
    assert torch.equal(steps[3].x, torch.full_like(steps[3].x, 0.5))
    assert torch.equal(steps[2].state.x, steps[3].x)
    assert not torch.equal(steps[-1].x_next, list(loop(name))[-1].x_next)


@pytest.mark.parametrize("name", NAMES)
def test_the_loop_reads_back_x_next_and_nothing_else(name):
    whole = list(loop(name))
    for step in loop(name):
        step.sigma_next, step.index = 99.0, 77
        step.memory, step.draws = (), 50
        final = step.x_next
    assert torch.equal(final, whole[-1].x_next)


@pytest.mark.parametrize("name", ["dpm2_a", "dpmpp_3m_sde", "unipc"])
def test_resuming_counts_on(name):
    whole = list(loop(name))
    for step in whole[:-1]:
        rest = list(loop(name, start=step.state))
        assert [one.index for one in rest] == list(range(step.index + 1, 8))
        for one in rest:
            assert torch.equal(one.x_next, whole[one.index].x_next)
            assert one.draws == whole[one.index].draws
            assert one.nfe == whole[one.index].nfe
    assert list(loop(name, start=whole[-1].state)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_does_not_depend_on_its_batch(name):
    """To the bit, in the float32 that pictures are drawn in."""
    alone = our_latents(resolve(name), 6, seeds=(5,))
    batch = our_latents(resolve(name), 6, seeds=(0, 5, 9))
    other = our_latents(resolve(name), 6, seeds=(5, 9))
    assert torch.equal(batch[1:2], alone)
    assert torch.equal(other[0:1], alone)


@pytest.mark.parametrize("name", NAMES)
def test_draws_are_counted_and_none_is_drawn_in_vain(name):
    drawn = []

    def noise(draw, sigma, sigma_next):
        drawn.append(draw)
        return torch.zeros(2, *SHAPE)

    scheduler = resolve(name)
    plan = scheduler.plan(7)
    steps = list(sample(gaussian, torch.ones(2, *SHAPE), plan.sigmas, scheduler.solver, noise))
    entry = scheduler.entry
    assert drawn == list(range(steps[-1].draws))
    assert bool(drawn) == entry.stochastic
    assert steps[-1].draws == steps[-2].draws  # none into sigma 0
    if entry.stochastic and entry.nfe == 1 and not entry.raises_first:
        assert [step.draws for step in steps][:4] == [1, 2, 3, 4]


def test_noise_that_is_needed_and_not_given_is_refused():
    with pytest.raises(InputError, match="give sample\\(\\) a noise"):
        list(sample(gaussian, torch.ones(1, 1, 2, 2), [2.0, 1.0], resolve("euler_a").solver))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps(name, steps):
    done, _ = our_steps(resolve(name), steps)
    assert len(done) == steps
    assert done[-1].x_next.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_starting_in_the_middle(name):
    scheduler = resolve(name)
    plan = scheduler.plan(6)
    noise = SeededNoise(SEEDS, SHAPE)
    for start in range(6):
        x = torch.zeros(2, *SHAPE) + noise.start() * plan.sigmas[start]
        steps = list(sample(gaussian, State(x, start), plan.sigmas, scheduler.solver, noise))
        assert [step.index for step in steps] == list(range(start, 6))
        assert steps[0].sigma == plan.sigmas[start]
        assert steps[0].x is x


@pytest.mark.parametrize("name", NAMES)
def test_float64_stays_float64(name):
    sigmas = resolve(name).plan(4).sigmas
    x = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    noise = SeededNoise((0,), (1, 4, 4))
    for step in sample(gaussian, x, sigmas, resolve(name).solver, noise):
        assert step.x_next.dtype == step.prediction.x0.dtype == torch.float64


def test_the_loop_leaves_its_sigmas_and_what_the_network_is_told():
    scheduler = resolve("dpmpp_2m")
    plan = scheduler.plan(5)
    noise = SeededNoise(SEEDS, SHAPE)
    sigmas, context = list(plan.sigmas), torch.ones(2, 1, 1)
    denoise = Denoiser(wavy, VariancePreserving(plan), {"cond": {"context": context}}, CFG(1))
    list(sample(denoise, noise.start(), sigmas, scheduler.solver, noise))
    assert sigmas == list(plan.sigmas)
    assert torch.equal(context, torch.ones(2, 1, 1))


def test_no_gradient_is_kept_that_the_caller_does_not_want():
    x = torch.ones(1, 1, 4, 4, requires_grad=True)
    solver = resolve("dpmpp_2m").solver
    with torch.no_grad():
        *_, last = sample(gaussian, x, [3.0, 2.0, 1.0], solver)
    assert not last.x_next.requires_grad
    *_, last = sample(gaussian, x, [3.0, 2.0, 1.0], solver)
    assert last.x_next.requires_grad


def test_nfe_counts_every_question():
    def greedy(denoise, x, interval, memory, draw):
        for _ in range(interval.index + 1):
            prediction = denoise(x, interval.sigma)
        return x, prediction, memory

    steps = list(sample(gaussian, torch.ones(1, 1, 2, 2), [4.0, 3.0, 2.0, 1.0], greedy))
    assert [step.nfe for step in steps] == [1, 2, 3]


def test_memory_is_handed_on():
    def counting(denoise, x, interval, memory, draw):
        prediction = denoise(x, interval.sigma)
        return x, prediction, (*memory, Memo("i", interval.sigma, torch.tensor(interval.index)))

    steps = list(sample(gaussian, torch.ones(1, 1, 2, 2), [4.0, 3.0, 2.0, 1.0], counting))
    assert [int(memo.value) for memo in steps[-1].state.memory] == [0, 1, 2]


def test_records_that_are_values_cannot_be_changed():
    prediction = Prediction(torch.zeros(1), torch.zeros(1))
    with pytest.raises(AttributeError):
        prediction.x0 = torch.ones(1)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        State(torch.zeros(1)).index = 3  # type: ignore[misc]


def test_a_step_tells_what_was_told_and_drawn() -> None:
    plan = resolve("euler_a").plan(5)
    noise = SeededNoise((1, 2), (1, 2, 2))
    drawn = []

    def heard(draw: int, sigma: float, sigma_next: float) -> torch.Tensor:
        drawn.append(noise(draw, sigma, sigma_next))
        return drawn[-1]

    denoise = world_denoiser(Gaussian(0.3, 0.5), batch=2)
    steps = list(sample(denoise, noise.start() * 14, plan.sigmas, resolve("euler_a").solver, heard))
    for step in steps:
        assert step.t == step.sigma  # the world's network is told sigma itself
        assert step.h == (math.log(step.sigma / step.sigma_next) if step.sigma_next else math.inf)
    count = len(drawn)
    again = [tensor() for step in steps for tensor in step.drawn]
    assert count == len(again) == 4
    assert all(torch.equal(a, b) for a, b in zip(again, drawn[:count], strict=True))
    assert next(sample(Gaussian(), torch.zeros(1), (2.0, 1.0), resolve("euler").solver)).t is None


@pytest.mark.parametrize("name", ["x", "prediction"])
def test_only_x_next_is_assigned(name: str) -> None:
    step = next(sample(Gaussian(), torch.ones(1), (2.0, 1.0), resolve("euler").solver))
    with pytest.raises(AttributeError, match=rf"step\.{name} .* step\.x_next"):
        setattr(step, name, None)
    step.x_next = torch.zeros(1)
    assert torch.equal(step.state.x, torch.zeros(1))
