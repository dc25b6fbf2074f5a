"""Brownian noise: one path per image, whatever the steps."""

import itertools
import math

import pytest
import torch

from sdcore.brownian import BrownianNoise, noise_named
from sdcore.errors import InputError
from sdcore.noise import SeededNoise

SHAPE = (4, 64, 64)
SIGMAS = [14.6 * (0.03 / 14.6) ** (i / 20) for i in range(21)]
DIGITS = 1e-6  # float32


def whole(noise, sigmas):
    """The path's increment over the sigmas, put together from the noise of each interval."""
    parts = [noise(0, a, b).double() * math.sqrt(a - b) for a, b in itertools.pairwise(sigmas)]
    return torch.stack(parts).sum(0)


@pytest.mark.parametrize(
    ("sigma", "sigma_next"),
    [(14.6, 9.1), (4.0, 2.0), (1.0, 0.999), (0.031, 0.029), (4096.0, 500.0), (1e-4, 0.0)],
)
def test_unit_variance(sigma, sigma_next):
    noise = BrownianNoise((3,), SHAPE)(0, sigma, sigma_next)
    error = 1 / math.sqrt(noise.numel())
    assert noise.dtype == torch.float32
    assert noise.mean().item() == pytest.approx(0, abs=4 * error)
    assert noise.var().item() == pytest.approx(1, abs=4 * math.sqrt(2) * error)
    fourth = (noise.double() ** 4).mean().item()
    assert fourth == pytest.approx(3, abs=4 * math.sqrt(96) * error)


def test_neighbouring_intervals_are_independent():
    noise = BrownianNoise((3,), SHAPE)
    parts = [noise(0, a, b).flatten() for a, b in itertools.pairwise(SIGMAS)]
    found = torch.corrcoef(torch.stack(parts))
    assert (found - torch.eye(20)).abs().max() <= 4.5 / math.sqrt(parts[0].numel())


def test_increments_of_parts_add_up():
    noise = BrownianNoise((3, 4), (2, 8, 8))
    for sigmas in (SIGMAS, [30.0, 16.0, 15.9, 0.125, 1e-5, 0.0]):
        direct = noise(0, sigmas[0], sigmas[-1]).double() * math.sqrt(sigmas[0] - sigmas[-1])
        assert (whole(noise, sigmas) - direct).abs().max() <= 20 * DIGITS


def test_ten_and_twenty_steps_see_the_same_path():
    ten, twenty = BrownianNoise((5,), SHAPE), BrownianNoise((5,), SHAPE)
    for i in range(10):
        pair = SIGMAS[2 * i : 2 * i + 3]
        coarse = ten(i, pair[0], pair[2]).double() * math.sqrt(pair[0] - pair[2])
        assert (whole(twenty, pair) - coarse).abs().max() <= 10 * DIGITS


def test_nothing_depends_on_the_order_of_asking_nor_on_the_draw():
    pairs = list(itertools.pairwise(SIGMAS))
    expected = [BrownianNoise((3, 4), (2, 4, 4))(0, *pair) for pair in pairs]
    noise = BrownianNoise((3, 4), (2, 4, 4))
    for i in (7, 0, 19, 7, 8, 3, 0):
        assert torch.equal(noise(i, *pairs[i]), expected[i])
        noise(2, *pairs[i]).zero_()
    assert torch.equal(noise(99, *pairs[7]), expected[7])


@pytest.mark.parametrize(("sigma", "sigma_next"), [(1.0, 1.2), (1.0, 1.0), (1.0, -0.1)])
def test_only_downwards(sigma, sigma_next):
    """Churn would add noise again that x holds already: see test_churn_needs_independent_noise."""
    with pytest.raises(InputError, match="falling sigma"):
        BrownianNoise((1,), (2, 4, 4))(0, sigma, sigma_next)


def test_an_image_has_its_own_path():
    batch, alone = BrownianNoise((5, 6, 7), (2, 4, 4)), BrownianNoise((6,), (2, 4, 4))
    assert torch.equal(batch(0, 2.0, 1.0)[1:2], alone(0, 2.0, 1.0))
    assert not torch.equal(batch(0, 2.0, 1.0)[0], batch(0, 2.0, 1.0)[1])


def test_the_start_is_the_seeds_own():
    assert torch.equal(BrownianNoise((5,), SHAPE).start(), SeededNoise((5,), SHAPE).start())


def test_no_global_random_state():
    before = torch.get_rng_state()
    BrownianNoise((1, 2), (2, 4, 4))(4, 1.0, 0.5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_hair_of_sigma_is_a_hair_of_noise():
    """A schedule that was rounded to float32 meets the same path."""
    noise = BrownianNoise((1,), (2, 8, 8))
    near = noise(0, 2.0 * (1 + 2.0**-25), 1.0) - noise(0, 2.0, 1.0)
    assert near.abs().max() <= 1e-3


def test_a_noise_of_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from sdcore.noise import SeededNoise\n"
        "class Mine(SeededNoise):\n"
        "    pass\n"
        "def noise(seeds, shape, device, *, scale=2.0):\n"
        "    made = SeededNoise(seeds, shape, device)\n"
        "    class Scaled:\n"
        "        def start(self): return made.start() * scale\n"
        "        def __call__(self, *draw): return made(*draw) * scale\n"
        "    return Scaled()\n"
        "def bad(seeds, shape, device): return 1\n"
    )
    plain, shape = SeededNoise((3,), (4, 2, 2)), (4, 2, 2)
    assert torch.equal(noise_named(f"{path}:Mine")((3,), shape, "cpu").start(), plain.start())
    scaled = noise_named(f"{path}:scale=3")((3,), shape, "cpu")
    assert torch.equal(scaled(0, 2.0, 1.0), plain(0, 2.0, 1.0) * 3)
    for rest, message in ((":scal=3", "did you mean scale"), (":absent", "no noise named")):
        with pytest.raises(InputError, match=message):
            noise_named(f"{path}{rest}")
    with pytest.raises(InputError, match="cannot be called"):
        noise_named(f"{path}:bad")((3,), shape, "cpu")
