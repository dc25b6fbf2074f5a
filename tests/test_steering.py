"""Gradients: a loss steers a picture, and flows through the whole loop."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sdcore.lab import Mixture
from sdcore.loading import load
from sdcore.sampling import Denoise, Prediction, sample
from sdcore.schedulers import resolve

GUIDE = Path(__file__).parents[1] / "docs" / "steering.md"


def test_the_guide_to_steering_runs(tiny_path: Path) -> None:
    """Its two losses fall below those of the pictures that are not steered."""
    sd = load(tiny_path, device="cpu", engine="plain")
    run = sd.prepare("red", seeds=[1, 2], steps=4, cfg=1.0, scheduler="dpmpp_2m")
    with run.without_gradients():
        *_, plain = run
    mask = torch.zeros(1, 1, *plain.x_next.shape[-2:])
    mask[..., 1:3, 1:3] = 1
    names = {"sd": sd, "run": run, "mask": mask, "target": torch.ones(1, 4, 1, 1)}
    examples = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S)
    for example in examples:
        exec(example, names)
    assert len(examples) == 3
    for steered, loss in (("blue_run", "bluer"), ("matched_run", "unlike")):
        with names[steered].without_gradients():
            *_, last = names[steered]
        assert not last.x_next.requires_grad
        with torch.no_grad():
            before, after = (names[loss](step.x_next) for step in (plain, last))
        assert (after < before).all(), steered


def checkpointed(denoise: Denoise) -> Denoise:
    def ask(x: Tensor, sigma: float) -> Prediction:
        pair = lambda x: tuple(getattr(denoise(x, sigma), name) for name in ("x0", "eps"))  # noqa: E731
        return Prediction(*checkpoint(pair, x, use_reentrant=False))  # type: ignore

    return ask


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "unipc", "belm"])
@pytest.mark.parametrize("keeps", [True, False], ids=["plain", "checkpointed"])
def test_the_gradient_through_three_steps(name: str, keeps: bool) -> None:
    """Against differences, in float64."""
    world = Mixture() if keeps else checkpointed(Mixture())
    scheduler = resolve(name, "karras")
    sigmas = scheduler.plan(3).sigmas
    x = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(1, 1, 2, 3) * sigmas[0]

    def ends(x: Tensor) -> Tensor:
        *_, last = sample(world, x, sigmas, scheduler.solver)
        return last.x_next

    assert torch.autograd.gradcheck(ends, (x.requires_grad_(True),), eps=1e-5, atol=1e-5)
