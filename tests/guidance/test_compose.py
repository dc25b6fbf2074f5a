"""Guidances put together: in Python, by their written form, and from a file of one's own."""

import math

import pytest
import torch

from sdcore.denoiser import Denoiser
from sdcore.errors import InputError
from sdcore.guidance import CFG, Interval, Sum, accepted, branch_names, resolve, sources_of, write
from sdcore.lab import Gaussian, Mixture, denoiser
from sdcore.lab.worlds import IN_SIGMA, Network
from sdcore.sampling import Prediction, sample
from sdcore.schedulers import resolve as scheduler_named

X = torch.linspace(-3, 3, 8, dtype=torch.float64).reshape(2, 1, 2, 2)
COND, UNCOND = Gaussian(0.8, 0.4), Mixture()
SIGMAS = (10.0, 6.0, 3.0, 1.5, 0.7, 0.2, 0.0)

MINE = """
from dataclasses import dataclass
from sdcore.sampling import Prediction

@dataclass(frozen=True)
class Mine:
    scale: float = 2.0

    def branches(self, sigma):
        return ("uncond", "cond")

    def combine(self, predictions, x, sigma):
        a, b = predictions["uncond"], predictions["cond"]
        return Prediction(a.x0 + self.scale * (b.x0 - a.x0), a.eps + self.scale * (b.eps - a.eps))

class Old:
    def branches(self, sigma):
        return ["uncond", "cond"]

    def combine(self, raw, sigma):
        return raw["uncond"] + 3.0 * (raw["cond"] - raw["uncond"])

class Falls(Mine):
    def combine(self, predictions, x, sigma):
        return predictions["weak"]

class Wrong(Mine):
    def combine(self, predictions, x, sigma):
        return x
"""


def asked(guidance, sigma=1.3, x=X):
    return denoiser(COND, UNCOND, guidance, batch=2)(x, sigma)


def apart(a: Prediction, b: Prediction) -> float:
    return max((a.x0 - b.x0).abs().max().item(), (a.eps - b.eps).abs().max().item())


def test_an_interval_is_off_outside_its_window_and_costs_one_branch():
    guidance = Interval(CFG(5.0), low=0.3, high=5.0)
    denoise = denoiser(COND, UNCOND, guidance, batch=2)
    steps = list(sample(denoise, X * 10, SIGMAS, scheduler_named("euler").solver))
    assert [step.nfe for step in steps] == [1, 1, 2, 2, 2, 1]
    for sigma in SIGMAS[:-1]:
        inside = 0.3 <= sigma <= 5.0
        expected = asked(CFG(5.0 if inside else 1), sigma)
        assert torch.equal(denoise(X, sigma).x0, expected.x0)
    assert torch.equal(asked(Interval(CFG(5.0))).eps, asked(CFG(5.0)).eps)


def test_a_solver_between_two_sigmas_finds_the_window_too():
    guidance = Interval(CFG(5.0), low=4.0, high=5.0)
    assert set(branch_names(guidance, SIGMAS)) == {"cond", "uncond"}
    assert branch_names(CFG(1), SIGMAS) == ("cond",)


def test_a_sum_adds_what_each_does_to_cond():
    a, b = CFG(4.0), CFG(0.5)
    together, cond = asked(Sum((a, b))), asked(CFG(1))
    x0 = asked(a).x0 + asked(b).x0 - cond.x0
    assert (together.x0 - x0).abs().max() <= 1e-12
    assert torch.equal(asked(Sum((a,))).x0, asked(a).x0)
    assert apart(asked(Sum((a, CFG(1)))), asked(a)) <= 1e-12


def test_a_branch_may_be_another_network():
    """Autoguidance needs no more: the branch is named, and a Denoise answers it."""
    weak = Gaussian(-0.5, 0.9)
    told = {"cond": {"world": torch.zeros(2)}}
    network = Network((COND,))
    denoise = Denoiser(network, IN_SIGMA, told, CFG(3.0), networks={"uncond": weak})
    steps = list(sample(denoise, X * 10, SIGMAS, scheduler_named("euler").solver))
    assert {step.nfe for step in steps} == {2}
    expected = torch.lerp(weak(X, 2.0).x0, COND(X, 2.0).x0, 3.0)
    assert (denoise(X, 2.0).x0 - expected).abs().max() <= 1e-12


