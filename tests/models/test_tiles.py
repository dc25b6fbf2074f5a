"""The VAE in tiles: the blending is exact, and what the tiles cannot see is measured."""

from itertools import pairwise

import pytest
import torch

import sdcore
from sdcore.models.tiles import in_tiles, seams, spans


@pytest.mark.parametrize("length", [1, 63, 64, 65, 100, 112, 113, 300])
def test_spans_cover_everything_and_overlap(length: int) -> None:
    parts = spans(length, 64, 16)
    assert parts[0][0] == 0
    assert parts[-1][1] == length
    assert all(b - a == min(64, length) for a, b in parts)
    assert all(first[1] - second[0] >= 16 for first, second in pairwise(parts))


@pytest.mark.parametrize(("up", "down"), [(1, 1), (8, 1), (1, 8)])
def test_a_local_function_does_not_notice(up: int, down: int) -> None:
    def local(x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.interpolate(x, scale_factor=up)
        return torch.nn.functional.avg_pool2d(x, down) * 3 + 1

    x = torch.randn(2, 3, 72 * down, 40 * down, dtype=torch.float64)
    tiled = in_tiles(local, x, 16 * down, up, down)
    assert (tiled - local(x)).abs().max() <= 1e-13


@pytest.mark.weights
@torch.inference_mode()
def test_seams_of_the_bundled_vae() -> None:
    """What is left is the tiles' own statistics, not a line at their edges."""
    vae = sdcore.load(device="cpu", dtype="float32").vae
    image = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(image, scale_factor=8, mode="bilinear") / 2
    latents = vae.encode(image).mean
    whole = vae.decode(latents)
    vae.tile = 16
    tiled = vae.decode(latents)
    assert not tiled.equal(whole)
    assert tiled.shape == whole.shape
    _, mean = seams(whole, tiled)
    assert mean <= 2  # of 255
    across = lambda y: (y[..., 1:] - y[..., :-1]).abs().mean(dim=(0, 1, 2))  # noqa: E731
    assert (across(tiled) - across(whole)).abs().max() <= 0.02
    coded = vae.encode(image)
    assert (coded.mean - latents).abs().mean() <= 0.1
