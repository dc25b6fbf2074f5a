"""The distance by the examiner: 0 of a set to itself, and larger the more it is changed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scripts.examiner_distance import distance, features
from scripts.train.examiner import Examiner
from sdcore.errors import InputError


def test_the_distance_grows_with_the_change(tmp_path: Path) -> None:
    torch.manual_seed(0)
    examiner = Examiner((4, 4, 8), depth=1).eval()
    rng = np.random.default_rng(0)
    sets: dict[int, list[Path]] = {0: [], 40: [], 120: []}
    for i in range(6):
        pixels = rng.integers(0, 100, (64, 64, 3))
        for shift, paths in sets.items():
            paths.append(tmp_path / f"{shift}-{i}.png")
            Image.fromarray((pixels + shift).astype(np.uint8)).save(paths[-1])
    assert features(examiner, sets[0]).shape == (6, 8)
    assert distance(examiner, sets[0], sets[0]) == pytest.approx(0, abs=1e-6)
    near, far = (distance(examiner, sets[0], sets[shift]) for shift in (40, 120))
    assert 0 < near < far
    with pytest.raises(InputError, match="two pictures of each"):
        distance(examiner, sets[0][:1], sets[0])
