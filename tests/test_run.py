"""A run's open fields: what `replace` puts there is honoured by the next step, split and decode."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import sdcore
from sdcore.errors import InputError
from sdcore.guidance import CFG
from sdcore.inpainting import Kept
from sdcore.loading import load
from sdcore.noise import SeededNoise
from sdcore.pipeline import StableDiffusion
from sdcore.sampling import Denoise, Prediction, State
from sdcore.schedulers import resolve


@pytest.fixture(scope="module")
def sd(tiny_path: Path) -> StableDiffusion:
    return load(tiny_path, device="cpu")


@pytest.fixture(scope="module")
def run(sd: StableDiffusion) -> sdcore.Run:
    """Two pictures in four stochastic steps."""
    return sd.prepare(["red", "blue"], seeds=[1], steps=4, scheduler="euler_a")


def last(run: sdcore.Run) -> torch.Tensor:
    return [step.x_next for step in run][-1]


def stronger(denoise: Denoise) -> Denoise:
    return lambda x, sigma: Prediction((p := denoise(x, sigma)).x0 * 1.5, p.eps * 1.5)


def half(run: sdcore.Run) -> Kept:
    """The left half of a picture is kept."""
    share = torch.zeros(1, 1, 4, 4)
    share[..., 2:] = 1
    shape = run.start.x.shape
    rng = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(shape, generator=rng) for _ in range(2))
    return Kept(share, latents, noise)


def another_unet(run: sdcore.Run) -> Any:
    """Networks whose UNet has other weights."""
    unet = load(run.settings[0].model, device="cpu").unet
    with torch.no_grad():
        unet.conv_in.weight.mul_(1.5)
    return run.networks.with_modules({"unet": unet})


CHANGES: dict[str, Callable[[sdcore.Run], Any]] = {
    "guidance": lambda run: CFG(3.0),
    "solver": lambda run: resolve("heun").solver,
    "noise": lambda run: replace(run.noise, seeds=(8, 9)),
    "sigmas": lambda run: (*run.sigmas[:2], run.sigmas[2] / 2, 0.0),
    "around": lambda run: stronger,
    "stages": lambda run: (
        run.networks.prepare(["grey", "sea"], seeds=[1], steps=4, scheduler="euler_a").stages
    ),
    "networks": another_unet,
    "kept": half,
}


@pytest.mark.parametrize("field", CHANGES)
@torch.inference_mode()
def test_the_next_step_and_split_and_decode(run: sdcore.Run, field: str) -> None:
    steps = list(run)
    new = replace(run, **{field: CHANGES[field](run)})
    begun = steps[0].state
    if field == "solver":
        begun = replace(begun, memory=())
    nxt = next(new.steps(begun))
    assert torch.equal(nxt.x, steps[1].x)
    for row in range(2):
        assert not torch.equal(nxt.x_next[row], steps[1].x_next[row])
    x, halves = last(new), [last(part) for part in new.split(1)]
    assert torch.equal(torch.cat(halves), x)
    pictures = new.decode(x)
    apart = [part.decode(row)[0] for part, row in zip(new.split(1), halves, strict=True)]
    assert [p.tobytes() for p in pictures] == [p.tobytes() for p in apart]
    assert all(p.tobytes() != q.tobytes()
               for p, q in zip(pictures, run.decode(steps[-1].x_next), strict=True))  # fmt: skip
    assert torch.equal(last(run), steps[-1].x_next)  # the run itself is as it was


@torch.inference_mode()
def test_a_start(run: sdcore.Run) -> None:
    steps = list(run)
    x = torch.randn(run.start.x.shape, generator=torch.Generator().manual_seed(3))
    new = replace(run, start=State(x, index=2))
    done = list(new)
    assert len(new) == len(done) == 2
    assert torch.equal(done[0].x, x)
    assert [step.sigma for step in done] == [*run.sigmas[2:4]]
    assert torch.equal(torch.cat([last(part) for part in new.split(1)]), done[-1].x_next)
    assert sum(step.nfe for step in done) == new.nfe
    later = replace(run, start=steps[2].state)
    assert torch.equal(last(later), steps[-1].x_next)
    assert torch.equal(torch.cat([last(part) for part in later.split(1)]), steps[-1].x_next)


@torch.inference_mode()
def test_the_end_of_other_sigmas_is_what_decode_scales_by(sd: StableDiffusion) -> None:
    """DDIM of SD ends a little above sigma 0 and scales x there; at another end it is other."""
    run = sd.prepare("red", steps=4)
    assert run.end_scale == run.plan.end_scale != 1
    x = last(run)
    by_hand = sd.decode(x * run.end_scale)[0].tobytes()
    assert run.decode(x)[0].tobytes() == by_hand
    early = replace(run, sigmas=run.sigmas[:-1])
    assert early.end_scale == pytest.approx((1 + run.sigmas[-2] ** 2) ** -0.5, rel=1e-12)
    assert early.decode(x)[0].tobytes() == sd.decode(x * early.end_scale)[0].tobytes() != by_hand
    clean = replace(run, sigmas=(*run.sigmas[:-1], 0.0))
    assert clean.end_scale == 1


@torch.inference_mode()
def test_what_is_kept_is_in_the_picture(run: sdcore.Run) -> None:
    kept = half(run)
    new = replace(run, kept=kept)
    pictures = new.decode(last(new))
    right = run.networks.decode(torch.lerp(kept.latents, last(new) * run.end_scale, kept.share))
    assert [p.tobytes() for p in pictures] == [p.tobytes() for p in right]


@torch.inference_mode()
def test_both_at_once_and_in_either_order(run: sdcore.Run) -> None:
    one = replace(replace(run, guidance=CFG(3.0)), around=stronger)
    two = replace(replace(run, around=stronger), guidance=CFG(3.0))
    assert torch.equal(last(one), last(two))
    assert not torch.equal(last(one), last(replace(run, around=stronger)))


@torch.inference_mode()
def test_nothing_is_remembered_of_what_was_there_before(run: sdcore.Run) -> None:
    """Also where the run has been drawn, and its denoise and its count are kept."""
    before, _, _ = last(run), run.denoise, run.nfe
    heun = replace(run, solver=resolve("heun").solver)
    assert heun.nfe > run.nfe
    plain = replace(run, guidance=CFG(1.0))
    assert plain.nfe == run.nfe / 2
    assert not torch.equal(last(plain), before)
    assert torch.equal(last(replace(plain, guidance=run.guidance)), before)


class Own:
    """A noise that can do what is promised to be enough, and no more."""

    def __init__(self, seeds: Any, shape: Any, device: Any) -> None:
        self.plain = SeededNoise(seeds, shape, device)

    def start(self) -> torch.Tensor:
        return self.plain.start()

    def __call__(self, draw: int, sigma: float, sigma_next: float) -> torch.Tensor:
        return self.plain(draw, sigma, sigma_next)


@pytest.mark.parametrize("how", ["noise", "image", "mask", "variation"])
@torch.inference_mode()
def test_a_noise_of_ones_own(sd: StableDiffusion, how: str) -> None:
    """Whole and picture by picture; where it draws what the seeds draw, so is the picture."""
    options: dict[str, Any] = {"seeds": [1, 2], "steps": 4, "scheduler": "euler_a"}
    side = sd.prepare("red").settings[0].width
    if how in ("image", "mask"):
        options |= {"image": Image.new("RGB", (side, side), "red"), "posterior": "mode"}
    if how == "mask":
        options |= {"mask": Image.new("L", (side, side), 128), "strength": 0.8}
    if how == "variation":
        options["variation"] = "5:0.3"
    run = sd.prepare("red", noise=Own, **options)
    assert torch.equal(torch.cat([last(part) for part in run.split(1)]), last(run))
    assert torch.equal(last(run), last(sd.prepare("red", **options)))
    sampled = sd.prepare("red", noise=Own, **(options | {"posterior": "sample"}))
    assert last(sampled).isfinite().all()
    assert torch.equal(last(sampled), last(sampled))
    assert (how in ("noise", "variation")) == torch.equal(last(sampled), last(run))


@torch.inference_mode()
def test_any_noise_is_split(run: sdcore.Run) -> None:
    mine = replace(run, noise=lambda draw, sigma, after: run.noise(draw, sigma, after) * 2)
    assert torch.equal(torch.cat([last(part) for part in mine.split(1)]), last(mine))


def test_settings_say_what_was_put_in(sd: StableDiffusion, run: sdcore.Run) -> None:
    changed = replace(run, solver=resolve("heun").solver, guidance=CFG(3.0))
    for each in (*changed.settings, *replace(changed, around=stronger).settings):
        assert (each.scheduler, each.guidance, each.cfg) == ("heun (in memory)", "cfg:scale=3.0", 3)
    assert changed.split(1)[1].settings == changed.settings[1:]
    assert run.settings[0].scheduler == "euler_a"
    around = replace(run, around=stronger)
    assert {each.around for each in around.settings} == {"stronger (in memory)"}
    assert replace(around, around=run.around).settings == run.settings
    drawn = replace(run, noise=lambda draw, sigma, after: run.noise(draw, sigma, after))
    assert {each.noise for each in drawn.settings} == {"<lambda> (in memory)"}
    laid = replace(run, sigmas=(*run.sigmas[:2], 0.0))
    assert {each.spacing for each in laid.settings} == {"3 sigmas (in memory)"}
    assert replace(run, sigmas=run.sigmas).settings == run.settings
    state = State(run.start.x, 1, sigma=run.sigmas[1])
    for quiet in (run.resumed(state), run.resumed(state, laid.sigmas), *run.split(1)):
        assert set(quiet.settings) <= set(run.settings)
    again = replace(changed, solver=resolve("lms").solver)
    assert {each.scheduler for each in again.settings} == {"lms (in memory)"}


@torch.inference_mode()
@pytest.mark.parametrize("name", ["solver", "noise", "around"])
def test_what_cannot_be_put_in(run: sdcore.Run, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is a function.*, and no str"):
        replace(run, **{name: "euler"})
    with pytest.raises(InputError, match="5 is no guidance: it needs branches"):
        replace(run, guidance=5)


def test_gone_on_with_from_a_file(run: sdcore.Run, tmp_path: Path) -> None:
    """In the sigmas of the file, also where they were put in; in the run's where it lays others."""
    own = replace(run, sigmas=(*run.sigmas[:2], 3.0, 1.0, 0.0))
    steps = list(own)
    path = tmp_path / "run.safetensors"
    steps[1].state.save(path, [each.to_json() for each in run.settings], sigmas=own.sigmas)
    assert torch.equal(last(run.resumed(path)), steps[-1].x_next)
    other = sdcore.Run.resumed(replace(run, solver=resolve("heun").solver), path)
    assert other.sigmas == (3.0, *(sigma for sigma in run.sigmas if sigma < 3))


