"""Grids: against diffusers for every number of steps, golden values, ends, and refusals."""

import math
from functools import partial

import numpy
import pytest
import torch

from scripts.trajectories import SD, SHAPE, diffusers_scheduler, our_latents, wavy
from sdcore.errors import InputError
from sdcore.sampling import Prediction, sample
from sdcore.schedulers import SPACINGS, TABLE, TOOLS, NoiseSchedule, Spacing, resolve
from sdcore.schedulers.config import fields_for, noise_schedule_of, spacing_of
from sdcore.schedulers.conventions import CONVENTIONS
from sdcore.schedulers.spacing import at_timesteps
from sdcore.schedulers.spacing.beta import cdf, quantile
from sdcore.schedulers.spacing.sigmas import polyexponential

DISTILLED = ("LCMScheduler", "TCDScheduler")  # up to 50 steps
WHOLE = ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler",
         "DEISMultistepScheduler", "SASolverScheduler")  # fmt: skip

EVERY = (*range(1, 64), 71, 99, 100, 128, 250, 333, 499, 500, 501, 750, 997, 998, 999, 1000)
SOME = (*range(1, 21), 50, 100)
FIRST = ("DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler")  # of their kinds
FEW = (1, 2, 3, 4, 10, 20, 33, 50)
CURVES = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas",
          "beta": "use_beta_sigmas"}  # fmt: skip
INTERLEAVED = ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler",
               "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler")  # fmt: skip


def ulps(ours, theirs):
    """The largest distance in float32 steps."""
    a = torch.tensor(ours, dtype=torch.float32).view(torch.int32)
    return (a - theirs.float().view(torch.int32)).abs().max().item()


def planner(class_name, config, name=None):
    """The plans of one of diffusers' classes, whatever solver runs it."""
    fields = fields_for(class_name, {**config, "_class_name": class_name})
    schedule = noise_schedule_of(CONVENTIONS[class_name], fields)
    return partial(spacing_of(CONVENTIONS[class_name], fields, schedule, name).plan, schedule)


def plan(class_name, config, steps):
    return planner(class_name, config)(steps)


def reference(class_name, config):
    """(t, sigmas or None) by steps, of the class's own grid: stages in between left out."""
    diffusers = pytest.importorskip("diffusers")
    diffusers.logging.set_verbosity_error()
    theirs = diffusers_scheduler(class_name, config)

    def grid(steps):
        theirs.set_timesteps(steps)
        t, sigmas = theirs.timesteps, getattr(theirs, "sigmas", None)
        if class_name in INTERLEAVED:
            t, sigmas = t[::2], torch.cat([sigmas[:1], sigmas[1::2]])
        if class_name == "PNDMScheduler":
            t = torch.cat([t[:1], t[2:]])  # without the doubled second one
        return t[:steps].tolist(), None if sigmas is None else sigmas[:steps]

    return grid


def refuses(run, steps):
    """Whether there is no room for so many steps, here and there."""
    try:
        return None, run(steps)
    except (InputError, ValueError) as error:
        return error, None


def compare(class_name, config, counts):
    """t exactly and sigma to 1 float32 step, for every N that either can do."""
    grid, ours_for, compared = reference(class_name, config), planner(class_name, config), 0
    for steps in counts:
        no_room, ours = refuses(ours_for, steps)
        if no_room:
            continue
        t, sigmas = grid(steps)
        assert list(ours.timesteps) == t, steps
        if sigmas is not None:
            assert ulps(ours.sigmas[:-1], sigmas) <= 1, steps
        compared += 1
    return compared


