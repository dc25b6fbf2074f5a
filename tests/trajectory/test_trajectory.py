"""A run recorded and read back: the same tensors, its geometry, and where two of them part."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import sdcore
from sdcore.errors import InputError
from sdcore.latent_colours import LatentColours
from sdcore.run import Run
from sdcore.trajectory import Recorder, Trajectory, difference, plot, record, shapes, strip
from sdcore.trajectory.difference import pixels_apart
from sdcore.trajectory.file import KEY
from tests.cli.shell import Shell


@pytest.fixture(scope="module")
def sd(tiny_path: Path) -> sdcore.StableDiffusion:
    return sdcore.load(tiny_path, device="cpu")


@pytest.fixture
def run(sd: sdcore.StableDiffusion) -> Run:
    return sd.prepare(["red", "blue"], seeds=3, scheduler="euler", steps=5)


@torch.inference_mode()
def recorded(run: Run, path: Path, **how) -> tuple[list[sdcore.Step], Trajectory]:
    return list(record(run, path, **how)), Trajectory.load(path)


def test_everything_comes_back_equal_to_the_bit(run: Run, tmp_path: Path) -> None:
    what = ("x", "x0", "eps", "branches")
    steps, read = recorded(run, tmp_path / "run.safetensors", what=what)
    assert read.complete
    assert read.settings == run.settings
    assert read.sigmas == run.sigmas
    assert [each.t for each in read.moments] == [step.t for step in steps]
    assert [each.nfe for each in read.moments] == [2] * 5
    for n, step in enumerate(steps):
        assert torch.equal(read["x"][n], step.x)
        assert torch.equal(read["x0"][n], step.prediction.x0)
        assert torch.equal(read["eps"][n], step.prediction.eps)
        for name, branch in step.prediction.branches.items():
            assert torch.equal(read[f"branches.{name}.x0"][n], branch.x0)
            assert torch.equal(read[f"branches.{name}.eps"][n], branch.eps)
    assert torch.equal(read.x_next, steps[-1].x_next)


def test_every_second_step_in_half_the_size(run: Run, tmp_path: Path) -> None:
    _, whole = recorded(run, tmp_path / "whole")
    _, read = recorded(run, tmp_path / "part", every=2, dtype="float16", what=["x0"])
    assert [each.index for each in read.moments] == [0, 2, 4]
    assert list(read.tensors) == ["x0"]
    assert read["x0"].dtype == torch.float16
    assert torch.equal(read["x0"], whole["x0"][::2].half())
    assert torch.equal(read.x_next, whole.x_next)
    with pytest.raises(InputError, match="eps was not recorded: there is x0"):
        read["eps"]


def test_a_branch_that_is_not_asked_is_nan(sd: sdcore.StableDiffusion, tmp_path: Path) -> None:
    run = sd.prepare("red", steps=5, guidance="cfg+interval:low=0.3,high=5")
    steps, read = recorded(run, tmp_path / "run", what=["branches"])
    asked = ["uncond" in step.prediction.branches for step in steps]
    assert set(asked) == {True, False}
    uncond = read["branches.uncond.eps"]
    assert [not each.isnan().any().item() for each in uncond] == asked
    assert not read["branches.cond.eps"].isnan().any()


def test_what_is_assigned_is_recorded_and_a_run_that_is_left_leaves_a_prefix(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    with torch.inference_mode():
        for step in record(run, path, every=3):
            if step.index == 1:
                step.x_next = torch.ones_like(step.x_next)
                break
    read = Trajectory.load(path)
    assert not read.complete
    assert [each.index for each in read.moments] == [0, 1]
    assert read.colours is None
    assert torch.equal(read.x_next, torch.ones_like(read.x_next))


def test_an_error_in_the_loop_leaves_the_steps_before_it(run: Run, tmp_path: Path) -> None:
    def failing(denoise):
        def ask(x, sigma):
            if sigma < run.sigmas[2]:
                raise ZeroDivisionError
            return denoise(x, sigma)

        return ask

    with pytest.raises(ZeroDivisionError):
        recorded(replace(run, around=failing), tmp_path / "run")
    assert len(Trajectory.load(tmp_path / "run").moments) == 3


def test_where_two_runs_part(sd: sdcore.StableDiffusion, run: Run, tmp_path: Path) -> None:
    _, one = recorded(run, tmp_path / "one")
    assert difference(one, one).same
    other = sd.prepare(["red", "blue"], seeds=3, scheduler="euler", steps=5, cfg=3)
    _, cfg = recorded(other, tmp_path / "cfg")
    found = difference(one, cfg)
    assert found.first == (1, "x0")
    assert found.settings == {"cfg": (7.5, 3.0)}
    assert found.sigmas is None
    gap = (one["x0"][0] - cfg["x0"][0]).double()
    assert found.steps[0].most["x0"] == gap.abs().max().item()
    assert found.steps[0].most["x"] == 0
    assert difference(one, cfg, tolerance=1e6).same

    def pushed(denoise, x, interval, memory, draw):
        x_next, prediction, memory = run.solver(denoise, x, interval, memory, draw)
        return (x_next + 0.5 if interval.index == 2 else x_next), prediction, memory

    _, late = recorded(replace(run, solver=pushed), tmp_path / "late")
    assert difference(one, late).first == (3, "x_next")
    assert difference(one, late).steps[2].most["x_next"] == pytest.approx(0.5, rel=1e-5)
    seeds = sd.prepare(["red", "blue"], seeds=4, scheduler="euler", steps=5)
    _, start = recorded(seeds, tmp_path / "start")
    assert difference(one, start).first == (1, "x")
    grid = sd.prepare(["red", "blue"], seeds=3, scheduler="euler", steps=5, spacing="karras")
    _, levels = recorded(grid, tmp_path / "grid")
    assert difference(one, levels).sigmas == 1  # between the same ends
    assert difference(one, levels).first == (1, "x_next")
    alone = sd.prepare("red", steps=5)
    with pytest.raises(InputError, match="cannot be compared"):
        difference(one, recorded(alone, tmp_path / "alone")[1])


def test_the_shape_of_a_path_that_is_known(run: Run) -> None:
    """eps turns by 60 degrees at the third step, and is straight before."""
    recorder = Recorder(run)
    d1, d2 = torch.zeros(2, 4, 4, 4), torch.zeros(2, 4, 4, 4)
    d1[:, 0], d2[:, 0], d2[:, 1] = 1, math.cos(math.pi / 3), math.sin(math.pi / 3)
    sigmas = (4.0, 2.0, 1.0, 0.0)
    for index, eps in enumerate((d1, d1, d2)):
        prediction = sdcore.Prediction(torch.full_like(eps, index), eps)
        x = prediction.x0 + sigmas[index] * eps
        step = sdcore.Step(index, 3, sigmas[index], sigmas[index + 1], x, prediction, x, 1, (), 0)
        recorder.add(step)
    first, second, third = shapes(recorder.trajectory())
    assert (first.angle, first.curvature, first.x0_moved) == (None, None, None)
    assert (first.eps, first.x0, first.x) == pytest.approx((0.5, 0, 2))
    assert (second.angle, second.curvature) == pytest.approx((0, 0), abs=1e-4)
    assert second.x0_moved == pytest.approx(1)
    assert third.angle == pytest.approx(60, rel=1e-5)
    assert third.curvature == pytest.approx(1 / math.log(2), rel=1e-6)  # |d2 - d1| = |d1|


def test_colours_are_learned_from_the_pictures() -> None:
    torch.manual_seed(0)
    latents, truth = torch.randn(2, 4, 8, 8), torch.randn(4, 3) / 20
    colours = (latents.permute(0, 2, 3, 1) @ truth + 0.1).permute(0, 3, 1, 2)
    images = colours.repeat_interleave(8, 2).repeat_interleave(8, 3)
    learned = LatentColours.fit(latents, images)
    assert (learned.weights - truth).abs().max() < 1e-3
    assert (learned(latents) - colours).abs().max() < 2e-3
    assert LatentColours.false(latents)(latents).shape == (2, 3, 8, 8)


def test_pixels_apart() -> None:
    black, grey = torch.full((1, 3, 2, 2), -1.0), torch.full((1, 3, 2, 2), -1 + 2 * 51 / 255)
    most, psnr = pixels_apart(black, grey)
    assert most == 51
    assert psnr == pytest.approx(20 * math.log10(5), rel=1e-6)
    assert pixels_apart(black, black) == (0, math.inf)


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ({"what": ["y"]}, "no 'y' to record: there is x, x0, eps, branches"),
        ({"what": []}, "nothing is to be recorded"),
        ({"every": 0}, "at least 1, not 0"),
        ({"dtype": "int8"}, "float32 or float16"),
    ],
)
def test_what_cannot_be_recorded(run: Run, how: dict, line: str) -> None:
    with pytest.raises(InputError, match=line):
        Recorder(run, **how)


def test_a_record_is_of_one_pass(sd: sdcore.StableDiffusion, tmp_path: Path) -> None:
    two = sd.prepare("red", seeds=3, steps=3, hires=2)
    with pytest.raises(InputError, match="of one pass"):
        next(iter(record(two, tmp_path / "run.safetensors")))
    steps, read = recorded(replace(two, then=None), tmp_path / "run.safetensors")
    assert (len(steps), read.complete) == (3, True)


def test_float16_is_refused_where_it_would_overflow(run: Run) -> None:
    high = replace(run, sigmas=(2.0**24, 1.0, 0.0))
    with pytest.raises(InputError, match="record in float32"):
        Recorder(high, dtype="float16")


def test_garbled_files_are_refused_in_a_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    _, read = recorded(run, path)
    facts = json.loads(json.dumps(_facts(path)))
    tensors = load_file(path)
    path.write_bytes(path.read_bytes()[:-3])
    (tmp_path / "picture.webp").write_bytes(b"RIFF0000WEBP")
    with pytest.raises(InputError, match=r"picture\.webp is a picture, and no run"):
        Trajectory.load(tmp_path / "picture.webp")
    with pytest.raises(InputError, match="is no recorded run"):
        Trajectory.load(path)
    for change in (
        {"version": 9}, {"moments": []}, {"sigmas": [float("nan")]}, {"settings": []},
        {"moments": [{"index": "1"}]}, {"moments": 3}, {"machine": 3}, {"end_scale": None},
    ):  # fmt: skip
        save_file(tensors, path, {KEY: json.dumps(facts | change)})
        with pytest.raises(InputError, match="is garbled"):
            Trajectory.load(path)
    for name, tensor in (("x", tensors["x"][:2]), ("x_next", torch.zeros(3)), ("y", torch.ones(1))):
        save_file(tensors | {name: tensor.clone()}, path, {KEY: json.dumps(facts)})
        with pytest.raises(InputError, match="is garbled"):
            Trajectory.load(path)
    save_file(tensors, path)
    with pytest.raises(InputError, match="sample --record FILE writes one"):
        Trajectory.load(path)
    assert read.complete


def _facts(path: Path) -> dict:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[KEY])


def test_the_commands(shell: Shell) -> None:
    """sample records each run, replay shows one without the model, diff tells two apart."""
    drawn = shell.sample(
        "red", "--seed", "0-1", "--scheduler", "euler", "--cfg", 2, "--cfg", 3, "--batch", 2,
        "--record", "run.safetensors",
    )  # fmt: skip
    assert drawn.status == 0
    assert drawn.paths[-2:] == [Path("run.safetensors"), Path("run-2.safetensors")]
    one = Trajectory.load("run.safetensors")
    assert len(one.settings) == 2
    assert one.colours is not None
    shown = shell(
        "replay", "run.safetensors",
        "--film", "film.png", "--animation", "film.webp", "--plot", "plot.png",
    )  # fmt: skip
    assert shown.status == 0
    with Image.open("film.webp") as film:
        assert film.n_frames == 3  # two steps and the end
    assert Image.open("film.png").size == strip(one).size
    assert Image.open("plot.png").size == plot(one, shapes(one)).size
    same = shell("diff", "run.safetensors", "run.safetensors")
    assert same.status == 0
    apart = shell("diff", "run.safetensors", "run-2.safetensors")
    assert apart.status == 1
    text = [str(line) for line in apart.paths]
    assert text[0] == "cfg: 2.0 | 3.0"
    assert text[1].startswith("they part at step 1, in x0: from the same x the predictions part")
    pictures = shell("diff", drawn.paths[0], drawn.paths[2])
    assert pictures.status == 1
    assert str(pictures.paths[0]) == "cfg: 2.0 | 3.0"
    assert shell("diff", drawn.paths[0], drawn.paths[0]).status == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("sample", "red", "--record", "."),
        ("sample", "red", "--record", "no/where.safetensors"),
        ("sample", "red", "--record", "a.safetensors", "--record-what", "y"),
        ("sample", "red", "--record", "a.safetensors", "--record-every", "0"),
        ("replay", "missing.safetensors"),
        ("diff", "missing.png", "missing.png"),
    ],
)
def test_what_is_wrong_is_one_line(shell: Shell, arguments: tuple[str, ...]) -> None:
    result = shell.sample(*arguments[1:]) if arguments[0] == "sample" else shell(*arguments)
    assert result.status == 2
    assert result.err.count("\n") == 1
    assert not list(Path().glob("*"))
