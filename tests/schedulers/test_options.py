"""Options of a solver by name, and spacings of one's own."""

from functools import partial

import pytest
import torch

from scripts.trajectories import our_latents
from sdcore.errors import InputError
from sdcore.schedulers import TABLE, Grid, Spacing, resolve
from sdcore.schedulers.solvers.churn import churn
from sdcore.schedulers.solvers.dpmpp import dpmpp_2m
from sdcore.schedulers.solvers.euler import euler
from sdcore.schedulers.solvers.heun import heun
from sdcore.user_file import digests


def bound(scheduler):
    """The options of a scheduler's solver, but for the process."""
    found = dict(getattr(scheduler.solver, "keywords", {}))
    found.pop("process", None)
    return found


@pytest.mark.parametrize(
    ("name", "written", "option"),
    [
        ("dpmpp_2m:euler_at_final=1", "dpmpp_2m:euler_at_final=true", {"euler_at_final": True}),
        ("heun_churn:s_churn=10", "heun_churn:s_churn=10.0", {"s_churn": 10.0, "s_tmin": 0.05}),
        ("comfyui:dpm_2_ancestral:eta=0.5", "dpm2_a", {"eta": 0.5}),
        ("DPM++ 2M Karras:lower_order_final=false", "dpmpp_2m:lower_order_final=false",
         {"lower_order_final": False}),
        ("unipc:disable_corrector=[0,1]", "unipc:disable_corrector=[0,1]",
         {"disable_corrector": (0, 1)}),
        ("DDIM", "ddim", {"eta": 0.0}),
        (partial(dpmpp_2m, euler_at_final=True), "dpmpp_2m:euler_at_final=true",
         {"euler_at_final": True}),
        (partial(churn, solver=heun, s_churn=3.0), "heun_churn:s_churn=3.0,s_tmin=0.0,s_tmax=inf",
         {"s_churn": 3.0, "s_tmin": 0.0, "eta": 0.0}),
        (partial(euler, eta=0.5), "euler", {"eta": 0.5}),
        (euler, "euler", {"eta": 0.0}),
    ],
)  # fmt: skip
def test_options_have_a_written_form_that_draws_the_same(name, written, option):
    scheduler = resolve(name)
    assert scheduler.written == written
    assert option.items() <= bound(scheduler).items()
    again = resolve(scheduler.written, scheduler.spacing.written, scheduler.eta)
    assert again.plan(6) == scheduler.plan(6)
    assert bound(again) == bound(scheduler)


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_every_schedulers_own_name_is_its_written_form(entry):
    assert resolve(entry.name).written == entry.name


def test_a_partial_of_a_known_solver_keeps_its_grid():
    for name in ("dpmpp_2m", "ddim", "lms"):
        function = resolve(name).entry.solver
        assert (
            resolve(partial(function)).plan(7).sigmas
            == resolve("euler" if name == "ddim" else name).plan(7).sigmas
        )
    ours = resolve(partial(dpmpp_2m, euler_at_final=True), tail="sigma_min")
    named = resolve("dpmpp_2m", tail="sigma_min")
    assert ours.plan(20) == named.plan(20)
    assert not torch.equal(our_latents(ours, 20), our_latents(named, 20))