@pytest.mark.parametrize("class_name", CONVENTIONS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_and_sigmas_equal_diffusers(class_name, spacing):
    counts = EVERY if class_name in FIRST else SOME if class_name in INTERLEAVED else range(1, 61)
    counts = [steps for steps in counts if steps <= 50 or class_name not in DISTILLED]
    compared = compare(class_name, {**SD, "timestep_spacing": spacing}, counts)
    assert compared >= len(counts) - 3


@pytest.mark.slow
@pytest.mark.parametrize("class_name", CONVENTIONS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_and_sigmas_equal_diffusers_for_every_number(class_name, spacing):
    counts = range(1, 51 if class_name in DISTILLED else 1001)
    compared = compare(class_name, {**SD, "timestep_spacing": spacing}, counts)
    assert compared >= len(counts) - 3


def one_too_many(steps):
    """Whether diffusers' trailing has a step too many (diffusers.trailing.arange)."""
    return len(numpy.arange(1000, 0, -1000 / steps)) > steps


def compare_curve(class_name, spacing, curve, counts):
    """sigma to 1 float32 step; t to what diffusers' float32 logarithms and its cut leave of it."""
    config = {**SD, "timestep_spacing": spacing}
    plain = planner(class_name, config)
    config[CURVES[curve]] = True
    grid, ours_for, compared = reference(class_name, config), planner(class_name, config), 0
    for steps in counts:
        no_room, ours = refuses(ours_for, steps)
        if no_room:  # `leading` has none for 1000, and beyond 1e5 a cell the sigmas are one
            continue
        t, sigmas = grid(steps)
        compared += 1
        if spacing == "trailing" and one_too_many(steps) and class_name not in WHOLE:
            # their curve ends at the timestep too many, ours where trailing does
            assert ours.sigmas[-2] == pytest.approx(plain(steps).sigmas[-2], rel=2e-7)
            assert sigmas[-1] == pytest.approx(plain(steps).noise_schedule.sigmas[0], rel=2e-7)
            continue
        assert ulps(ours.sigmas[:-1], sigmas) <= 1, steps
        exact = [ours.noise_schedule.timestep(sigma) for sigma in ours.sigmas[:-1]]
        for i, (mine, true, yours) in enumerate(zip(ours.timesteps, exact, t, strict=True)):
            if class_name not in WHOLE:
                # a cell of 0.005 to 0.35 in log sigma, to 2.4e-7
                rounded = class_name.startswith("KDPM2") and curve == "karras"
                expected = round(true) if rounded else true
                assert mine == expected
                slack = 1 if expected != true and abs(true % 1 - 0.5) < 2e-4 else 2e-4
                assert abs(yours - expected) <= slack, (steps, i)
            elif curve == "karras":
                assert mine == yours or abs(true % 1 - 0.5) < 2e-4, (steps, i)
            else:  # diffusers cuts these, see test_quirks
                assert mine == round(true)
                assert -2e-4 <= true - yours < 1 + 2e-4, (steps, i)
    return compared


@pytest.mark.parametrize(
    "class_name", [name for name in CONVENTIONS if CURVES["beta"] in CONVENTIONS[name].fields]
)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("curve", CURVES)
def test_grids_over_sigma_equal_diffusers(class_name, spacing, curve):
    if spacing != "leading":
        counts = (*FEW[:5], 61)  # 61: see one_too_many
    elif class_name in FIRST:
        counts = range(1, 61, 1 if curve != "beta" else 4)
    else:
        counts = FEW
    assert compare_curve(class_name, spacing, curve, counts) == len(counts)


@pytest.mark.slow
@pytest.mark.parametrize(
    "class_name", [name for name in CONVENTIONS if CURVES["beta"] in CONVENTIONS[name].fields]
)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("curve", CURVES)
def test_grids_over_sigma_equal_diffusers_for_every_number(class_name, spacing, curve):
    """Each class has its own copy of three curves: two are tried with every number of steps, each
    other one with every seventh, beginning elsewhere (half a second a grid, in KDPM2)."""
    begin, stride = (
        (1, 1) if class_name in FIRST else (1 + list(CONVENTIONS).index(class_name) % 7, 7)
    )
    counts = range(begin, 1001, stride)
    assert compare_curve(class_name, spacing, curve, counts) >= len(counts) - 1  # leading's 1000


@pytest.mark.parametrize("class_name", ["EulerDiscreteScheduler", "UniPCMultistepScheduler"])
@pytest.mark.parametrize("curve", CURVES)
def test_sigma_limits_equal_diffusers(class_name, curve):
    config = {**SD, CURVES[curve]: True, "sigma_min": 0.1, "sigma_max": 10.0}
    grid = reference(class_name, config)
    for steps in FEW:
        assert ulps(plan(class_name, config, steps).sigmas[:-1], grid(steps)[1]) <= 1


@pytest.mark.parametrize("clip", [-5.1, -1.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize(
    "class_name", [n for n in CONVENTIONS if "lambda_min_clipped" in CONVENTIONS[n].fields]
)
def test_lambda_min_clipped_equals_diffusers(class_name, spacing, clip):
    """The noisiest timesteps of the cosine table (its lambda falls to -9.9) are left out."""
    fields = {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": clip}
    config = {**SD, **fields, "timestep_spacing": spacing}
    if spacing == "trailing" and class_name != "DPMSolverSinglestepScheduler":
        # they keep the whole table's stride, and so end with fewer steps than asked for
        t, _ = reference(class_name, config)(10)
        ours = plan(class_name, config, 10)
        assert t[0] == ours.timesteps[0] < 998
        assert len(t) < 10 or clip == -5.1
        assert len(ours.timesteps) == 10
    else:
        assert compare(class_name, config, FEW) == len(FEW)


def test_lu_lambdas_are_even_in_log_sigma():
    config = {**SD, "use_lu_lambdas": True}
    grid = reference("DPMSolverMultistepScheduler", config)
    for steps in FEW:
        ours = plan("DPMSolverMultistepScheduler", config, steps)
        t, sigmas = grid(steps)
        assert list(ours.timesteps) == t
        # theirs takes exp of float32 logarithms: 2.68 is 1.2e-7 off
        assert ours.sigmas[:-1] == pytest.approx(sigmas.tolist(), rel=4e-7)


def test_log_linear_interpolation():
    config = {**SD, "interpolation_type": "log_linear"}
    theirs = reference("EulerDiscreteScheduler", config)
    for steps in FEW:
        ours = plan("EulerDiscreteScheduler", config, steps)
        assert ours.sigmas[:-1] == pytest.approx(theirs(steps)[1].tolist(), rel=1e-6)
        assert ours.sigmas[-1] == ours.noise_schedule.sigmas[0]


def test_k_diffusion_has_the_same_curves():
    sampling = pytest.importorskip("k_diffusion.sampling")
    for steps in (1, 2, 3, 10, 33):
        for name, theirs in (
            ("karras", sampling.get_sigmas_karras),
            ("exponential", sampling.get_sigmas_exponential),
            ("polyexponential", sampling.get_sigmas_polyexponential),
        ):
            ours = resolve("euler", f"kdiffusion:{name}").plan(steps)
            low, high = ours.noise_schedule.sigmas[0], ours.noise_schedule.sigmas[-1]
            # theirs are float32: the 7th power of a root is 7 roundings off
            assert ours.sigmas == pytest.approx(theirs(steps, low, high).tolist(), rel=2e-6)


def test_k_diffusion_has_the_same_powers_of_a_ramp():
    sampling = pytest.importorskip("k_diffusion.sampling")
    for rho in (0.5, 2.0):
        theirs = sampling.get_sigmas_polyexponential(12, 0.03, 14.6, rho=rho)[:-1]
        assert polyexponential(14.6, 0.03, 12, rho=rho) == pytest.approx(theirs.tolist(), rel=2e-6)


def test_k_diffusions_own_sigmas():
    external = pytest.importorskip("k_diffusion.external")
    acp = torch.tensor(resolve("kdiffusion:euler").noise_schedule.alphas_cumprod)
    theirs = external.DiscreteEpsDDPMDenoiser(lambda x, t: x, acp, quantize=False)
    for steps in (2, 3, 10, 33):
        ours = resolve("kdiffusion:euler").plan(steps)
        assert ours.sigmas == pytest.approx(theirs.get_sigmas(steps).tolist(), rel=2e-6)
        t = [theirs.sigma_to_t(torch.tensor(sigma)).item() for sigma in ours.sigmas[:-1]]
        assert ours.timesteps == pytest.approx(t, abs=2e-3)


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (0.5, 0.5), (1, 1), (2, 3), (0.3, 5)])
def test_beta_quantiles(a, b):
    stats = pytest.importorskip("scipy.stats")
    for p in (0.0, 1e-6, 0.001, 0.1, 0.3, 0.5, 0.77, 0.999, 1.0):
        assert quantile(p, a, b) == pytest.approx(stats.beta.ppf(p, a, b), abs=1e-14)
        assert cdf(p, a, b) == pytest.approx(stats.beta.cdf(p, a, b), rel=1e-13)


GOLDEN = """
normal              14.61 7.84 4.609 2.918 1.95 1.345 .9324 .625 .3687 .02917 0
linspace            14.61 7.84 4.609 2.918 1.95 1.345 .9324 .625 .3687 .02917 0
trailing            14.61 8.303 5.088 3.321 2.276 1.613 1.161 .8299 .5693 .3417 0
simple              14.61 8.303 5.088 3.321 2.276 1.613 1.161 .8299 .5693 .3417 0
sgm_uniform         14.61 8.307 5.092 3.325 2.28 1.616 1.163 .8319 .5712 .3437 0
leading             8.391 5.134 3.348 2.293 1.624 1.168 .8357 .5741 .3462 .04131 0
ddim_uniform        8.391 5.134 3.348 2.293 1.624 1.168 .8357 .5741 .3462 .04131 0
karras              14.61 9.103 5.478 3.169 1.749 .9141 .4469 .2014 .08191 .02917 0
exponential         14.61 7.325 3.671 1.84 .9222 .4622 .2317 .1161 .0582 .02917 0
kl_optimal          14.61 4.232 2.394 1.597 1.133 .8152 .5729 .3725 .1953 .02917 0
comfyui:kl_optimal  14.61 4.232 2.394 1.597 1.133 .8152 .5729 .3725 .1953 .02917 0
a1111:kl_optimal    14.61 4.565 2.633 1.786 1.295 .9616 .7116 .5094 .3356 .1783 .02917
beta                14.61 13.93 12.49 10.6 8.442 6.201 4.046 2.153 .716 .02917 0
a1111:beta          14.61 13.93 12.49 10.6 8.442 6.201 4.046 2.153 .716 .02917 0
beta_t              14.61 11.54 7.372 4.373 2.615 1.618 1.027 .6549 .3955 .1991 0
comfyui:beta        14.61 11.54 7.372 4.373 2.615 1.618 1.027 .6549 .3955 .1991 0
ays                 14.615 6.475 3.861 2.697 1.886 1.396 .963 .652 .399 .152 0
ays_sdxl            14.615 6.315 3.771 2.181 1.342 .862 .555 .380 .234 .113 0
"""


@pytest.mark.parametrize("line", GOLDEN.strip().splitlines(), ids=lambda line: line.split()[0])
def test_golden_numbers(line):
    """Ten steps on SD's table, four digits, as the tools themselves print them."""
    name, *golden = line.split()
    sigmas = resolve("euler", spacing=name).plan(10).sigmas
    assert sigmas == pytest.approx([float(number) for number in golden], rel=7e-4)


def test_the_golden_numbers_of_dpmpp():
    golden = (14.61, 8.303, 5.088, 3.321, 2.276, 1.618, 1.164, 0.8328, 0.5717, 0.3439, 0)
    assert resolve("dpmpp_2m").plan(10).sigmas == pytest.approx(golden, rel=7e-4)


def test_aligned_steps_of_diffusers_and_a1111():
    """diffusers' constants are the ten sigmas and 0; A1111 visits the eleventh, 0.029, as well."""
    schedulers = pytest.importorskip("diffusers.schedulers")
    for name, key in (("ays", "Diffusion"), ("ays_sdxl", "DiffusionXL")):
        theirs = schedulers.AysSchedules[f"Stable{key}Sigmas"]
        ours = resolve("euler", spacing=name).plan(10)
        assert ours.sigmas == pytest.approx(theirs, abs=6e-4)
        t = schedulers.AysSchedules[f"Stable{key}Timesteps"]
        assert ours.timesteps == pytest.approx(t, abs=1.3)
        assert resolve("euler", f"a1111:{name}").plan(11).sigmas == pytest.approx(
            [*theirs[:-1], 0.029, 0], abs=6e-4
        )


def test_distilled_timesteps():
    for steps, times in (
        (1, (999,)), (2, (999, 499)), (4, (999, 759, 499, 259)),
        (8, (999, 879, 759, 639, 499, 379, 259, 139)),
    ):  # fmt: skip
        assert plan("LCMScheduler", SD, steps).timesteps == times


def test_distilled_timesteps_as_a1111_lays_them():
    """Evenly over the 50 known ones, log sigma between two of them, the nearest one told."""
    ours, sigma = resolve("LCM").plan(4), resolve("a1111:euler").noise_schedule.sigma
    assert ours.timesteps == (999, 679, 339, 19)
    two_thirds = sigma(659) ** (1 / 3) * sigma(679) ** (2 / 3)
    one_third = sigma(339) ** (2 / 3) * sigma(359) ** (1 / 3)
    assert ours.sigmas == pytest.approx((sigma(999), two_thirds, one_third, sigma(19), 0))
    assert resolve("LCM").plan(1).timesteps == (999,)


def test_a_tail_above_the_last_step_is_refused():
    last = resolve("euler", "karras").plan(5).sigmas[-2]
    assert resolve("euler", "karras", tail=last).plan(5).sigmas[-1] == last
    with pytest.raises(InputError, match=r"the tail 0\.5 is above the last step's sigma, 0\.02917"):
        resolve("euler", "karras", tail=0.5).plan(5)


def test_ends_are_data():
    euler, ddim = resolve("euler").plan(20), resolve("ddim").plan(20)
    assert euler.start_scale == euler.sigmas[0] == pytest.approx(14.614647, abs=1e-6)
    assert (euler.sigmas[-1], euler.end_scale) == (0.0, 1.0)
    assert resolve("euler", spacing="leading").plan(20).start_scale == pytest.approx(
        math.hypot(1, 11.02834), abs=1e-5
    )
    assert ddim.start_scale == math.hypot(1, ddim.sigmas[0])
    assert ddim.sigmas[-1] == pytest.approx(0.029167533, abs=1e-8)
    assert ddim.end_scale == 1 / math.hypot(1, ddim.sigmas[-1])
    to_one = resolve("ddim", config={**SD, "set_alpha_to_one": True}).plan(20)
    assert (to_one.sigmas[-1], to_one.end_scale) == (0.0, 1.0)


EVERYWHERE = [
    *SPACINGS,
    *(f"{key}:{name}" for key, tool in TOOLS.items() for name in tool.spacings),
]


@pytest.mark.parametrize("spacing", EVERYWHERE)
def test_every_scheduler_takes_every_spacing(spacing):
    schedulers = [resolve(entry.name, spacing=spacing) for entry in TABLE]
    for steps in (1, 2, 3, 10, 23):
        plans = [scheduler.plan(steps) for scheduler in schedulers]
        for plan in {(p.sigmas, p.timesteps): p for p in plans}.values():  # most have the same
            assert len(plan.sigmas) == steps + 1
            assert len(plan.timesteps) == steps
            assert all(isinstance(value, float) for value in (*plan.sigmas, *plan.timesteps))
            assert all(a > b for a, b in zip(plan.sigmas[:-1], plan.sigmas[1:-1], strict=False))
            assert plan.sigmas[-2] >= plan.sigmas[-1] >= 0
            for sigma, t in zip(plan.sigmas, plan.timesteps, strict=False):
                assert plan.timestep(sigma) == t


def test_the_tail_is_a_choice():
    least = resolve("euler").noise_schedule.sigmas[0]
    zero = resolve("dpmpp_2m", "karras").plan(10).sigmas
    assert resolve("dpmpp_2m", "karras", tail="sigma_min").plan(10).sigmas == (*zero[:-1], least)
    assert resolve("dpmpp_2m", "karras", tail="0.01").plan(10).sigmas == (*zero[:-1], 0.01)
    eleven = resolve("dpmpp_2m", "karras").plan(11).sigmas
    without = resolve("dpmpp_2m", "karras", tail="discard_penultimate").plan(10).sigmas
    assert without == (*eleven[:-2], 0.0)


def test_explicit_lists():
    given = resolve("euler", "sigmas:14.6,7,2.5,0.1")
    assert given.plan(3).sigmas == (14.6, 7, 2.5, 0.1)
    assert given.plan(3).start_scale == 14.6
    assert given.spacing.steps == 3
    with pytest.raises(InputError, match="has 3 steps, and steps says 4"):
        given.plan(4)
    given = resolve("ddim", "timesteps:999, 500,2.5")
    assert given.spacing.name == "timesteps:999,500,2.5"
    assert given.plan(3).timesteps == (999, 500, 2.5)
    assert resolve("ddim", given.spacing.name).plan(3) == given.plan(3)
    with pytest.raises(InputError, match="timestep 1000"):
        resolve("ddim", "timesteps:1000").plan(1)


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, "20", None])
def test_steps_must_be_a_number_of_steps(steps):
    with pytest.raises(InputError, match="whole number of at least 1"):
        resolve("euler").plan(steps)


@pytest.mark.parametrize(("spacing", "steps"), [("leading", 1000), ("trailing", 1001)])
def test_too_many_steps_are_refused(spacing, steps):
    resolve("ddim", spacing=spacing).plan(steps - 1)
    with pytest.raises(InputError, match=r"fewer"):
        resolve("ddim", spacing=spacing).plan(steps)


@pytest.mark.parametrize("spacing", ["trailing", "karras", "normal", "beta", "kl_optimal"])
def test_infinite_sigma_is_refused_with_a_reason(spacing):
    config = {**SD, "rescale_betas_zero_snr": True}
    with pytest.raises(InputError, match=r"infinite sigma .* eps says nothing"):
        resolve("ddim", spacing, config=config).plan(10)
    resolve("ddim", "leading", config=config).plan(10)  # which does not start there


def test_a_spacing_of_ones_own():
    def rule(schedule: NoiseSchedule, steps: int):
        return at_timesteps(schedule, [900 - 90 * i for i in range(steps)])

    plan = resolve("heun", spacing=Spacing("mine", rule)).plan(5)
    assert plan.timesteps == (900.0, 810.0, 720.0, 630.0, 540.0)
    assert plan.start_scale == plan.sigmas[0]


def told(name, spacing, steps, **options):
    """(sigma, t) of everything that the network is asked in a run, and the plan."""
    scheduler = resolve(name, spacing, **options)
    laid, asked = scheduler.plan(steps), []

    def model(x, sigma):
        asked.append((sigma, laid.timestep(sigma)))
        return Prediction(x, torch.zeros_like(x))

    x = torch.zeros(1, 1, 1, 1)
    for _ in sample(model, x, laid.sigmas, scheduler.solver, lambda *_: x):
        pass
    return asked, laid


@pytest.mark.parametrize("steps", [5, 20, 100])
def test_a_stage_at_a_sigma_of_the_grid_is_told_the_grids_t(steps):
    """DPM2 ancestral's middle is sigma_next by another computation; karras rounds the grid's t."""
    asked, laid = told("dpm2_a", "karras", steps)
    stages = [t for _, t in asked[1:-1:2]]
    assert stages == list(laid.timesteps[1:])
    assert stages == [t for _, t in asked[2::2]]
    off = laid.sigmas[3] * (1 + 1e-5)
    assert laid.timestep(off) == laid.noise_schedule.timestep(off) != laid.timesteps[3]


@pytest.mark.parametrize("name", ["dpm_2", "dpm_2_ancestral", "dpm_adaptive", "heun", "dpmpp_sde"])
@pytest.mark.parametrize("spacing", ["karras", "normal", "sigmas:10,3,1,0.2,0"])
def test_comfyui_is_told_the_nearest_trained_timestep(name, spacing):
    """Everywhere, stages in between included: the table's log sigma that is nearest."""
    asked, laid = told(f"comfyui:{name}", f"comfyui:{spacing}", 4)
    table = laid.noise_schedule.log_sigmas
    for sigma, t in asked:
        nearest = min(abs(each - math.log(sigma)) for each in table)
        assert abs(table[int(t)] - math.log(sigma)) <= nearest + 1e-9  # 499 and 500 may be as near
        assert t == int(t)


def test_a_list_may_follow_a_tool():
    ours = resolve("euler", "comfyui:sigmas:10,3,0")
    assert ours.spacing.written == "comfyui:sigmas:10,3,0"
    assert ours.plan(2).timesteps == tuple(map(round, ours.plan(2).timesteps))
    again = resolve(ours.written, ours.spacing.written)
    assert again.plan(2) == ours.plan(2) == resolve("comfyui:euler", "sigmas:10,3,0").plan(2)
    assert resolve("euler", "sigmas:10,3,0").plan(2).timesteps != ours.plan(2).timesteps


def inverse_latents(class_name, steps, x0, **fields):
    """(ours, diffusers') of its inverse class from these latents upwards."""
    diffusers = pytest.importorskip("diffusers")
    config = {**SD, **fields}
    theirs = getattr(diffusers, class_name).from_config(config)
    theirs.set_timesteps(steps)
    x = x0
    for t in theirs.timesteps:
        x = theirs.step(wavy(x, t), t, x).prev_sample
    scheduler = resolve(class_name, config=config)
    laid = scheduler.plan(steps)
    assert list(laid.timesteps) == theirs.timesteps.tolist()
    ours = our_latents(scheduler, steps, x=x0 * laid.start_scale)
    return ours, x


@pytest.mark.parametrize("to_one", [False, True])
@pytest.mark.parametrize("steps", [4, 20])
def test_ddim_inverse_equals_diffusers(steps, to_one):
    x0 = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    ours, theirs = inverse_latents("DDIMInverseScheduler", steps, x0, set_alpha_to_one=to_one)
    assert (ours - theirs).abs().max() <= 1e-5 * max(1, theirs.abs().max())


@pytest.mark.parametrize("steps", [4, 20])
def test_dpm_solver_inverse_equals_diffusers(steps):
    x0 = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    ours, theirs = inverse_latents("DPMSolverMultistepInverseScheduler", steps, x0)
    assert (ours - theirs).abs().max() <= 1e-5 * max(1, theirs.abs().max())


@pytest.mark.parametrize("spacing", [None, "karras"])
@pytest.mark.parametrize(
    "class_name", ["DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"]
)
def test_an_inverse_class_climbs_its_forward_grid(class_name, spacing):
    up, down = resolve(class_name, spacing), resolve(class_name.replace("Inverse", ""), spacing)
    rising, falling = up.plan(6), down.plan(6)
    assert rising.sigmas[1:] == falling.sigmas[-2::-1]
    assert up.name == up.written == class_name
    assert rising.end_scale * falling.start_scale == pytest.approx(1)
    assert (
        resolve(config={**SD, "_class_name": class_name}).plan(6).sigmas == up.plan(6).sigmas
        or spacing
    )
