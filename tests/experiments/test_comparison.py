"""compare: cells, the reference beside them, distances, and what is not done twice."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from sdcore.errors import InputError
from sdcore.experiments import comparison
from sdcore.experiments.budget import nfe_of, steps_within
from sdcore.experiments.cells import Cell, Studio, batches, remembering
from sdcore.experiments.comparison import Reference, compare
from sdcore.experiments.comparison_sheet import caption, plot, sheet
from sdcore.experiments.distances import in_distribution, rms
from sdcore.images import psnr
from sdcore.loading import load
from tests.cli.shell import Shell

QUICK = Reference(steps=8)


def cells(model: Path, seeds=(0, 1), schedulers=("euler", "heun"), **more) -> list[Cell]:
    options = {"model": str(model), "device": "cpu", "steps": 2, **more}
    return [
        Cell("red", seed, {**options, "scheduler": name}, {"scheduler": name})
        for name in schedulers
        for seed in seeds
    ]


def test_ids_are_of_what_is_asked_for() -> None:
    cell = Cell("red", 0, {"steps": 5, "cfg": 3.0})
    assert cell.id == Cell("red", 0, {"cfg": 3.0, "steps": 5, "eta": None, "loras": ()}).id
    assert cell.id == Cell("red", 0, {"cfg": 3.0, "steps": 5, "device": "cuda"}).id
    others = [Cell("red", 1, cell.options), Cell("blue", 0, cell.options), cell.asking(steps=6)]
    assert len({cell.id, *(each.id for each in others)}) == 4


def test_a_row_is_the_distance_of_two_runs(tiny_path: Path, tmp_path: Path) -> None:
    (cell,) = cells(tiny_path, [3], ["euler"])
    (row,) = compare([cell], tmp_path / "out", QUICK, cache=tmp_path / "cache")
    sd = load(tiny_path, device="cpu")

    def latents(**options):
        run = sd.prepare("red", seeds=3, **options)
        with torch.inference_mode():
            *_, last = run
        return last.x_next * run.end_scale

    exact = latents(scheduler="dpmpp_2m", spacing="karras", steps=8)
    half = latents(scheduler="dpmpp_2m", spacing="karras", steps=4)
    gap = latents(scheduler="euler", steps=2) - exact
    assert row.error == pytest.approx(gap.square().mean().sqrt().item(), rel=1e-6)
    assert row.most == pytest.approx(gap.abs().max().item(), rel=1e-6)
    assert row.reference_error == pytest.approx((exact - half).square().mean().sqrt().item() / 3)
    assert (row.drawing.nfe, row.reference.nfe) == (4, 16)


def test_nothing_is_drawn_twice(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a cell that is there, nor a reference that another comparison needed; a comparison
    that was stopped goes on."""
    drawn: list[str] = []
    draw = Studio.draw

    def counted(self, group, beat=lambda: None):
        if len(drawn) >= stop:
            raise KeyboardInterrupt
        drawn.extend(f"{c.options['scheduler']} {c.options['steps']} {c.seed}" for c in group)
        return draw(self, group, beat)

    monkeypatch.setattr(Studio, "draw", counted)
    asked, stop = cells(tiny_path), 2
    where = {"folder": tmp_path / "out", "reference": QUICK, "cache": tmp_path / "cache"}
    with pytest.raises(KeyboardInterrupt):
        compare(asked, **where)
    assert drawn == ["euler 2 0", "euler 2 1"]
    stop = 100
    rows = compare(asked, **where)
    assert len(drawn) == len(set(drawn)) == 8  # 4 cells; 2 references, and 2 of half as many steps
    again = compare(asked, **where)
    assert len(drawn) == 8
    assert [row.error for row in again] == [row.error for row in rows]
    compare(cells(tiny_path, schedulers=["ddim"]), **where)
    assert drawn[8:] == ["ddim 2 0", "ddim 2 1"]
    compare(cells(tiny_path, [0], ["euler"], cfg=3.0), **where)  # another problem
    assert drawn[10:] == ["euler 2 0", "dpmpp_2m 8 0", "dpmpp_2m 4 0"]


def test_a_cell_of_another_model_is_drawn_anew(tiny_path: Path, tmp_path: Path) -> None:
    (cell,) = cells(tiny_path, [0], ["euler"])
    where = {"folder": tmp_path / "out", "reference": QUICK, "cache": tmp_path / "cache"}
    compare([cell], **where)
    store = comparison.Store(tmp_path / "out")
    old = store.get(cell.id)
    assert old is not None
    changed = comparison.replace(old.settings, digests=("0 elsewhere",))
    store.put(cell.id, comparison.replace(old, settings=changed, nfe=99))
    (row,) = compare([cell], **where)
    assert row.drawing.nfe == 4


