"""Values that show themselves in a notebook, and a run that does while it is drawn."""

import io
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

import sdcore
from sdcore.errors import InputError
from sdcore.html_tables import MOST, html_table
from sdcore.notebook import watch
from sdcore.schedulers import resolve
from sdcore.sheets import Pictures
from sdcore.trajectory import Recorder


@pytest.fixture(scope="module")
def sd(tiny_path: Path) -> sdcore.StableDiffusion:
    return sdcore.load(tiny_path, device="cpu")


def opened(png: bytes | None) -> Image.Image:
    assert png is not None
    return Image.open(io.BytesIO(png), formats=["PNG"])


def test_a_run_says_what_it_will_do_and_what_it_costs(sd: sdcore.StableDiffusion) -> None:
    shown = sd.prepare("a red house", seeds=[3, 4], steps=5, cfg=4)._repr_html_()
    for text in ("a red house", "(3, 4)", "5 steps", "10 for a picture", "cfg:scale=4"):
        assert text in shown


def test_words_of_strangers_are_no_markup(sd: sdcore.StableDiffusion) -> None:
    bad = '<img src=x onerror="alert(1)">&'
    run = sd.prepare(bad, negative=bad, steps=2)
    shown = replace(run, warnings=(bad,))._repr_html_()
    assert "<img" not in shown
    assert shown.count("&lt;img src=x onerror=") == 3
    assert "<script" not in html_table("<script>", [("<script>", 1)], ("<script>", "b"))


def test_a_plan_lists_its_steps() -> None:
    plan = resolve("euler", "karras").plan(5)
    shown = plan._repr_html_()
    assert shown.count("<tr>") == 1 + 5
    assert f"{plan.sigmas[2]:.6g}" in shown
    assert "infinite" in shown  # the last step's h


def test_long_tables_are_cut_in_the_middle() -> None:
    shown = resolve("euler", "karras").plan(1000)._repr_html_()
    assert shown.count("<tr>") == 1 + MOST + 1
    assert ">999<" in shown
    assert "..." in shown


def test_a_scheduler_tells_its_order_and_its_paper() -> None:
    shown = resolve("DPM++ 2M Karras")._repr_html_()
    assert "arXiv 2211.01095" in shown
    assert "karras" in shown
    assert len(repr(resolve("dpmpp_2m"))) < 2000


def test_pictures_show_themselves(sd: sdcore.StableDiffusion) -> None:
    run = sd.prepare("red", seeds=[0, 1], steps=1)
    *_, step = run
    pictures = run.decode(step.x_next)
    assert isinstance(pictures, list)
    sheet = opened(pictures._repr_png_())
    assert sheet.size == pictures.sheet().size
    one = opened(Pictures(pictures[:1])._repr_png_())
    assert one.tobytes() == pictures[0].tobytes()
    assert Pictures()._repr_png_() is None


def test_a_trajectory_shows_its_strip(sd: sdcore.StableDiffusion) -> None:
    run = sd.prepare("red", steps=3)
    recorder, only_eps = Recorder(run), Recorder(run, ["eps"])
    for step in run:
        recorder.add(step)
        only_eps.add(step)
    trajectory = recorder.trajectory()
    assert opened(trajectory._repr_png_()).tobytes() == trajectory.strip().tobytes()
    assert only_eps.trajectory()._repr_png_() is None


def test_the_page_about_notebooks(
    sd: sdcore.StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of docs/notebooks.md shows a preview at every second step, and the end."""
    (page,) = (Path(__file__).parents[1] / "docs").glob("notebooks.md")
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    shown = Shown()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=shown))
    names = {"sd": sd}
    exec(example, names)
    assert len(shown) == len(names["run"]) // 2 + 1


class Shown(list):
    """What a notebook's display() and its handle were given."""

    def __call__(self, value: Any, display_id: bool) -> "Shown":
        assert display_id
        self.append(value)
        return self

    update = list.append


def test_a_run_is_watched(sd: sdcore.StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=shown))
    run = sd.prepare("red", seeds=[0, 1], steps=5)
    steps = list(watch(run, every=2))
    assert torch.equal(steps[-1].x_next, list(run)[-1].x_next)
    assert [repr(each).split(",")[0] for each in shown] == [
        "step 1 of 5", "step 3 of 5", "step 5 of 5", "5 steps",
    ]  # fmt: skip
    believed = run.pictures(steps[2].prediction.x0)
    assert [p.tobytes() for p in shown[1]] == [p.tobytes() for p in believed]
    done = run.decode(steps[-1].x_next)
    assert [p.tobytes() for p in shown[-1]] == [p.tobytes() for p in done]
    assert opened(shown[0]._repr_png_()).size[0] > 2 * 32


def test_what_is_done_to_a_watched_step_counts(
    sd: sdcore.StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=Shown()))
    run = sd.prepare("red", steps=3)
    for step in watch(run):
        step.x_next = torch.zeros_like(step.x_next)
    assert not step.x.any()


def test_without_ipython_one_line_says_so(
    sd: sdcore.StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = sd.prepare("red", steps=2)
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(InputError, match="pip install ipython"):
        watch(run)
    with pytest.raises(InputError, match="not every 0"):
        watch(run, every=0)


def test_the_notebook_of_the_docs_runs(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell, in a kernel of its own; what its values show is what stands in the file."""
    for needed in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(needed)
    import nbformat

    from scripts.notebook import NOTEBOOK, executed

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    kept = nbformat.read(NOTEBOOK, as_version=4)
    ran = executed(str(tiny_path))
    assert [kinds(cell) for cell in ran.cells] == [kinds(cell) for cell in kept.cells]
    shown = {kind for cell in ran.cells for kinds_ in kinds(cell) for kind in kinds_}
    assert {"image/png", "text/html"} <= shown


def kinds(cell: Any) -> list[list[str]]:
    """Of each output of a cell, the forms in which it shows itself."""
    return [sorted(out.get("data", [out.output_type])) for out in cell.get("outputs", ())]
