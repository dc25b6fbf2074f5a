"""The laws of sdcore/lab/laws.py for every scheduler of the table on every spacing there is.

Hypothesis chooses spacing, N, start, shape and prediction type, always the same ones;
`make laws` tries twenty times as many. The number of different runs is printed at the end.
"""

import inspect
import math
from functools import cache, partial
from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdcore.errors import InputError
from sdcore.lab import Gaussian, Mixture, laws, measure
from sdcore.lab.laws import LAWS
from sdcore.lab.setting import Setting
from sdcore.process import PREDICTION_TYPES
from sdcore.sampling import State, sample
from sdcore.schedulers import SPACINGS, TABLE, resolve

SHAPES = [(1, 1, 1, 1), (2, 4, 3, 5), (3, 1, 2, 2), (1, 9, 1, 7)]
# Steps chosen by an error estimate count as numbers in a gradient: it is right to their tolerance.
ADAPTIVE = 2e-2
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


@cache
def quiet(name):
    return resolve(name, eta=0.0).solver


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


def without_noise(entry):
    """The solver with its noise switched off, or None where it cannot be."""
    has_eta = "eta" in inspect.signature(entry.solver).parameters
    return quiet(entry.name) if has_eta or not entry.stochastic else None


@every_scheduler
def test_exact_where_the_answer_is_known(entry, tried, request):
    """For constant eps without noise; with noise in the world of one picture."""

    @bounded(12 * times(request))
    @given(runs(entry.name, 60))
    def law(run):
        note(tried, entry, run)
        if without_noise(entry) is not None:
            assert laws.exact_for_constant_eps(without_noise(entry), run) is None, run
        if entry.stochastic and not entry.keeps_some_x:
            solver = scheduler(entry.name).solver
            brownian = entry.noise == "brownian"
            assert laws.exact_at_a_point(solver, run, brownian) is None, run

    law()


@every_scheduler
def test_one_truth_in_three_forms(entry, tried, request):
    @bounded(2 * times(request))
    @given(runs(entry.name, 60))
    def law(run):
        note(tried, entry, run)
        assert laws.one_truth_in_three_forms(scheduler(entry.name).solver, run) is None, run

    law()


@every_scheduler
def test_every_other_law(entry, tried, request):
    @bounded(2 * times(request))
    @given(runs(entry.name, 5))
    def holds(run):
        note(tried, entry, run)
        solver = scheduler(entry.name).solver
        for name, law in LAWS.items():
            if law is laws.asks_first_at_x and entry.raises_first:
                continue
            if law is laws.passes_gradients and entry.adaptive:
                law = partial(law, limit=ADAPTIVE)
            assert law(solver, run) is None, name

    holds()


@every_scheduler
def test_few_steps_on_every_spacing(entry, tried):
    """Where start-ups and ends meet."""
    for spacing, steps in product(SPACINGS, (1, 2, 3, 4)):
        run = Setting(plan(entry.name, spacing, steps), 0, SHAPES[0], name=spacing)
        note(tried, entry, run)
        if without_noise(entry) is not None:
            assert laws.exact_for_constant_eps(without_noise(entry), run) is None, run
        assert laws.answers_well(scheduler(entry.name).solver, run) is None, run


@every_scheduler
def test_noise_is_drawn_where_the_table_says_so(entry):
    sigmas = plan(entry.name, "karras", 6)
    x = torch.ones(1, 1, 2, 2)
    drawn = lambda *_: torch.zeros_like(x)  # noqa: E731
    default = list(sample(Mixture(), x, sigmas, resolve(entry.name).solver, drawn))
    without = list(sample(Mixture(), x, sigmas, quiet(entry.name), drawn))
    assert (default[-1].draws > 0) == entry.stochastic
    if without_noise(entry) is not None:
        assert without[-1].draws == 0


@pytest.mark.parametrize(
    "entry",
    [entry for entry in TABLE if entry.nfe == 1 and entry.order > 0],
    ids=lambda entry: entry.name,
)
@bounded(6)
@given(
    st.floats(0.05, 50),
    st.one_of(st.just(0.0), st.floats(0.01, 0.95)),
    st.sampled_from(SHAPES),
)
def test_a_single_step_is_eulers(entry, sigma, share, shape):
    """Order 1 is Euler, which into sigma 0 is the model's x0."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * sigma
    solver = quiet(entry.name)
    noise = lambda *_: torch.zeros_like(x)  # noqa: E731
    (step,) = sample(Mixture(), x, [sigma, sigma * share], solver, noise)
    p = Mixture()(x, sigma)
    if step.nfe > 1:  # its start-up is of higher order
        assert entry.starts_higher
        return
    assert (step.x_next - (p.x0 + sigma * share * p.eps)).abs().max() <= 1e-13 * (1 + sigma)


@every_scheduler
def test_starting_in_the_middle_is_starting_there(entry):
    """The sigmas before the start do not matter, whatever they are."""
    solver = quiet(entry.name)
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
    """In a Gaussian world too: eight times the steps divide the error by 2^order at least."""
    found = measure(
        entry.name,
        quiet(entry.name),
        counts=(10, 80),
        world=Gaussian(0.3, 0.5),
        brownian=entry.noise == "brownian",
        rounding=False,
    )
    assert all(map(math.isfinite, found.errors))
    assert found.errors[1] <= max(found.errors[0] / 2**entry.order, 1e-12) or entry.order == 0
