"""Seeded noise: diffusers' numbers, and purity."""

import pytest
import torch

from sdcore.brownian import noise_named
from sdcore.errors import InputError
from sdcore.noise import SeededNoise, part_of, slerp_columns

SHAPE = (4, 8, 8)
TINY = (1, 3, 3)  # fewer than 16 values, where torch's generator keeps one normal back


@pytest.mark.parametrize("shape", [SHAPE, TINY])
def test_equal_to_diffusers_with_a_list_of_generators(shape):
    tensors = pytest.importorskip("diffusers.utils.torch_utils")
    seeds = (0, 123, 2**63 + 5)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = SeededNoise(seeds, shape)
    expected = [tensors.randn_tensor((3, *shape), generator=generators) for _ in range(6)]
    assert torch.equal(noise.start(), expected[0])
    for draw in range(5):
        assert torch.equal(noise(draw, 1.0, 0.5), expected[draw + 1])


@pytest.mark.parametrize("shape", [SHAPE, TINY])
def test_draws_are_pure_in_any_order(shape):
    straight = SeededNoise((3, 4), shape)
    expected = [straight(draw, 1.0, 0.5) for draw in range(6)]
    jumping = SeededNoise((3, 4), shape)
    for draw in (4, 0, 5, 5, 2, 1, 3, 0):
        assert torch.equal(jumping(draw, 9.0, 8.0), expected[draw])
    assert torch.equal(jumping.start(), straight.start())


def test_changing_a_result_changes_nothing():
    noise = SeededNoise((3,), SHAPE)
    kept = noise(2, 1.0, 0.5).clone()
    noise(2, 1.0, 0.5).zero_()
    assert torch.equal(noise(2, 1.0, 0.5), kept)


def test_an_image_has_its_own_stream():
    batch, alone = SeededNoise((5, 6, 7), SHAPE), SeededNoise((6,), SHAPE)
    assert torch.equal(batch.start()[1:2], alone.start())
    assert torch.equal(batch(3, 1.0, 0.5)[1:2], alone(3, 1.0, 0.5))
    same = SeededNoise((6, 6), SHAPE).start()
    assert torch.equal(same[0], same[1])


def test_draws_before_the_loop_can_be_counted_in():
    """diffusers' image-to-image samples the VAE first, then draws the starting noise."""
    plain, later = SeededNoise((1,), SHAPE), SeededNoise((1,), SHAPE, spent=2)
    assert torch.equal(later.start(), plain(0, 1.0, 0.5))
    assert torch.equal(later(0, 1.0, 0.5), plain(1, 1.0, 0.5))
    assert torch.equal(later.stream(0), plain.start())


def test_seed_zero_is_zero():
    zero = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.equal(SeededNoise((0,), SHAPE).start(), zero)


def test_no_global_random_state():
    before = torch.get_rng_state()
    SeededNoise((1, 2), SHAPE)(4, 1.0, 0.5)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_float32_and_unit_variance():
    noise = SeededNoise((1,), (4, 64, 64)).start()
    assert noise.dtype == torch.float32
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("seeds", [(), (2**64,), (0, -(2**63) - 1)])
def test_bad_seeds_are_refused(seeds):
    with pytest.raises(InputError, match="seed"):
        SeededNoise(seeds, SHAPE)


def test_later_draws_of_other_seeds() -> None:
    """By hand: the start of the seed, and the first draws of the seed that is so much larger."""
    noise = noise_named("independent:delta=31337")((3, 5), (4, 2, 2), "cpu")
    plain, later = (SeededNoise(seeds, (4, 2, 2)) for seeds in ((3, 5), (31340, 31342)))
    assert torch.equal(noise.start(), plain.start())
    for draw in (0, 2, 1):
        assert torch.equal(noise(draw, 1.0, 0.5), later.stream(draw))
    assert torch.equal(part_of(noise, slice(1, 2))(0, 1.0, 0.5), later.stream(0)[1:])
    for name in ("independent:delta=x", "brownian:delta=1", "independent:other=1"):
        with pytest.raises(InputError, match="delta"):
            noise_named(name)


def test_columns_on_arcs_of_their_own() -> None:
    """A1111's slerp of one [C,H,W], written out."""
    a, b = SeededNoise((1, 2), (4, 8, 6)).start(), SeededNoise((7, 8), (4, 8, 6)).start()
    for low, high, ours in zip(a, b, slerp_columns(a, b, 0.3), strict=True):
        unit = [x / torch.linalg.vector_norm(x, dim=1, keepdim=True) for x in (low, high)]
        omega = torch.acos((unit[0] * unit[1]).sum(1))
        parts = [(torch.sin(share * omega) / torch.sin(omega)).unsqueeze(1) for share in (0.7, 0.3)]
        assert (parts[0] * low + parts[1] * high - ours).abs().max() <= 1e-5
    assert torch.allclose(slerp_columns(a, a, 0.3), a, atol=1e-6)
    mixed = slerp_columns(a, torch.stack([a[0], b[1]]), 0.3)  # one of the batch by its own seed
    assert torch.allclose(mixed[0], a[0], atol=1e-6)
    assert torch.equal(mixed[1:], slerp_columns(a[1:], b[1:], 0.3))
