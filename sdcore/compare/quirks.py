"""Where a reference is wrong, and by how much: the registry.

Each case has a test that measures both, the reference's number and ours, and takes the number from
here. docs/parity.md prints it.
"""

import math
from dataclasses import dataclass

DIFFUSERS = "diffusers 0.42.1"


@dataclass(frozen=True)
class Quirk:
    """One case: what the reference does, and what is right here."""

    name: str
    reference: str  # package and version
    number: float  # measured there; what it is, the sentence says
    what: str
    test: str  # file::function under tests/


QUIRKS: tuple[Quirk, ...] = (
    Quirk(
        name="diffusers.ddim.stride_prev",
        reference=DIFFUSERS,
        number=2.894,
        what="DDIM steps to t - 1000 // N, which is not the next timestep of linspace, nor of "
        "trailing where N does not divide 1000; the number is the error for constant eps, "
        "linspace, N = 50.",
        test="schedulers/test_quirks.py::test_constant_eps_is_exact_here_and_not_there",
    ),
    Quirk(
        name="diffusers.pndm.stride_prev",
        reference=DIFFUSERS,
        number=11.785,
        what="PNDM does the same; the number is the error for constant eps, linspace, N = 13.",
        test="schedulers/test_quirks.py::test_constant_eps_is_exact_here_and_not_there",
    ),
    Quirk(
        name="diffusers.trailing.arange",
        reference=DIFFUSERS,
        number=1,
        what="trailing of whole timesteps has so many steps too many at N = 61 and 103, the last "
        "at t = -1, which is looked up from the table's other end. Curves over such a grid "
        "(karras, exponential, beta) end at sigma 0.029 there, and at 0.119 for N = 61 here.",
        test="schedulers/test_quirks.py::test_trailing_has_as_many_steps_as_asked",
    ),
    Quirk(
        name="diffusers.pndm.img2img",
        reference=DIFFUSERS,
        number=0.681,
        what="PNDM in image-to-image takes its second step for the doubled first one; the number "
        "is the error for constant eps, N = 10 from step 5.",
        test="schedulers/test_quirks.py::test_pndm_image_to_image_starts_its_multistep_afresh",
    ),
    Quirk(
        name="diffusers.pndm.v_mix",
        reference=DIFFUSERS,
        number=0.067,
        what="PNDM combines the raw v of several noise levels and converts with one of them (its "
        "#14816); the number is how far that carries 20 steps of the stand-in network.",
        test="schedulers/test_quirks.py::test_pndm_combines_eps_not_v",
    ),
    Quirk(
        name="diffusers.pndm.prk_middle",
        reference=DIFFUSERS,
        number=7,
        what="PNDM's Runge-Kutta start (skip_prk_steps false) takes x to t - stride // 2 and tells "
        "the network t_next + stride // 2; the number is how many timesteps lie between, linspace, "
        "N = 13. It is one where the stride is odd, as in leading with N = 40.",
        test="schedulers/test_quirks.py::test_pndm_runge_kutta_is_told_where_x_is",
    ),
    Quirk(
        name="diffusers.pndm.prk_few",
        reference=DIFFUSERS,
        number=4,
        what="PNDM with its Runge-Kutta start needs so many steps; with fewer it fails on the "
        "shapes of its own arrays.",
        test="schedulers/test_quirks.py::test_pndm_runge_kutta_runs_with_few_steps",
    ),
    Quirk(
        name="diffusers.dpm.sigma_min_twice",
        reference=DIFFUSERS,
        number=15,
        what="Third-order DPM-Solver with Karras sigmas that end at sigma_min has a last step of "
        "length 0 and is not a number there, from so many steps on.",
        test="schedulers/test_quirks.py::test_third_order_may_end_with_a_step_of_no_length",
    ),
    Quirk(
        name="diffusers.dpm.cosine_trunc",
        reference=DIFFUSERS,
        number=1.0,
        what="DPM++ with Karras sigmas on the cosine table cuts t to a whole one and does not "
        "round it; the number is the most that is cut, N = 10.",
        test="schedulers/test_quirks.py::test_dpmpp_cosine_karras_truncates_the_timestep",
    ),
    Quirk(
        name="diffusers.dpm2_a.two_timesteps",
        reference=DIFFUSERS,
        number=0.49,
        what="With eta 1 the midpoint of DPM2 ancestral is the next sigma of the grid itself. On "
        "Karras sigmas the network is told an exact t there and, one call later at the same sigma, "
        "a rounded one; the number is the most that they are apart, N = 5.",
        test="schedulers/test_quirks.py::test_dpm2_ancestral_tells_one_sigma_as_two_timesteps",
    ),
    Quirk(
        name="diffusers.dpm.exp_trunc",
        reference=DIFFUSERS,
        number=998,
        what="DPM++ and UniPC with exponential or beta sigmas cut t as well; the number is what "
        "the network is told at the sigma of t = 999.",
        test="schedulers/test_quirks.py::test_dpmpp_exponential_and_beta_truncate_the_timestep",
    ),
    Quirk(
        name="diffusers.flow_match.shift_twice",
        reference=DIFFUSERS,
        number=0.00893,
        what="FlowMatchEuler and FlowMatchHeun lay their own grid between ends that are shifted "
        "already, and shift it again (its #13243); the number is the last s with shift 3, where "
        "once is 0.002994. Sigmas that a pipeline gives are shifted once.",
        test="schedulers/test_flow.py::test_a_shift_is_taken_once",
    ),
    Quirk(
        name="diffusers.deis.flow_end",
        reference=DIFFUSERS,
        number=0.24975,
        what="DEIS and SA-Solver with flow sigmas end where their last step begins, with that much "
        "noise left; the number is the s of it, N = 4.",
        test="schedulers/test_flow.py::test_deis_with_flow_sigmas_ends_at_the_picture",
    ),
    Quirk(
        name="diffusers.euler.log_linear",
        reference=DIFFUSERS,
        number=444,
        what="Euler's interpolation_type log_linear tells the network the timesteps of linspace; "
        "the number is t at the middle of N = 10, where sigma is that of t = 233.21.",
        test="schedulers/test_quirks.py::test_log_linear_is_told_the_timesteps_of_other_sigmas",
    ),
    Quirk(
        name="diffusers.dpm.clipped_trailing",
        reference=DIFFUSERS,
        number=13,
        what="trailing with lambda_min_clipped keeps the whole table's stride; the number is how "
        "many steps are left of 20.",
        test="schedulers/test_quirks.py::test_clipped_trailing_has_as_many_steps_as_asked",
    ),
    Quirk(
        name="diffusers.half_precision",
        reference=DIFFUSERS,
        number=0.0051,
        what="Every step rounds x to the network's dtype; the number is the error that this makes "
        "in 30 float16 Euler steps of the stand-in network, against 0.0018 with x in float32.",
        test="schedulers/test_quirks.py::test_x_is_not_rounded_to_the_networks_dtype",
    ),
    Quirk(
        name="diffusers.lms.img2img",
        reference=DIFFUSERS,
        number=0.122,
        what="LMS in image-to-image takes weights for more eps than it has; the number is the "
        "error for constant eps, N = 20 from step 10.",
        test="schedulers/test_quirks.py::test_lms_image_to_image_starts_its_multistep_afresh",
    ),
    Quirk(
        name="diffusers.unipc.into_zero",
        reference=DIFFUSERS,
        number=math.nan,
        what="UniPC with solver_type bh1, with predict_x0 false or with lower_order_final false "
        "multiplies 0 by infinity in its last step, into sigma 0, which is the default; the "
        "latents are no numbers.",
        test="schedulers/test_quirks.py::test_unipc_goes_to_zero",
    ),
    Quirk(
        name="diffusers.deis.karras_one_step",
        reference=DIFFUSERS,
        number=0.0,
        what="DEIS with Karras sigmas and N = 1 does not leave the noise that it starts from; the "
        "number is how far it goes.",
        test="schedulers/test_quirks.py::test_deis_karras_with_one_step_steps",
    ),
    Quirk(
        name="diffusers.deis.float32_weights",
        reference=DIFFUSERS,
        number=9.0e-5,
        what="The weights of DEIS of order 3 are differences of large numbers in float32; the "
        "number is what that makes of 10 steps of the stand-in network.",
        test="schedulers/test_quirks.py::test_deis_weights_in_float32_cancel",
    ),
    Quirk(
        name="diffusers.singlestep.spacing",
        reference=DIFFUSERS,
        number=999,
        what="The singlestep class lays linspace whatever timestep_spacing says; the number is its "
        "first timestep under leading, N = 10, where 901 is meant.",
        test="schedulers/test_quirks.py::test_dpmpp_singlestep_follows_its_spacing",
    ),
    Quirk(
        name="diffusers.singlestep.rewrites_config",
        reference=DIFFUSERS,
        number=0.425,
        what="The singlestep class writes lower_order_final into its own config when N is odd, and "
        "keeps it; the number is what a run of 9 steps changes in the next one of 10, down to "
        "sigma_min.",
        test="schedulers/test_quirks.py::test_dpmpp_singlestep_forgets_the_run_before",
    ),
    Quirk(
        name="diffusers.dpm.sde3_sign",
        reference=DIFFUSERS,
        number=1,
        what="sde-dpmsolver++ of order 3 weighs the curvature with (1 - e^-2h - 2h) / (2h)^2 - 0.5 "
        "where + 0.5 is meant, which tends to -1 and not to 0; the number is the order that is "
        "left with the noise switched off, where k-diffusion's formula, which is ours, has 2.",
        test="schedulers/test_quirks.py::test_dpmpp_3m_sde_weighs_the_curvature_with_plus_one_half",
    ),
    Quirk(
        name="diffusers.ddpm.noise_at_the_end",
        reference=DIFFUSERS,
        number=0.323,
        what="DDPM with variance_type fixed_large adds noise in its last step too, unless that is "
        "at t = 0: the picture stays noisy. The number is the noise's std for trailing, N = 10.",
        test="schedulers/test_quirks.py::test_ddpm_ends_without_noise",
    ),
    Quirk(
        name="diffusers.ddpm.fixed_large_log",
        reference=DIFFUSERS,
        number=math.nan,
        what="DDPM with variance_type fixed_large_log takes the root of a logarithm; the latents "
        "are no numbers. It means the variance of fixed_large.",
        test="schedulers/test_quirks.py::test_ddpm_fixed_large_log_is_fixed_large",
    ),
    Quirk(
        name="diffusers.tcd.no_thresholding",
        reference=DIFFUSERS,
        number=0.0,
        what="TCD takes the fields of thresholding and never bounds x0; the number is what they "
        "change in 10 steps of the stand-in network.",
        test="schedulers/test_quirks.py::test_tcd_bounds_x0_where_it_is_told",
    ),
    Quirk(
        name="diffusers.dpm2_a.float32_sigma_down",
        reference=DIFFUSERS,
        number=math.nan,
        what="DPM2 ancestral takes sigma_down as a difference of near equals in float32, of which "
        "nothing is left where a step is long: on the cosine table with N = 10 the latents may "
        "be no numbers, on which processors is chance.",
        test="schedulers/test_quirks.py::test_dpm2_ancestral_takes_long_steps",
    ),
    Quirk(
        name="diffusers.euler.churn_order",
        reference=DIFFUSERS,
        number=0.570,
        what="Euler with s_churn adds the noise after the network was asked, so the step does not "
        "remove it, and a picture that the network knows exactly ends noisy. The number is the std "
        "at the end in a Gaussian world of std 0.5, Karras sigmas, N = 50, s_churn 40; in the "
        "paper's order it is 0.443, off to the other side. Both tend to 0.5: at N = 200 "
        "they are 0.529 and 0.473.",
        test="schedulers/test_quirks.py::test_euler_asks_the_network_after_the_churn",
    ),
    Quirk(
        name="diffusers.sa_solver.karras_one_step",
        reference=DIFFUSERS,
        number=0.0,
        what="SA-Solver with Karras sigmas and N = 1 repeats its only sigma; the number is how far "
        "it goes from the noise that it starts from.",
        test="schedulers/test_quirks.py::test_sa_solver_karras_with_one_step_steps",
    ),
    Quirk(
        name="diffusers.seg.two_blurs",
        reference=DIFFUSERS,
        number=1 / 64,
        what="Smoothed-energy guidance takes the mean of the queries where a finite blur is asked "
        "for, and blurs by a box where an infinite one is: the paper's code the other way round. "
        "The number is what a blur of 1 leaves of one query of 1 among zeros on 8 by 8 positions; "
        "a Gaussian's middle is 0.16.",
        test="guidance/test_beside_diffusers.py::test_smoothed_energy_has_its_two_blurs_exchanged_there",
    ),
    Quirk(
        name="diffusers.guiders.not_in_the_first_step",
        reference=DIFFUSERS,
        number=0.0,
        what="Skip-layer, perturbed-attention and smoothed-energy guidance that start at 0 are off "
        "in the first step, as CFG with start 0 is not; the number is what they add there.",
        test="guidance/test_beside_diffusers.py::test_three_guiders_are_off_in_the_first_step_there",
    ),
    Quirk(
        name="all.dpm3m.half_curvature",
        reference=f"{DIFFUSERS}, k-diffusion 0.0.16 and every copy",
        number=2,
        what="DPM++ 3M takes the second divided difference where Taylor's series has twice that; "
        "the number is the order that is left of 3 (docs/orders.md).",
        test="schedulers/test_quirks.py::test_three_quarters_of_third_order",
    ),
    Quirk(
        name="all.ipndm_v.weights",
        reference="ComfyUI, diff-sampler (read in 2026)",
        number=0.375,
        what="The third weights of iPNDM-v are right for equal steps only; the number is what the "
        "newest one is off where each step is half the last.",
        test="schedulers/test_quirks.py::test_ipndm_v_has_the_weights_of_its_steps",
    ),
)

BY_NAME = {quirk.name: quirk for quirk in QUIRKS}


def number(name: str) -> float:
    """What was measured at the reference in this case."""
    return BY_NAME[name].number