def test_a_cfg_that_is_not_used_is_told(sd: StableDiffusion) -> None:
    how = {"steps": 2, "seeds": [1]}
    line = "cfg 5 is not used: the guidance says its own scale, 3"
    run = sd.prepare("red", cfg=5, guidance="cfg:scale=3", **how)
    assert line in run.warnings
    assert run.settings[0].cfg == 3
    for guidance in (None, "cfg", "cfg+interval:low=0.3,high=5"):
        assert not [each for each in sd.prepare("red", cfg=5, guidance=guidance, **how).warnings
                    if "not used" in each]  # fmt: skip
    assert line not in sd.prepare("red", cfg=3, guidance="cfg:scale=3", **how).warnings


@torch.inference_mode()
def test_soft_masks_know_what_the_guidance_is(sd: StableDiffusion) -> None:
    """Also of one that is put in."""
    side = sd.prepare("red").settings[0].width
    picture, soft = Image.new("RGB", (side, side), "red"), Image.new("L", (side, side), 128)
    how = {"image": picture, "mask": soft, "seeds": [1], "steps": 3, "scheduler": "euler"}
    plain, plus = sd.prepare("red", **how), sd.prepare("red", guidance="cfgpp", **how)
    assert torch.equal(last(replace(plain, guidance=plus.guidance)), last(plus))
    assert last(plus).isfinite().all()
