"""Networks that no step asks lie aside, and come back equal to the bit."""

from pathlib import Path

import pytest
import torch

import sdcore
from sdcore.training.plan import Plan
from sdcore.training.resting import Resting
from sdcore.training.train import train
from sdcore.training.updates import TrainStep
from sdcore.training.watcher import Silent


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize(
    ("options", "resting"),
    [
        ({}, {"vae", "text_encoder"}),
        ({"text": True}, {"vae"}),  # which shares its weights with the one that is trained
        ({"method": "embedding", "word": "<new>"}, {"vae"}),
        ({"method": "full", "text": True}, {"vae", "text_encoder", "unet"}),  # of copies
    ],
)
def test_what_no_step_asks_lies_aside(
    tiny_path: Path, data: Path, tmp_path: Path, options: dict, resting: set[str]
) -> None:
    """As the file has it, which is float32, of a model in bfloat16; for pictures it is back."""
    sd = sdcore.load(tiny_path, device="cpu", dtype="bfloat16", engine="plain")
    before = {name: weights(module) for name, module in sd.modules.items()}
    seen = []

    class Looks(Silent):
        def step(self, step: TrainStep, total: int) -> None:
            seen.append({name for name, module in sd.modules.items()
                         if next(module.parameters()).dtype == torch.float32})  # fmt: skip

    plan = Plan(**{"steps": 2, "rank": 2, "grid": 1, "look_every": 1, "draw_steps": 1,
                   "prompts": ("a boat",), **options})  # fmt: skip
    train(sd, data, plan, tmp_path / "out", watcher=Looks())
    assert seen == [resting] * 2
    for name, module in sd.modules.items():
        after = weights(module)
        assert {p.dtype for p in after.values()} == {torch.bfloat16}
        assert all(torch.equal(before[name][key], value) for key, value in after.items())
        assert "placement" not in vars(module)


def test_what_was_changed_in_place_is_not_the_files(tiny_path: Path) -> None:
    sd = sdcore.load(tiny_path, device="cpu", dtype="bfloat16", engine="plain")
    bias = sd.vae.decoder.conv_out.bias
    assert bias is not None
    with torch.no_grad():
        bias += 1
    before = weights(sd.vae)
    with Resting([sd.vae], []).aside():
        pass
    assert all(torch.equal(before[key], value) for key, value in weights(sd.vae).items())