def test_each_branchs_prediction_can_be_seen():
    branches = asked(CFG(5.0)).branches
    assert list(branches) == ["uncond", "cond"]
    assert apart(branches["uncond"], UNCOND(X, 1.3)) <= 1e-12
    assert apart(branches["cond"], COND(X, 1.3)) <= 1e-12


@pytest.mark.parametrize(
    "guidance",
    [CFG(7.5), CFG(3.0, 0.2, 9.0), Interval(CFG(5.0), 0.3, 5.0), Interval(high=2.0),
     Sum((CFG(2.0), CFG(1.5))), Interval(Sum((CFG(2.0), CFG(1.5))), high=3.0)],
)  # fmt: skip
def test_the_written_form_comes_back(guidance):
    assert resolve(write(guidance)) == guidance


def test_the_scale_of_the_picture_is_taken_where_none_is_written():
    assert resolve("cfg", scale=4.0) == CFG(4.0)
    assert resolve("cfg:scale=2", scale=4.0) == CFG(2.0)
    assert resolve("interval:high=5", scale=4.0) == Interval(CFG(4.0), high=5.0)
    assert resolve("cfg+interval:high=1e+1", scale=4.0) == Interval(CFG(4.0), high=10.0)


def test_a_guidance_of_ones_own(tmp_path):
    file = tmp_path / "a+b" / "mine.py"
    file.parent.mkdir()
    file.write_text(MINE)
    mine = resolve(f"{file}:Mine,scale=3")
    assert apart(asked(mine), asked(CFG(3.0))) <= 1e-12
    assert apart(asked(resolve(f"{file}:Old")), asked(CFG(3.0))) <= 1e-12
    assert resolve(write(mine)).guidance.scale == 3
    windowed = resolve(f"{file}:Mine,scale=3+interval:high=1")
    assert apart(asked(windowed, 2.0), asked(CFG(1), 2.0)) <= 1e-12
    assert sources_of(windowed) == {}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("cgf:scale=2", "did you mean cfg"),
        ("cfg:scael=2", "did you mean scale"),
        ("cfg:scale=much", "scale=much: it is a number"),
        ("interval:low=3,high=1", "0 <= low <= high"),
        ("threshold:ratio=2", "ratio=2: it is a number of at least 0 and at most 1"),
        ("threshold:least=0", "least=0: it is a number above 0"),
        ("rescale:share=9", "at most 1"),
        ("seg:blur=-1", "a number of at least 0"),
        ("apg:norm=-1", "a number of at least 0"),
        ("pag:layers=[3]", r"layers=\[3\]: it is texts in square brackets"),
        ("composed:prompts=['a'],weights=[1,'b']", "it is numbers in square brackets"),
        ("varying:scales=[a,b]", "it is numbers in square brackets"),
        ("varying:scales=[1e999,2]", "it is numbers in square brackets"),
        ("cfgpp+rescale", "rescale cannot follow CFGPlusPlus, whose eps is not that of its x0"),
        ("cfgpp+interval:low=1+threshold", "threshold cannot follow CFGPlusPlus"),
        ("FILE:Falls", "line .*: KeyError: 'weak'"),
        ("FILE:Wrong", "combine returns Tensor and not a Prediction"),
        ("FILE:Nobody", "has no guidance named Nobody"),
        ("FILE:Mine,size=3", "no option 'size'"),
    ],
)
def test_bad_ones_are_one_line(tmp_path, text, line):
    (tmp_path / "mine.py").write_text(MINE)
    with pytest.raises(InputError, match=line) as found:
        asked(resolve(text.replace("FILE", str(tmp_path / "mine.py"))))
    assert "\n" not in str(found.value)


def test_what_is_no_guidance_is_refused():
    with pytest.raises(InputError, match="is no guidance"):
        accepted(7.5)
    with pytest.raises(InputError, match="no written form"):
        write(type("Mine", (CFG,), {})(2.0))
    assert math.isinf(Interval().high)
