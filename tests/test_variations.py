"""Other starting noise, and pictures whose edges meet."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sdcore.errors import InputError
from sdcore.images import read_settings
from sdcore.loading import load
from sdcore.models.seamless import seamless
from sdcore.noise import slerp
from sdcore.pipeline import StableDiffusion

HOW: dict[str, Any] = {"steps": 3, "cfg": 1.0, "scheduler": "euler_a"}


@pytest.fixture(scope="module")
def sd(tiny_path: Path) -> StableDiffusion:
    return load(tiny_path, device="cpu", engine="plain")


def test_a_slerp_keeps_the_length() -> None:
    seeded = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 2, 4, 8, 8, generator=seeded).unbind(0)
    assert torch.equal(slerp(a, b, 0.0), a)
    assert torch.allclose(slerp(a, b, 1.0), b, atol=1e-6)
    assert torch.allclose(slerp(a, a, 0.3), a, atol=1e-6)
    half = slerp(a, b, 0.5).flatten(1).norm(dim=1)
    lengths = torch.stack((a, b)).flatten(2).norm(dim=2).mean(0)
    assert torch.allclose(half, lengths, rtol=0.1)
    lone = slerp(a[1:], b[1:], 0.4)
    assert torch.equal(slerp(a, b, 0.4)[1:], lone)


def test_variations(sd: StableDiffusion) -> None:
    own, other = (sd.prepare("red", seeds=[seed], **HOW).start.x for seed in (1, 5))
    start = lambda text: sd.prepare("red", seeds=[1], variation=text, **HOW).start.x  # noqa: E731
    assert torch.equal(start("5:0"), own)
    assert torch.allclose(start("5:1"), other, rtol=1e-5)
    assert 0 < (start("5:0.1") - own).norm() < (start("5:0.5") - own).norm()
    for text in ("5", "5:2", "a:0.1", "5:nan", ":"):
        with pytest.raises(InputError, match=r"like 5:0\.2"):
            sd.prepare("red", variation=text, **HOW)


def test_given_latents(sd: StableDiffusion, tmp_path: Path) -> None:
    run = sd.prepare("red", seeds=[1], **HOW)
    noise = run.noise.start()
    again = sd.prepare("red", seeds=[1], latents=noise, **HOW)
    assert torch.equal(again.start.x, run.start.x)
    save_file({"noise": noise}, tmp_path / "noise.safetensors")
    from_file = sd.prepare("red", seeds=[2, 3], latents=tmp_path / "noise.safetensors", **HOW)
    assert torch.equal(from_file.start.x, run.start.x.repeat(2, 1, 1, 1))
    assert any("noise.safetensors" in each for each in from_file.settings[0].digests)
    for given, why in (
        (torch.zeros(1, 4, 2, 2), "a picture of this size begins with"),
        (torch.zeros(4), "not [1,4,h,w]"),
        (tmp_path / "no.safetensors", "cannot be read"),
    ):
        with pytest.raises(InputError) as caught:
            sd.prepare("red", latents=given, **HOW)
        assert why in str(caught.value)


@pytest.mark.parametrize(("axes", "shift"), [("x", (0, 1)), ("y", (1, 0)), ("xy", (1, 2))])
def test_edges_meet(sd: StableDiffusion, axes: str, shift: tuple[int, int]) -> None:
    """Noise that is turned around the torus gives the same picture, turned; the model is as it was.

    By two latents and more, as many as the UNet's coarsest one covers.
    """
    step = tuple(2 * each for each in shift)
    run = sd.prepare("red", seeds=[1], tile=axes, **HOW | {"scheduler": "euler"})
    turned = replace(run, start=replace(run.start, x=run.start.x.roll(step, (2, 3))))
    with torch.inference_mode():
        *_, one = run
        *_, other = turned
        assert torch.allclose(one.x_next.roll(step, (2, 3)), other.x_next, atol=1e-4)
        *_, plain = sd.prepare("red", seeds=[1], **HOW | {"scheduler": "euler"})
        *_, again = sd.prepare("red", seeds=[1], **HOW | {"scheduler": "euler"})
    assert (one.x_next - plain.x_next).abs().max() > 1e-3
    assert torch.equal(plain.x_next, again.x_next)
    assert run.networks.unet.conv_in.weight is sd.unet.conv_in.weight
    assert type(sd.unet.conv_in) is torch.nn.Conv2d


def test_a_seam_of_one_axis_keeps_the_other() -> None:
    conv = seamless(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)), "x")
    torch.nn.init.ones_(conv[0].weight)
    x = torch.zeros(1, 1, 3, 4)
    x[0, 0, 0, 0] = 1
    assert conv(x)[0, 0].tolist() == [[1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 0, 0]]


def test_on_the_command_line_and_again(
    tiny_path: Path, tmp_path: Path, command: Callable[..., tuple[int, Path, str]]
) -> None:
    save_file({"noise": torch.randn(1, 4, 4, 4)}, tmp_path / "noise.safetensors")
    asked = ("sample", "red", "--model", tiny_path, "--seed", 1, "--device", "cpu", "--steps", 2)
    more = ("--variation", "5:0.2", "--tile", "x", "--latents", "noise.safetensors")
    status, path, _ = command(*asked, *more)
    settings = read_settings(path)
    assert (status, settings.variation, settings.tile) == (0, "5:0.2", "x")
    assert command("rerun", path)[1].read_bytes() == path.read_bytes()
    save_file({"noise": torch.randn(1, 4, 4, 4)}, tmp_path / "noise.safetensors")
    assert "noise.safetensors has changed since" in command("rerun", path)[2]
    status, _, err = command(*asked, "--tile", "z")
    assert (status, err) == (2, "sdcore: tile is x, y, xy, not 'z'\n")


def test_the_command_line_draws_what_python_does(
    tiny_path: Path, command: Callable[..., tuple[int, Path, str]]
) -> None:
    """Seams and FreeU change the networks: of each picture, and of no other of the same command."""
    sd = load(tiny_path, device="cpu")
    asked = ("sample", "red", "--model", tiny_path, "--seed", 1, "--device", "cpu", "--steps", 2)
    first = None
    for given in ({"tile": "xy"}, {"tile": "xy", "freeu": "1.5,1.6,0.9,0.2"}, {}):
        run = sd.prepare("red", seeds=[1], steps=2, **given)
        *_, step = run
        drawn = run.decode(step.x_next)[0].tobytes()
        more = [word for name, value in given.items() for word in (f"--{name}", value)]
        _, path, _ = command(*asked, *more, "--out", f"{len(given)}.png")
        assert Image.open(path).tobytes() == drawn
        assert drawn != first
        first = drawn
    _, path, _ = command(*asked, "--tile", "x", "--tile", "y", "--prompt", "blue", "--out", "all")
    assert len({each.read_bytes() for each in path.parent.iterdir()}) == 4