def test_stochastic_solvers_are_compared_in_distribution(tiny_path: Path, tmp_path: Path) -> None:
    asked = cells(tiny_path, range(3), ["euler_ancestral", "euler"])
    rows = compare(asked, tmp_path / "out", QUICK, cache=tmp_path / "cache")
    noisy, smooth = rows[:3], rows[3:]
    assert all(row.error is None and row.psnr is None for row in noisy)
    assert all(row.distribution is None and row.error for row in smooth)
    far = noisy[0].distribution
    assert far is not None
    assert (far.seeds, noisy[1].distribution) == (3, far)
    assert "in distribution" in caption(noisy[0])
    alone = compare(asked[:1], tmp_path / "out", QUICK, cache=tmp_path / "cache")
    assert "of one seed nothing can be said" in caption(alone[0])
    assert sheet(rows, QUICK).size > (0, 0)
    assert plot(noisy).size == plot(rows).size


def test_the_energy_distance_tells_sets_apart() -> None:
    torch.manual_seed(0)
    x = [torch.randn(4, 3, 3) for _ in range(8)]
    same = in_distribution(x, [torch.randn(4, 3, 3) for _ in range(8)])
    apart = in_distribution(x, [torch.randn(4, 3, 3) + 2 for _ in range(8)])
    assert same is not None
    assert apart is not None
    assert abs(same.energy) < 0.1 < apart.energy
    assert apart.p == 1 / 2**7
    assert same.p > 0.1
    assert in_distribution(x[:1], x[:1]) is None
    many = in_distribution(x * 2, [each + 2 for each in x * 2])
    assert many is not None
    assert many.p <= 2 / 1024


def test_distances_are_what_they_say() -> None:
    a = torch.tensor([3.0, 4.0])
    assert rms(a) == pytest.approx(math.sqrt(12.5))
    assert psnr(torch.zeros(3), torch.full((3,), 0.2)) == pytest.approx(20)
    assert psnr(a, a) == math.inf


def test_equal_cost(tiny_path: Path) -> None:
    studio = Studio()
    euler, heun = cells(tiny_path, [0])
    assert steps_within(studio, euler, 20) == 10  # two branches a question
    steps = steps_within(studio, heun, 20)
    assert nfe_of(studio, heun.asking(steps=steps)) <= 20
    assert nfe_of(studio, heun.asking(steps=steps + 1)) > 20
    assert steps_within(studio, euler.asking(cfg=1.0), 20) == 20
    with pytest.raises(InputError, match="one step of euler takes 2 NFE: more than 1"):
        steps_within(studio, euler, 1)


def test_texts_are_read_once(tiny_path: Path) -> None:
    sd = load(tiny_path, device="cpu")
    twin = remembering(sd)
    ids = torch.tensor([[1, 2, 3]])
    encoder = twin.readers[0].encoder
    assert encoder(ids) is encoder(ids)
    assert torch.equal(encoder(ids).last, sd.text_encoder(ids).last)
    assert "forward" not in vars(sd.text_encoder)


def test_cells_of_the_same_options_share_a_batch(tiny_path: Path) -> None:
    groups = batches(cells(tiny_path, range(3)), lambda cell: 2)
    assert [len(group) for group in groups] == [2, 1, 2, 1]


def test_a_picture_to_start_from_is_refused(tiny_path: Path, tmp_path: Path) -> None:
    asked = cells(tiny_path, [0], ["euler"], image="x.png")
    with pytest.raises(InputError, match="compare from noise"):
        compare(asked, tmp_path)


def test_the_command(shell: Shell) -> None:
    done = shell(
        "compare", "red", "--seed", "0-1", "--scheduler", "euler", "--scheduler", "heun",
        "--nfe", 8, "--nfe", 12, "--model", shell.model, "--device", "cpu",
        "--reference-steps", 6, "--cache", "cache", "--out", "out",
    )  # fmt: skip
    assert done.status == 0, done.err
    with Path("out/comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert {(row["scheduler"], row["steps"]) for row in rows} == {
        ("euler", "4"), ("euler", "6"), ("heun", "2"), ("heun", "3"),
    }  # fmt: skip
    assert all(float(row["error"]) > 0 for row in rows)
    whole = json.loads(Path("out/comparison.json").read_text())
    assert whole["reference"] == {"scheduler": "dpmpp_2m", "spacing": "karras", "steps": 6}
    assert [each["error"] for each in whole["cells"]] == [float(row["error"]) for row in rows]
    assert len(list(Path("out/pictures").glob("*.png"))) == 8
    for name in ("sheet", "plot"):
        assert Image.open(f"out/{name}.png").width > 200
    again = shell("rerun", f"out/pictures/{rows[0]['id']}.png", "--out", "again.png")
    assert again.status == 0
    both = shell("compare", "red", "--nfe", 4, "--steps", 3, "--out", "out")
    assert both.status == 2
    assert "leave out --steps" in both.err
