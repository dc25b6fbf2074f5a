"""The laws of sdcore/lab/laws.py for every scheduler of the table on every spacing there is.

Hypothesis chooses spacing, N, start, shape and prediction type, always the same ones;
`make laws` tries twenty times as many. The number of different runs is printed at the end.
"""

import inspect
import math
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdcore.denoiser import PREDICTION_TYPES
from sdcore.errors import InputError
from sdcore.lab import Mixture, laws
from sdcore.lab.laws import LAWS, Setting
from sdcore.sampling import State, sample
from sdcore.schedulers import SPACINGS, TABLE, resolve

SHAPES = [(1, 1, 1, 1), (2, 4, 3, 5), (3, 1, 2, 2), (1, 9, 1, 7)]
every_scheduler = pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)


def bounded(examples):
    """So many examples a scheduler, the same in every run."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def times(request):
    return request.config.getoption("--times")


@cache
def plan(name, spacing, steps):
    """The sigmas, or None where the spacing has no room for so many steps."""
    try:
        return scheduler(name, spacing).plan(steps).sigmas
    except InputError:
        return None


scheduler = cache(resolve)


@st.composite
def runs(draw, name, most):
    """A setting of this scheduler: (spacing, Setting)."""
    spacing = draw(st.sampled_from(list(SPACINGS)))
    steps = draw(st.integers(1, most))
    while (sigmas := plan(name, spacing, steps)) is None:  # lcm has room for 50
        steps -= 1
    start = draw(st.integers(0, steps - 1))
    shape = draw(st.sampled_from(SHAPES))
    form = draw(st.sampled_from(PREDICTION_TYPES))
    return Setting(sigmas, start, shape, draw(st.integers(0, 9)), spacing, form)


def note(tried, entry, run):
    tried.add((entry.name, run.name, len(run.sigmas) - 1, run.start, run.prediction_type))


def has_eta(entry):
    return "eta" in inspect.signature(entry.solver).parameters


@every_scheduler
def test_exact_where_the_answer_is_known(entry, tried, request):
    """For constant eps without noise; with noise in the world of one picture."""

    @bounded(25 * times(request))
    @given(runs(entry.name, 60))
    def law(run):
        note(tried, entry, run)
        solver = resolve(entry.name, eta=0.0).solver
        if not entry.stochastic or has_eta(entry):
            assert laws.exact_for_constant_eps(solver, run) is None, run
        if entry.stochastic:
            solver = resolve(entry.name).solver
            brownian = entry.noise == "brownian"
            assert laws.exact_at_a_point(solver, run, brownian) is None, run

    law()


@every_scheduler
def test_one_truth_in_three_forms(entry, tried, request):
    @bounded(3 * times(request))
    @given(runs(entry.name, 60))
    def law(run):
        note(tried, entry, run)
        assert laws.one_truth_in_three_forms(resolve(entry.name).solver, run) is None, run

    law()


@every_scheduler
@pytest.mark.parametrize("law", [law for law in LAWS if not law.startswith("the same from eps")])
def test_purity(entry, law, tried, request):
    @bounded(2 * times(request))
    @given(runs(entry.name, 6))
    def holds(run):
        note(tried, entry, run)
        assert LAWS[law](resolve(entry.name).solver, run) is None, run

    holds()


@every_scheduler
@pytest.mark.parametrize("spacing", SPACINGS)
def test_every_number_of_steps(entry, spacing, tried):
    """Few steps on every spacing, where start-ups and ends meet."""
    solver = resolve(entry.name, spacing=spacing, eta=0.0).solver
    for steps in (1, 2, 3, 4):
        sigmas = plan(entry.name, spacing, steps)
        if sigmas is None:
            continue
        run = Setting(sigmas, 0, SHAPES[0], name=spacing, prediction_type="epsilon")
        note(tried, entry, run)
        if not entry.stochastic or has_eta(entry):
            assert laws.exact_for_constant_eps(solver, run) is None, run
        assert laws.answers_well(resolve(entry.name).solver, run) is None, run


@every_scheduler
def test_noise_is_drawn_where_the_table_says_so(entry):
    sigmas = plan(entry.name, "karras", 6)
    x = torch.ones(1, 1, 2, 2)
    drawn = lambda *_: torch.zeros_like(x)  # noqa: E731
    default = list(sample(Mixture(), x, sigmas, resolve(entry.name).solver, drawn))
    quiet = list(sample(Mixture(), x, sigmas, resolve(entry.name, eta=0.0).solver, drawn))
    assert (default[-1].draws > 0) == entry.stochastic
    if not entry.stochastic or has_eta(entry):
        assert quiet[-1].draws == 0


@pytest.mark.parametrize(
    "entry",
    [entry for entry in TABLE if entry.nfe == 1 and entry.order > 0],
    ids=lambda entry: entry.name,
)
@bounded(20)
@given(
    st.floats(0.05, 50),
    st.one_of(st.just(0.0), st.floats(0.01, 0.95)),
    st.sampled_from(SHAPES),
)
def test_a_single_step_is_eulers(entry, sigma, share, shape):
    """Order 1 is Euler, which into sigma 0 is the model's x0."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * sigma
    solver = resolve(entry.name, eta=0.0).solver
    noise = lambda *_: torch.zeros_like(x)  # noqa: E731
    (step,) = sample(Mixture(), x, [sigma, sigma * share], solver, noise)
    p = Mixture()(x, sigma)
    assert step.nfe == 1
    assert (step.x_next - (p.x0 + sigma * share * p.eps)).abs().max() <= 1e-13 * (1 + sigma)


@every_scheduler
def test_starting_in_the_middle_is_starting_there(entry):
    """The sigmas before the start do not matter, whatever they are."""
    solver = resolve(entry.name, eta=0.0).solver
    x = torch.linspace(-3, 3, 8, dtype=torch.float64).reshape(1, 2, 2, 2)
    rest = [3.0, 2.2, 1.3, 0.7, 0.2, 0.0]
    zero = lambda *_: torch.zeros_like(x)  # noqa: E731
    ends = [
        list(sample(Mixture(), State(x, 2), [*before, *rest], solver, zero))[-1].x_next
        for before in ([14.0, 8.0], [14.0, 3.1])
    ]
    assert torch.equal(*ends)


@every_scheduler
def test_the_order_does_not_hang_on_the_world(entry):
    """Also in a Gaussian world: no farther from its flow with twice the steps."""
    from sdcore.lab import Gaussian, measure

    found = measure(
        entry.name,
        resolve(entry.name, eta=0.0).solver,
        counts=(30, 60),
        world=Gaussian(0.3, 0.5),
        brownian=entry.noise == "brownian",
        rounding=False,
    )
    assert all(map(math.isfinite, found.errors))
    assert found.errors[1] <= found.errors[0] or entry.order == 0