@pytest.mark.parametrize(
    ("name", "eta", "message"),
    [
        ("dpmpp_2m:eular_at_final=1", None, "no option 'eular_at_final' (did you mean euler_at_"
         "final?): its options are lower_order_final=true, euler_at_final=false, solver_type=mid"),
        ("heun_churn:s=1", None, "s_churn=40.0, s_tmin=0.05, s_tmax=50.0, s_noise=1.0"),
        ("res_multistep:x=1", None, "scheduler res_multistep has no option 'x'; it has none"),
        ("dpmpp_2m:euler_at_final=7", None, "euler_at_final=7: it is true or false"),
        ("dpmpp_2m:euler_at_final", None, "gives euler_at_final no value: write dpmpp_2m:euler_at"),
        ("comfyui:euler:1", None, "gives 1 no value"),
        ("unipc:solver_order=4", None, "scheduler unipc has solver_order=4: it is 1 or 2 or 3"),
        ("unipc:solver_type=bh3", None, "solver_type=bh3: it is bh1 or bh2"),
        ("sa_solver:predictor_order=0", None, "predictor_order=0: it is 1 or 2 or 3 or 4"),
        ("euler_ge:gamma=inf", None, "gamma=inf: it is a number"),
        ("heun_churn:s_churn=-1", None, "s_churn=-1: it is a number of at least 0"),
        ("restart:restarts=1000000", None, "it is a whole number of at least 0 and at most 100"),
        ("heun_churn:solver=euler", None, "no option 'solver'"),
        ("lcm:process=1", None, "no option 'process'"),
        ("ddim:eta=-1", None, "at least 0"),
        ("ddim:eta=0.5", 0.25, "says eta 0.5, and eta says 0.25"),
        ("euler:", None, "gives option no value: write euler:option=..."),
    ],
)  # fmt: skip
def test_refusals_name_the_right_options(name, eta, message):
    with pytest.raises(InputError) as caught:
        resolve(name, eta=eta)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


SPACING = """
from sdcore.schedulers import Grid

def spacing(schedule, steps, *, power=2.0):
    high, low = schedule.sigmas[-1], schedule.sigmas[0]
    return [low + (high - low) * (1 - i / steps) ** power for i in range(steps)] + [0.0]

def told(schedule, steps):
    sigmas = spacing(schedule, steps)[:-1]
    return Grid(tuple(sigmas), tuple(float(i) for i in range(steps)[::-1]))

def short(schedule, steps):
    return [1.0]

def rising(schedule, steps):
    return [float(i + 1) for i in range(steps)]

def fails(schedule, steps):
    return 1 / 0
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SPACING)
    return path


def test_a_spacing_of_a_file(file):
    plain, cubic, told = (
        resolve("dpmpp_2m", f"{file}{rest}") for rest in ("", ":power=3", ":told")
    )
    names = [each.spacing.name for each in (plain, cubic, told)]
    assert names == ["mine", "mine", "told"]
    assert cubic.spacing.written == f"{file}:power=3"
    assert plain.plan(4).sigmas[1] > cubic.plan(4).sigmas[1]
    assert plain.plan(4).sigmas == told.plan(4).sigmas
    assert told.plan(4).timesteps == (3.0, 2.0, 1.0, 0.0)
    assert plain.plan(4).sigmas[-1] == 0
    assert plain.plan(4).start_scale == pytest.approx((1 + plain.plan(4).sigmas[0] ** 2) ** 0.5)
    assert list(digests([cubic.written, cubic.spacing.written, None])) == [str(file)]


def test_a_spacing_that_is_a_function():
    def halves(schedule, steps):
        return [8.0 / 2**i for i in range(steps)]

    scheduler = resolve("euler", halves)
    assert scheduler.plan(3).sigmas == (8.0, 4.0, 2.0, 0.0)
    assert (scheduler.spacing.name, scheduler.spacing.written) == ("halves", None)
    assert resolve("euler", halves, tail=1.0).plan(3).sigmas == (8.0, 4.0, 2.0, 1.0)
    rule = lambda schedule, steps: Grid((2.0, 1.0), (5.0, 3.0))  # noqa: E731
    assert resolve("euler", Spacing("two", rule)).plan(2).sigmas == (2.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (":short", "the spacing of mine.py returns 1 sigmas for 3 steps"),
        (":rising", "returns sigmas that do not fall"),
        (":fails", "mine.py, line 19: ZeroDivisionError"),
        (":powr=3", "no option 'powr' (did you mean power?): its options are power=2.0"),
        (":absent", "mine.py has no spacing named absent"),
    ],
)
def test_what_a_file_does_wrong_is_one_line(file, rest, message):
    with pytest.raises(InputError) as caught:
        resolve("euler", f"{file}{rest}").plan(3)
    assert message in str(caught.value)


def test_a_file_that_is_not_there():
    with pytest.raises(InputError, match="no spacing file"):
        resolve("euler", "nowhere.py")
    with pytest.raises(InputError, match="says karras spacing"):
        resolve("Euler Karras", lambda schedule, steps: [1.0])
