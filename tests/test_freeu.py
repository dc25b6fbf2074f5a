"""FreeU as an option of a picture: from the words to the settings, and back."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sdcore
from sdcore.errors import InputError
from sdcore.models.freeu import FreeU, with_freeu


def test_an_option_of_a_picture(tiny_path: Path) -> None:
    sd = sdcore.load(tiny_path, device="cpu")
    how = {"steps": 2, "seeds": [3]}

    def last(run: sdcore.Run) -> torch.Tensor:
        with torch.inference_mode():
            *_, step = run
        return step.x_next

    run = sd.prepare("red", freeu="1.5,1.6,0.9,0.2", **how)
    assert run.settings[0].freeu == "1.5,1.6,0.9,0.2"
    assert torch.equal(last(run), last(sd.prepare("red", freeu=FreeU(), **how)))
    plain = sd.prepare("red", **how)
    assert plain.settings[0].freeu is None
    networks = replace(plain.networks, unet=with_freeu(sd.unet, FreeU()))
    assert torch.equal(last(replace(plain, networks=networks)), last(run))
    assert not torch.equal(last(plain), last(run))


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,four", "1,2,3,nan"])
def test_numbers_that_are_none(tiny_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"FreeU"):
        sdcore.load(tiny_path, device="cpu").prepare("red", freeu=text)
