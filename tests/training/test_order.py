"""Sizes, and the order in which pictures are looked at."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdcore.errors import InputError
from sdcore.training.batches import levels
from sdcore.training.buckets import bucket_of, bucket_sizes, covering, mirrored_cut
from sdcore.training.order import Order


def test_bucket_sizes() -> None:
    sizes = bucket_sizes(512, 64)
    assert (512, 512) in sizes
    assert {(768, 320), (320, 768), (640, 384), (256, 1024)} <= set(sizes)
    for width, height in sizes:
        assert width % 64 == height % 64 == 0
        assert width * height <= 512 * 512
        assert (height, width) in sizes
    assert bucket_of((512, 512), sizes) == (512, 512)
    assert bucket_of((1920, 1080), sizes) == (640, 384)
    assert bucket_of((100, 4000), sizes) == (256, 1024)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_the_bucket_is_the_nearest(width: int, height: int) -> None:
    sizes = bucket_sizes(512, 64)

    def far(size: tuple[int, int]) -> float:
        return abs(math.log(size[0] / size[1]) - math.log(width / height))

    assert far(bucket_of((width, height), sizes)) == min(map(far, sizes))


def test_what_is_cut() -> None:
    picture = Image.fromarray(np.arange(100 * 40 * 3, dtype=np.uint8).reshape(40, 100, 3))
    cut, corner = covering(picture, (40, 40))
    assert corner == (30, 0)
    assert np.array_equal(np.asarray(cut), np.asarray(picture)[:, 30:70])
    larger, corner = covering(picture, (64, 64))
    assert larger.size == (64, 64)
    assert corner == ((160 - 64) // 2, 0)
    assert mirrored_cut(101, 40, (30, 5)) == (31, 5)
    with pytest.raises(InputError, match="is 1x99999, too long and thin for 64x64"):
        covering(Image.new("L", (1, 99_999)), (64, 64))


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), min_size=1, max_size=12),
    st.integers(1, 5),
)
def test_no_picture_is_lost(pictures: list[tuple[str, int]], batch: int) -> None:
    """Every epoch looks at each as often as it should at least; batches are full, of one size."""
    sizes, repeats = zip(*pictures, strict=True)
    order = Order(tuple(sizes), tuple(repeats), batch, seed=3)
    for epoch in range(2):
        batches = [order(epoch * len(order) + i) for i in range(len(order))]
        assert all(len(each) == batch for each in batches)
        assert all(len({sizes[i] for i in each}) == 1 for each in batches)
        looks = Counter(i for each in batches for i in each)
        assert all(looks[i] >= repeats[i] for i in range(len(sizes)))
        assert sum(looks.values()) - sum(repeats) < batch * len(set(sizes))


def test_the_order_is_a_function_of_seed_and_number() -> None:
    one, two = (Order(("a",) * 9, (1,) * 9, 2, seed=4) for _ in range(2))
    assert [one(n) for n in range(12)] == [two(n) for n in reversed(range(12))][::-1]
    assert [one(n) for n in range(5)] != [one(n) for n in range(5, 10)]  # mixed anew
    assert [one(n) for n in range(5)] != [Order(("a",) * 9, (1,) * 9, 2, 5)(n) for n in range(5)]


def test_levels_are_even() -> None:
    rng = np.random.default_rng(0)
    drawn = np.concatenate([levels(4, 1000, rng) for _ in range(500)])
    assert Counter(drawn // 250) == dict.fromkeys(range(4), 500)
    assert (drawn.min(), drawn.max()) >= (0, 990)
    assert drawn.max() <= 999
