"""Guidances in a prepared run of a whole, small model."""

from dataclasses import replace

import pytest
import torch

import sdcore
from sdcore.a1111 import parameters
from sdcore.errors import InputError
from sdcore.guidance import CFG, GUIDANCES, Autoguidance
from sdcore.settings import Settings

HOW = {"seeds": [3, 4], "steps": 2, "scheduler": "euler", "width": 64, "height": 64}


@pytest.fixture(scope="module")
def sd(tiny_path):
    return sdcore.load(tiny_path)


@torch.inference_mode()
def end(run):
    return list(run)[-1].x_next


@pytest.mark.parametrize(
    ("text", "nfe"),
    [("pag:strength=2", 4), ("cfg+pag:strength=2", 6), ("seg+interval:high=0.001", 2), ("skip", 4),
     ("perp_neg", 6), ("composed:prompts=['a boat'],weights=[1,0.5]", 6), ("apg:eta=0.2", 4)],
)  # fmt: skip
def test_by_name(sd, text, nfe):
    run = sd.prepare("a red house", "blue", guidance=text, **HOW)
    assert run.nfe == nfe == sum(step.nfe for step in run)
    assert torch.equal(end(run)[:1], end(run.split(1)[0]))
    plain = end(sd.prepare("a red house", "blue", cfg=1, **HOW))
    assert torch.equal(end(run), plain) == ("interval" in text)


def test_neutral_ones_are_the_plain_run_to_the_bit(sd):
    off = end(sd.prepare("a red house", cfg=1, **HOW))
    assert torch.equal(end(sd.prepare("a red house", guidance="pag:strength=0", **HOW)), off)
    cfg = end(sd.prepare("a red house", cfg=5.0, **HOW))
    for text in ("cfg", "apg:eta=1", "composed", "varying:scales=[5,5]", "rescale:share=0"):
        run = sd.prepare("a red house", guidance=text, cfg=5.0, **HOW)
        assert torch.equal(end(run), cfg), text


def test_two_prompts_are_what_their_runs_say(sd):
    """Liu et al.'s sum, from the predictions of three runs at the first step."""
    guidance = "composed:scale=4,prompts=['a boat'],weights=[1,-0.5]"
    both = sd.prepare("a red house", guidance=guidance, **HOW)
    house, boat, none = (next(iter(sd.prepare(text, cfg=1, **HOW))).prediction.eps
                         for text in ("a red house", "a boat", ""))  # fmt: skip
    expected = none + 4 * ((house - none) - 0.5 * (boat - none))
    assert (next(iter(both)).prediction.eps - expected).abs().max() <= 1e-5


def test_another_model_answers_a_branch(sd):
    run = sd.prepare("a red house", guidance=Autoguidance(2.0), **HOW)
    with pytest.raises(InputError, match="another model answers the branch 'weak'"):
        next(iter(run))
    weak = sd.prepare("a blue boat", cfg=1, **HOW)
    asked = replace(run, answers={"weak": weak.denoise})
    good = sd.prepare("a red house", cfg=1, **HOW)
    x, sigma = run.start.x, run.sigmas[0]
    expected = torch.lerp(weak.denoise(x, sigma).eps, good.denoise(x, sigma).eps, 2.0)
    assert (asked.denoise(x, sigma).eps - expected).abs().max() <= 1e-5
    with pytest.raises(InputError, match="is not split"):
        asked.split(1)


def test_a_branch_that_nobody_tells_is_refused(sd):
    class Third(CFG):
        def branches(self, sigma):
            return ("uncond", "cond", "other")

    with pytest.raises(InputError, match="asks for a branch 'other'"):
        sd.prepare("a red house", guidance=Third(3.0), **HOW)


@pytest.mark.parametrize("name", GUIDANCES)
def test_the_settings_of_each_can_be_written(sd, name):
    (settings,) = sd.prepare("a red house", guidance=name, cfg=3, **HOW | {"seeds": 3}).settings
    assert (settings.guidance, settings.cfg) == (name, 3.0)
    assert Settings.from_json(settings.to_json()) == settings
    assert "CFG scale: 3" in parameters(settings)


def test_the_scale_that_is_written_is_the_one_that_ran(sd, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from sdcore.guidance import CFG as Mine\n")
    said = {
        "cfg:scale=3": 3, "cfg:scale=3+interval:low=0.1": 3, "cfg+rescale": 9, "pag": 9,
        "rescale+cfg:scale=2": 9, "varying:scales=[5,1],sigmas=[10,1]": 9,
        f"{file}:Mine,scale=4": 4,
    }  # fmt: skip
    for text, scale in said.items():
        assert sd.prepare("a red house", guidance=text, cfg=9, **HOW).settings[0].cfg == scale


def test_a_unet_that_is_told_the_scale_is_not_guided_by_it_as_well(family_path):
    sd = sdcore.load(family_path("LCM"))
    plain = sd.prepare("a red house", cfg=5, **HOW)
    for text in ("cfg", "cfg+interval:high=100", "apg"):
        run = sd.prepare("a red house", guidance=text, cfg=5, **HOW)
        assert (run.settings[0].cfg, run.nfe) == (5, 2)
        assert torch.equal(end(run), end(plain))
    asked = sd.prepare("a red house", guidance="cfg:scale=2", cfg=5, **HOW)
    assert (asked.settings[0].cfg, asked.nfe) == (5, 4)


PLAIN = """
from sdcore.guidance import CFG

class Plain:
    def __init__(self, scale=3.0):
        self.inside, self.changed = CFG(scale), lambda prediction: prediction

    def branches(self, sigma):
        return self.inside.branches(sigma)

    def combine(self, predictions, x, sigma):
        return self.changed(self.inside.combine(predictions, x, sigma))
"""


def test_a_plain_class_of_ones_own_goes_on_with_the_memory_of_another_prepare(sd, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PLAIN)
    how = HOW | {"steps": 4, "scheduler": "dpmpp_2m"}
    for text in (f"{file}:Plain", f"{file}:Plain+interval:high=9"):
        first, second = (sd.prepare("a red house", guidance=text, **how) for _ in range(2))
        with torch.inference_mode():
            steps = list(first)
            resumed = list(second.resumed(steps[1].state))
        assert torch.equal(resumed[-1].x_next, steps[-1].x_next)
        origins = [steps[-1].prediction.origin, resumed[-1].prediction.origin]
        assert origins[0] == origins[1]
        assert "0x" not in origins[0]
        assert "scale=7.5" in origins[0]
