"""The examples of the guides run as they stand."""

import re
from pathlib import Path

import pytest
import torch

from sdcore.guidance import accepted
from sdcore.lab import Gaussian, Mixture, denoiser

DOCS = Path(__file__).parents[2] / "docs"


def test_the_guide_to_guidances_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(
        r"```python\n(.*?)```", (DOCS / "writing-a-guidance.md").read_text(), re.S
    )
    names: dict = {}
    for example in examples:
        if file := re.match(r"# (\w+\.py):", example):
            Path(file[1]).write_text(example)
        exec(example, names)
    assert len(examples) == 3
    x = torch.linspace(-3, 3, 8, dtype=torch.float64).reshape(2, 1, 2, 2)
    for guidance in (names["Rescaled"](), names["mine"], names["windowed"], names["both"]):
        found = denoiser(Gaussian(0.5, 0.4), Mixture(), accepted(guidance), batch=2)(x, 1.0)
        assert (found.x0 + found.eps - x).abs().max() <= 1e-12
    assert names["Towards"].sources["other"].text == "a painting"
