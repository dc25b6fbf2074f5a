"""The examples of the guides run as they stand."""

import re
from pathlib import Path

import pytest
import torch

from sdcore.guidance import GUIDANCES, accepted
from sdcore.guidance import resolve as resolve_guidance
from sdcore.lab import Gaussian, Mixture, denoiser
from sdcore.schedulers import resolve

DOCS = Path(__file__).parents[2] / "docs"


def test_the_guide_to_solvers_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file is a solver, and its notebook prints the errors of one: falling, and small."""
    monkeypatch.chdir(tmp_path)
    guide = (DOCS / "writing-a-solver.md").read_text()
    solver, spacing, notebook = re.findall(r"```python\n(.*?)```", guide, re.S)
    Path("ab2.py").write_text(solver)
    Path("halves.py").write_text(spacing)
    sigmas = resolve("euler", "halves.py:ratio=3").plan(5).sigmas
    assert sigmas[1] == pytest.approx(sigmas[0] / 3)
    torch.manual_seed(0)
    exec(notebook, {})
    errors = [float(error) for error in re.findall(r"tensor\(([^,]+)", capsys.readouterr().out)]
    assert len(errors) == 20
    assert max(errors[-5:-1]) < 0.05


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
    guide = (DOCS / "writing-a-guidance.md").read_text()
    written = re.findall(r"^\| `\+?(\w+:[^`]*)` \|", guide, re.M)
    assert {resolve_guidance(text) and text.split(":")[0] for text in written} == set(GUIDANCES)
