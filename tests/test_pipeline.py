"""From words to pictures with a tiny random model."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sdcore
from sdcore.errors import InputError
from sdcore.guidance import CFG
from sdcore.loading import load
from sdcore.pipeline import StableDiffusion


@pytest.fixture(scope="module")
def sd(tiny_path: Path) -> StableDiffusion:
    return load(tiny_path, device="cpu")


def last(run: sdcore.Run) -> torch.Tensor:
    return [step.x_next for step in run][-1]


def test_import_is_light() -> None:
    code = (
        "import sys, sdcore; heavy = {'torch', 'transformers', 'diffusers', 'PIL', 'scipy'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "import sdcore.pipeline, sdcore.cli;"
        "assert not {'transformers', 'diffusers', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_there() -> None:
    assert all(getattr(sdcore, name) is not None for name in sdcore.__all__)
    assert set(sdcore.__all__) <= set(dir(sdcore))
    with pytest.raises(AttributeError, match="nonsense"):
        sdcore.nonsense  # noqa: B018


def test_pictures_come_prompt_by_prompt_seed_by_seed(sd: StableDiffusion) -> None:
    run = sd.prepare(["red", "blue"], seeds=[3, 5], steps=2)
    assert [(s.prompt, s.seed) for s in run.settings] == [
        ("red", 3),
        ("red", 5),
        ("blue", 3),
        ("blue", 5),
    ]
    pictures = run.decode(last(run))
    assert [p.size for p in pictures] == [(32, 32)] * 4
    assert len({p.tobytes() for p in pictures}) == 4


def test_settings_are_what_was_used(sd: StableDiffusion) -> None:
    run = sd.prepare("red", scheduler="Euler a", steps=3, cfg=0, width=48)
    settings = run.settings[0]
    assert (settings.scheduler, settings.eta, settings.cfg) == ("euler_a", 1.0, 0.0)
    assert (settings.width, settings.height, settings.steps) == (48, 32, 3)
    assert (settings.device, settings.dtype, settings.negative) == ("cpu", "float32", "")
    assert sdcore.Settings.from_json(settings.to_json()) == settings
    assert run.conditions.keys() == {"uncond"}


def test_brownian_noise_starts_alike_and_goes_its_own_way(sd: StableDiffusion) -> None:
    runs = [sd.prepare("red", scheduler="euler_a", steps=3, noise=n) for n in (None, "brownian")]
    assert [run.settings[0].noise for run in runs] == ["independent", "brownian"]
    assert torch.equal(runs[0].start.x, runs[1].start.x)
    assert not torch.equal(last(runs[0]), last(runs[1]))
    both = sd.prepare(["blue", "red"], scheduler="euler_a", steps=3, noise="brownian")
    alone = both.split(1)[1]
    assert torch.equal(last(alone), last(runs[1]))
    with pytest.raises(InputError, match="did you mean brownian"):
        sd.prepare("red", noise="brown")


@pytest.mark.parametrize(
    ("scheduler", "nfe"), [("ddim", 8), ("euler", 8), ("heun", 14), ("dpmpp_2m", 8)]
)
def test_nfe_is_known_before_and_true_after(sd: StableDiffusion, scheduler: str, nfe: int) -> None:
    """Two branches a question; with guidance off, one."""
    assert sd.prepare("red", scheduler=scheduler, steps=4, cfg=1).nfe == nfe // 2
    run = sd.prepare("red", scheduler=scheduler, steps=4)
    assert run.nfe == nfe == sum(step.nfe for step in run)
    assert len(run.sigmas) == 5


@pytest.mark.parametrize("size", [32, 40])  # 40: 25 latents a channel, no multiple of any vector
@pytest.mark.parametrize(
    ("scheduler", "cfg"),
    [("ddim", 1.0), ("ddim", 7.5), ("euler_a", 7.5), ("heun", 7.5), ("dpmpp_2m", 7.5)],
)
def test_a_picture_does_not_depend_on_its_batch(
    sd: StableDiffusion, scheduler: str, size: int, cfg: float
) -> None:
    how = {"scheduler": scheduler, "steps": 3, "cfg": cfg, "width": size, "height": size}
    whole = sd.prepare(["red boat", "blue house"], seeds=[1, 0, 7], **how)
    together = last(whole)
    for part in (1, 4):  # the latter leaves a batch of two
        assert torch.equal(torch.cat([last(run) for run in whole.split(part)]), together)
    alone = last(sd.prepare("blue house", seeds=[7], **how))
    assert torch.equal(alone[0], together[5])
    assert sd.decode(together)[5].tobytes() == sd.decode(alone)[0].tobytes()


def test_a_run_can_be_run_again_and_interleaved(sd: StableDiffusion) -> None:
    run = sd.prepare("red", scheduler="euler_a", steps=4)
    once = last(run)
    pairs = list(zip(run, run, strict=True))
    assert torch.equal(pairs[-1][0].x_next, once)
    assert torch.equal(pairs[-1][1].x_next, once)


def test_resuming_from_any_step(sd: StableDiffusion) -> None:
    run = sd.prepare("red", scheduler="dpmpp_2m", steps=5)
    steps = list(run)
    for step in steps[:-1]:
        assert torch.equal(list(run.steps(step.state))[-1].x_next, steps[-1].x_next)


def test_interventions_reach_the_loop(sd: StableDiffusion) -> None:
    run = sd.prepare("red", steps=3)
    plain = last(run)
    for step in run:
        step.x_next = step.x_next + 0.5 * (step.index == 1)
    assert not torch.equal(step.x_next, plain)


def test_no_gradients_are_kept(sd: StableDiffusion) -> None:
    assert not last(sd.prepare("red", steps=1)).requires_grad


def test_seed_zero_and_scale_zero_mean_zero(sd: StableDiffusion) -> None:
    zero, one = (last(sd.prepare("red", seeds=[s], steps=2)) for s in (0, 1))
    assert not torch.equal(zero, one)
    negative_only = last(sd.prepare("red", negative="blue", cfg=0, steps=2))
    assert torch.equal(negative_only, last(sd.prepare("blue", cfg=1, steps=2)))


def test_the_global_random_state_is_left_alone(sd: StableDiffusion) -> None:
    before = torch.get_rng_state()
    last(sd.prepare("red", scheduler="euler_a", steps=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_text_encoder_runs_once_for_each_text(
    sd: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    forward = sd.text_encoder.forward
    monkeypatch.setattr(sd.text_encoder, "forward", lambda ids: (seen.append(ids), forward(ids))[1])
    sd.prepare(["red", "red", "blue"], seeds=[0, 1], steps=1)
    assert len(seen) == 3  # red, blue and the empty negative
    assert all(len(ids) == 1 for ids in seen)


def test_a_cut_prompt_is_told(sd: StableDiffusion) -> None:
    run = sd.prepare(["red " * 75 + "Boat", "blue"], seeds=[0, 1], steps=1)
    assert len(run.warnings) == 1
    assert "'Boat'" in run.warnings[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "fp16"])
def test_latents_stay_float32(tiny_path: Path, dtype: str) -> None:
    sd = load(tiny_path, "cpu", dtype)
    run = sd.prepare("red", steps=2)
    assert {p.dtype for p in sd.unet.parameters()} == {sd.dtype}
    x = last(run)
    assert x.dtype == torch.float32
    assert run.decode(x)[0].size == (32, 32)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"prompts": []}, "at least one"),
        ({"seeds": []}, "at least one"),
        ({"seeds": [2**64]}, f"out of range: {-(2**63)} to {2**64 - 1}"),
        ({"steps": 0}, "steps"),
        ({"steps": -3}, "steps"),
        ({"cfg": float("nan")}, "cfg"),
        ({"cfg": float("inf")}, "cfg"),
        ({"eta": float("nan")}, "eta"),
        ({"eta": -1.0}, "eta"),
        ({"width": 30}, "width 30 is no multiple of 8; the nearest are 24 and 32"),
        ({"height": 0}, "height 0 is out of range"),
        ({"height": -8}, "out of range"),
        ({"width": 10**6}, "out of range"),
        ({"scheduler": "eulr"}, "euler"),
        ({"spacing": "karas"}, "karras"),
        # What is of another kind than a program may hand over.
        ({"image": torch.zeros(3, 8, 8)}, "a path or a PIL.Image, and no Tensor"),
        ({"image": 5}, "a path or a PIL.Image, and no int"),
        ({"latents": [0.0]}, "a tensor, or a file of one, and no list"),
        ({"noise": 7}, "noise is a name, or a function .*, and no int"),
        ({"freeu": (1.5, 1.6, 0.9, 0.2)}, "freeu is a text, .*, and no tuple"),
        ({"lossy": 7}, "lossy is a text, .*, and no int"),
        ({"guidance": CFG}, "CFG is a class"),
        ({"scheduler": CFG}, r"takes \(scale.*, and is given \(denoise, x, interval"),
        ({"scheduler": lambda x: x}, r"the solver <lambda> takes \(x\), and is given"),
    ],
)
def test_what_is_out_of_range(sd: StableDiffusion, how: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        sd.prepare(**{"prompts": "red", **how})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "xla"])
def test_a_device_that_is_not_there(tiny_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="device"):
        load(tiny_path, device=name)


def test_an_unknown_dtype(tiny_path: Path) -> None:
    with pytest.raises(InputError, match="unknown dtype 'float31': did you mean float32"):
        load(tiny_path, dtype="float31")
    with pytest.raises(InputError, match="unknown dtype '5'"):
        load(tiny_path, dtype=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(4, 4, 4), (1, 3, 4, 4)])
def test_what_are_no_latents(sd: StableDiffusion, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"latents are \[B,4,h,w\], and not"):
        sd.decode(torch.zeros(shape))


def test_a_model_that_is_no_path() -> None:
    with pytest.raises(InputError, match="a path is a text or a Path, and no int"):
        load(5)  # type: ignore[arg-type]


def test_overflow_is_no_black_picture(sd: StableDiffusion) -> None:
    with pytest.raises(InputError, match=r"the loop .* gives numbers that are not finite"):
        sd.decode(torch.full((1, 4, 4, 4), float("nan")))


def test_a_run_is_what_sample_takes_and_each_part_can_be_replaced(sd: StableDiffusion) -> None:
    run = sd.prepare("red", steps=4, scheduler="euler")
    steps = list(run)
    assert len(run) == 4
    later = replace(run, start=steps[1].state)
    assert (len(later), later.nfe) == (2, 4)
    assert torch.equal(last(later), steps[-1].x_next)
    by_hand = sdcore.sample(run.denoise, run.start, run.sigmas, run.solver, run.noise)
    assert torch.equal([step.x_next for step in by_hand][-1], steps[-1].x_next)
    short = replace(run, sigmas=(*run.sigmas[:2], 0.0))
    assert [step.sigma_next for step in short] == [run.sigmas[1], 0.0]
    heun = sd.prepare("red", steps=4, scheduler="heun")
    assert torch.equal(last(replace(run, solver=heun.solver)), last(heun))
    other = sd.prepare("red", steps=4, scheduler="euler", cfg=2.0)
    assert torch.equal(last(replace(run, guidance=other.guidance)), last(other))


def test_around_the_model(sd: StableDiffusion) -> None:
    run, asked = sd.prepare(["red", "blue"], seeds=[0, 1], steps=2), []

    def around(denoise: sdcore.sampling.Denoise) -> sdcore.sampling.Denoise:
        def steered(x: torch.Tensor, sigma: float) -> sdcore.Prediction:
            asked.append(sigma)
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(denoise(x, sigma).x0.square().sum(), x)
            return denoise(x.detach() - 0.1 * gradient, sigma)

        return steered

    around.needs_grad = True
    new = replace(run, around=around)
    with new.without_gradients():
        x = last(new)
        halves = [last(part) for part in new.split(2)]
        assert len(new.decode(x)) == 4
    assert asked == [*run.sigmas[:-1]] * 3
    assert torch.equal(torch.cat(halves), x)
    assert not torch.equal(x, last(run))
    assert not run.needs_grad
    assert "around=" in repr(new)


def test_a_run_from_the_middle_is_split_with_its_memory(sd: StableDiffusion) -> None:
    run = sd.prepare(["red", "blue"], seeds=[0, 1], steps=4, scheduler="dpmpp_2m")
    steps = list(run)
    later = replace(run, start=steps[1].state)
    together = torch.cat([last(part) for part in later.split(1)])
    assert torch.equal(together, steps[-1].x_next)


def test_what_a_notebook_shows_is_short(sd: StableDiffusion) -> None:
    run = sd.prepare(["red " * 500, "blue"], seeds=range(20), steps=50)
    *_, step = replace(run, sigmas=run.sigmas[:3])
    things = (sd, run, step, step.state, step.prediction, run.plan)
    assert all(0 < len(repr(thing)) <= 2000 for thing in things)
    assert "32x32" in repr(sd)
    assert "50 steps of ddim" in repr(run)
    assert "[40, 4, 4, 4] float32" in repr(step)


@pytest.mark.parametrize(
    ("part", "key", "who"),
    [
        ("text_encoder", "text_model.final_layer_norm.bias", "the text encoder"),
        ("unet", "conv_in.bias", r"the UNet, at sigma 2\.93,"),
        ("vae", "decoder.conv_in.bias", "the VAE"),
    ],
)
def test_what_is_not_finite_is_told_of_the_network_that_gave_it(
    sd: StableDiffusion, part: str, key: str, who: str
) -> None:
    """When it does: the UNet in the first step. float32 is no advice to float32."""
    weight = getattr(sd, part).state_dict()[key]
    before = weight.clone()
    try:
        weight.fill_(float("nan"))
        with pytest.raises(InputError, match=rf"{who} gives numbers .*, in float32$"):
            sd.decode(list(sd.prepare("red", steps=3, cfg=1.0))[-1].x_next)
    finally:
        weight.copy_(before)


def test_a_repr_tells_both_sides_of_a_model_that_is_not_square(sd: StableDiffusion) -> None:
    config = sd.unet.config
    try:
        sd.unet.config = replace(config, sample_size=(4, 6))
        assert "48x32" in repr(sd)
    finally:
        sd.unet.config = config
