"""The VAE in tiles: the blending is exact, and what the tiles cannot see is measured."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import sdcore
from scripts.seams import seams
from scripts.train.pictures import to_tensor
from scripts.train.world import draw, sample_description
from sdcore.models.tiles import in_tiles, spans, statistics_of, tiled


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


def test_norms_can_use_given_statistics() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 3, 1)).double()
    nn.init.normal_(net[1].weight)
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    expected = net(x)
    with statistics_of(net, x):
        assert (net(x) - expected).abs().max() <= 1e-6  # the statistics are kept in float32
        assert (in_tiles(net, x, 4) - expected).abs().max() <= 1e-6
    # afterwards each input has its own again
    assert (net(x[..., :4]) - expected[..., :4]).abs().max() > 1e-3


@pytest.mark.weights
@torch.inference_mode()
def test_seams_of_the_bundled_vae() -> None:
    """The thinned statistics take most of the difference away, and no line shows at the edges."""
    vae = sdcore.load(device="cpu", dtype="float32").vae
    rng = np.random.default_rng(0)
    image = to_tensor(np.asarray(draw(sample_description(rng), rng, 256))[None])
    latents = vae.encode(image).mean
    whole = vae.decode(latents)
    vae.tile = 16
    pieces = vae.decode(latents)
    assert not pieces.equal(whole)
    assert pieces.shape == whole.shape
    _, mean = seams(whole, pieces)
    z = vae.post_quant_conv(latents / vae.config.scaling_factor)
    _, careless = seams(whole, in_tiles(vae.decoder, z, 16, up=8))
    assert mean < careless / 2
    assert tiled(vae.decoder, z, 16, up=8).equal(pieces)
    across = lambda y: (y[..., 1:] - y[..., :-1]).abs().mean(dim=(0, 1, 2))  # noqa: E731
    assert (across(pieces) - across(whole)).abs().max() <= 0.02
    coded = vae.encode(image)
    assert (coded.mean - latents).abs().mean() <= 0.1
