"""sweep: every picture exactly once, whoever is killed, and whatever fails."""

import csv
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.sweep_kills import counted, killed, on_ray
from sdcore.cli.sweep_plan import read_plan
from sdcore.errors import InputError
from sdcore.experiments.cells import Cell, Studio
from sdcore.experiments.sweep import folder as folders
from sdcore.experiments.sweep.claims import Claims
from sdcore.experiments.sweep.folder import CannotWrite, Folder
from sdcore.experiments.sweep.plan import Picture, Prompt, Shard, laid_out
from sdcore.experiments.sweep.work import Here, Work
from sdcore.images import read_settings
from tests.cli.shell import Shell

MATRIX = "matrix:\n  scheduler: [euler, dpmpp_2m]\n  steps: [2, 3]\n"


def plan(model: Path, text: str = MATRIX, words: str = "[red, blue]", seed: str = "0-1") -> Path:
    path = Path("plan.yaml")
    path.write_text(f"model: {model}\ndevice: cpu\nprompts: {words}\nseed: {seed}\n{text}")
    return path


def drawn(out: str = "out") -> list[str]:
    return sorted(str(each.relative_to(out)) for each in Path(out).rglob("*.png"))


# --- plans


def cells(text: str) -> set[tuple]:
    Path("plan.yaml").write_text(text)
    return {
        (p.cell.prompt, p.cell.seed, p.cell.options.get("scheduler"), p.cell.options.get("steps"))
        for p in read_plan("plan.yaml").pictures
    }


def test_a_matrix_with_include_and_exclude(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "prompts: [a, b]\nseed: 3,5\n" + MATRIX
    assert len(cells(text)) == 16
    less = cells(text + "exclude:\n  - {scheduler: euler, steps: 3}\n")
    assert len(less) == 12
    assert not any(each[2:] == ("euler", 3) for each in less)
    more = cells(
        text + "include:\n  - scheduler: heun\n    steps: 7\n  - steps: 2\n    scheduler: euler\n"
    )
    assert len(more) == 20  # what is asked for twice is one
    assert ("a", 5, "heun", 7) in more
    assert cells("prompt: a\nguidance-scale: 3\n") == {("a", 0, None, None)}


def test_include_says_otherwise_than_the_plan(tmp_path: Path, monkeypatch) -> None:
    """What it names it names in place of the plan's own, seeds too; and has the matrix's seeds."""
    monkeypatch.chdir(tmp_path)
    plan = "prompt: a\nsteps: 2\nseed: [0, 1]\nmatrix: {scheduler: [euler]}\n"
    of_plan = {("a", 0, "euler", 2), ("a", 1, "euler", 2)}
    assert cells(plan + "include: {scheduler: heun, steps: 1, seed: 5}\n") == {
        *of_plan, ("a", 5, "heun", 1)
    }  # fmt: skip
    seeds = "prompt: a\nsteps: 2\nmatrix: {scheduler: [euler], seed: [0, 1]}\n"
    assert cells(seeds + "include: [{scheduler: heun}]\n") == {
        *of_plan, ("a", 0, "heun", 2), ("a", 1, "heun", 2)
    }  # fmt: skip


def test_what_include_names_labels_it_by_whichever_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text(
        "prompt: a\nlayout: geneval\ninclude:\n- {lora: [x, y], steps: 4}\n- {sampler: heun}\n"
        "- {cfg-scale: 0, seed: 5}\n- {sigmas: '14,0', paste: yes}\n"
    )
    found = read_plan("plan.yaml").pictures
    assert [each.cell.labels for each in found] == [
        {}, {"loras": "x,y", "steps": 4}, {"scheduler": "heun"}, {"cfg": 0.0},
        {"spacing": "sigmas:14,0", "paste": True},
    ]  # fmt: skip
    assert len({each.path.partition("/")[0] for each in found}) == 5


def test_exclude_takes_seeds_and_lists_and_says_where_it_finds_nothing(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = "prompt: a\nseed: 0-2\nsteps: 2\nmatrix: {scheduler: [euler, heun]}\n"
    left = cells(plan + "exclude: [{scheduler: heun, seed: 1-2}]\n")
    assert {each[1:3] for each in left} == {(0, "euler"), (1, "euler"), (2, "euler"), (0, "heun")}
    lists = "prompt: a\nmatrix: {sigmas: ['14,5,0', '14,0']}\n"
    assert len(cells(lists + "exclude: [{sigmas: '14,0'}]\n")) == 1
    zero = "prompt: a\nmatrix: {cfg: [0, 1]}\n"
    assert len(cells(zero + "exclude: [{cfg: 0}]\n")) == 1
    adapted = "prompt: a\nlora: [x, y]\nmatrix: {steps: [1, 2]}\n"
    assert len(cells(adapted + "exclude: [{loras: [x, y], steps: 2}]\n")) == 1
    assert not capsys.readouterr().err
    assert len(cells(plan + "exclude: [{paste: true, steps: 2}]\n")) == 6
    assert "nothing is as exclude has it" in capsys.readouterr().err
    assert len(cells(plan + "exclude: [{scheduler: huen}]\n")) == 6
    assert capsys.readouterr().err == "sdcore: plan.yaml, line 5: nothing is as exclude has it\n"


def test_prompts_that_name_adapters(tmp_path: Path, monkeypatch) -> None:
    """Two of the same words under two adapters are two prompts."""
    monkeypatch.chdir(tmp_path)
    Path("loras").mkdir()
    for name in "xy":
        Path("loras", f"{name}.safetensors").touch()
    Path("plan.yaml").write_text(
        "prompts: ['red <lora:x:0.5>', 'red <lora:y>']\ngrammar: a1111\nlora_dir: loras\n"
        "layout: geneval\n"
    )
    found = read_plan("plan.yaml").pictures
    assert [(each.cell.prompt, each.path) for each in found] == [
        ("red", "00000/samples/0000.png"), ("red", "00001/samples/0000.png")
    ]  # fmt: skip
    assert [each.cell.options["loras"] for each in found] == [
        ("loras/x.safetensors:0.5",), ("loras/y.safetensors:1",)
    ]  # fmt: skip


def test_numbers_are_read_as_on_the_command_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text(
        "prompt: a\ncfg: 1e1\nlora: [x, y:0.5]\nmatrix: {eta: [0, 1e-1]}\n"
    )
    options = [each.cell.options for each in read_plan("plan.yaml").pictures]
    assert [(each["cfg"], each["eta"], each["loras"]) for each in options] == [
        (10.0, 0.0, ("x", "y:0.5")), (10.0, 0.1, ("x", "y:0.5")),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed: 1\n", "give prompt, or prompts"),
        ("prompt: a\nstep: 3\n", "unknown option 'step': did you mean steps"),
        ("prompt: a\nsteps: [3, 4]\n", "line 2: several values of steps belong into matrix"),
        ("prompt: a\nsteps: three\n", "'three' is not a valid integer"),
        ("prompt: a\nmatrix: {lora: [x]}\n", "takes several at once"),
        ("prompt: a\nlayout: tree\n", "no layout 'tree': there is flat, geneval, compbench"),
        ("prompt: a\nseed: -1\n", "another one each time"),
        ("prompt: a\nmatrix: {steps: [2]}\nexclude: [{steps: 2}]\n", "leaves no combination"),
        ("prompt: a\nprompt: b\n", "stands in line 1 too"),
        ("prompt: a\nmatrix: {prompt: [b]}\n", "prompt stands by itself"),
        ("prompt: a\nmatrix: {steps: []}\n", "steps has no values"),
        ("prompt: a\nsteps: 2\nmatrix: {steps: [3]}\n", "steps stands in matrix and outside"),
        ("prompt: a\nexclude: [{}]\n", "line 2: exclude names options with values, or seeds"),
        ("prompts: []\n", "line 1: prompts says nothing"),
        ("prompts:\n", "line 1: prompts is a list, or a file of them"),
        ("- a\n", "holds no keys"),
    ],
)
def test_a_plan_that_is_wrong(text: str, line: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        read_plan("plan.yaml")
    assert line in str(error.value)


def test_layouts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [{"prompt": "a/b", "tag": "two"}, {"prompt": "c" * 400}]
    Path("list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    text = "prompts: list.jsonl\nseed: 0-1\nlayout: {}\n"
    paths = {}
    for layout in ("flat", "geneval", "compbench"):
        Path("plan.yaml").write_text(text.format(layout))
        pictures = read_plan("plan.yaml").pictures
        paths[layout] = [each.path for each in pictures]
        assert all(len(os.fsencode(name)) < 256 for p in paths[layout] for name in p.split("/"))
        assert pictures[0].metadata == {"tag": "two"}
    assert paths["geneval"] == [f"0000{i}/samples/000{n}.png" for i in (0, 1) for n in (0, 1)]
    assert paths["compbench"][:2] == ["samples/a_b_000000.png", "samples/a_b_000001.png"]
    assert paths["compbench"][3].endswith("c_000003.png")
    several = [Cell("a", 0, {"steps": n}, {"steps": n}) for n in (2, 3)]
    assert [p.path for p in laid_out(several, [Prompt("a")], "geneval")] == [
        "steps=2/00000/samples/0000.png", "steps=3/00000/samples/0000.png",
    ]  # fmt: skip
    beside = [
        Cell("a", 0, {}),
        Cell("a", 1, {}),
        Cell("a", 0, {"cfg": 2}, {"negative": "\u5bb6" * 99}),
    ]
    *plain, other = [p.path for p in laid_out(beside, [Prompt("a")], "geneval")]
    assert plain == ["00000/samples/0000.png", "00000/samples/0001.png"]
    assert all(len(os.fsencode(name)) < 256 for name in other.split("/"))


def test_shards() -> None:
    groups = list(range(10))
    parts = [Shard.read(f"{i}/3").order(groups) for i in range(3)]
    assert sorted(each for part in parts for each in part) == groups
    rank = Shard.of_environment({"RANK": "1", "WORLD_SIZE": "2"})
    assert rank.order(groups) == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]  # then it helps the others
    array = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "5"}
    assert Shard.of_environment(array) == Shard(2, 4)
    assert Shard.of_environment({"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}) == Shard(3, 8)
    assert Shard.of_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}) == Shard()
    for wrong in ("3/3", "1", "1/0", "-1/2"):
        with pytest.raises(InputError, match="shard"):
            Shard.read(wrong)


# --- claims


def test_a_claim_is_one_process_own(tmp_path: Path) -> None:
    with Claims(tmp_path) as one, Claims(tmp_path) as other:
        assert one.take("x")
        assert not other.take("x")
        assert not one.take("x")
        assert other.is_held("x")
        one.release("x")
        assert not one.is_held("x")
        assert other.take("x")
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_is_not_renewed_is_taken_over(tmp_path: Path, monkeypatch) -> None:
    """By the file system's clock: that of a machine may be hours off."""
    with Claims(tmp_path, lease=1000) as one, Claims(tmp_path, lease=1000) as other:
        assert one.take("x")
        monkeypatch.setattr(time, "time", lambda: 1e12)
        assert not other.take("x")
        past = (tmp_path / "x").stat().st_mtime - 1001
        os.utime(tmp_path / "x", (past, past))
        assert other.take("x")
        assert not one.take("x")


def test_claims_are_kept_alive(tmp_path: Path) -> None:
    with Claims(tmp_path, lease=0.04) as one, Claims(tmp_path, lease=1000) as other:
        assert one.take("x")
        for _ in range(3):
            os.utime(tmp_path / "x", (0, 0))
            until = time.monotonic() + 60
            while not (tmp_path / "x").stat().st_mtime and time.monotonic() < until:
                time.sleep(0.005)
            assert not other.take("x")


def test_what_was_taken_over_is_left_to_its_new_holder(tmp_path: Path, monkeypatch) -> None:
    """Also where two find at once that a claim is stale, and one of them has it already anew."""
    with Claims(tmp_path) as one, Claims(tmp_path) as other:
        assert one.take("x")
        os.utime(tmp_path / "x", (0, 0))
        assert other.take("x")
        one.release("x")
        assert other.is_held("x")
        monkeypatch.setattr(one, "_stale", lambda path: path.name == "x")
        one.clear()
        assert other.is_held("x")


def test_the_clock_of_a_folder_that_is_cleared_by_another(tmp_path: Path, monkeypatch) -> None:
    with Claims(tmp_path) as one, Claims(tmp_path) as other:
        assert one.take("x")
        utime = os.utime

        def cleared(*args) -> None:
            (tmp_path / f".now.{other.worker}").unlink()
            utime(*args)

        monkeypatch.setattr(os, "utime", cleared)
        monkeypatch.setattr(os, "supports_fd", {cleared})
        assert not other.take("x")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_a_claim_of_a_process_that_is_gone_is_stale_at_once(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        claims = Claims(tmp_path)
        claims.take("x")
        os._exit(0)
    os.waitpid(child, 0)
    with Claims(tmp_path) as one:
        assert (tmp_path / "x").exists()
        assert one.take("x")


def test_garbled_claims_wait_for_the_lease(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with Claims(tmp_path) as one:
        assert not one.take("x")
        os.utime(tmp_path / "x", (0, 0))
        assert one.take("x")


# --- drawing


def test_it_goes_on_where_it_stopped(shell: Shell) -> None:
    path = plan(shell.model)
    first = shell("sweep", path, "out")
    assert (first.status, str(first.paths[0])) == (0, "16 of 16 pictures are in out; 16 drawn now")
    names = drawn()
    assert len(names) == 16
    times = {name: Path("out", name).stat().st_mtime_ns for name in names}
    Path("out", names[3]).unlink()
    Path("out", names[7]).unlink()
    again = shell("sweep", path, "out")
    assert str(again.paths[0]) == "16 of 16 pictures are in out; 2 drawn now"
    kept = {name for name in names if Path("out", name).stat().st_mtime_ns == times[name]}
    assert kept == set(names) - {names[3], names[7]}
    with Path("out/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [each.path for each in read_plan(str(path)).pictures]
    assert {row["nfe"] for row in rows} == {"4", "6"}
    for row in rows:
        s = read_settings(Path("out", row["file"]))
        assert [s.prompt, str(s.seed), s.scheduler, str(s.steps)] == [
            row["prompt"], row["seed"], row["scheduler"], row["steps"],
        ]  # fmt: skip


def test_pictures_are_those_of_sample(shell: Shell) -> None:
    shell("sweep", plan(shell.model, "steps: 2\n", "[red]", "4"), "out")
    (name,) = drawn()
    alone = shell.sample("red", "--seed", 4, "--out", "alone.png")
    assert Path("out", name).read_bytes() == alone.paths[0].read_bytes()


def test_two_plans_in_one_folder(shell: Shell) -> None:
    """What both ask for is drawn once; what one asks for stays when the other runs."""
    shell("sweep", plan(shell.model, "steps: 2\n", "[red]", "0-2"), "out")
    before = {name: Path("out", name).stat().st_mtime_ns for name in drawn()}
    second = shell("sweep", plan(shell.model, "steps: 2\n", "[red]", "2-3"), "out")
    assert str(second.paths[0]) == "2 of 2 pictures are in out; 1 drawn now"
    assert "2 pictures there are of another plan: they stay" in second.err
    assert len(drawn()) == 4
    assert all(Path("out", name).stat().st_mtime_ns == time for name, time in before.items())
    numbered = shell("sweep", plan(shell.model, "steps: 2\nlayout: geneval\n", "[red]"), "out")
    assert numbered.status == 2
    assert "has the layout flat" in numbered.err
    shell("sweep", plan(shell.model, "steps: 2\nlayout: geneval\n", "[red]"), "other")
    assert Path("other/00000/samples/0001.png").exists()
    clash = shell("sweep", plan(shell.model, "steps: 3\nlayout: geneval\n", "[red]"), "other")
    assert clash.status == 2
    assert "geneval numbers pictures by the plan" in clash.err


def test_another_model_is_refused(shell: Shell, broken_path: Path) -> None:
    path = plan(broken_path, "steps: 2\n", "[red]", "0")
    assert shell("sweep", path, "out").status == 0
    weights = next((broken_path / "unet").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    path = plan(broken_path, "steps: 2\n", "[red]", "0-1")
    refused = shell("sweep", path, "out")
    assert refused.status == 2
    assert f"was begun with another {broken_path}:" in refused.err
    assert list(Path("out/.sweep/claims").iterdir()) == []
    assert shell("sweep", path, "out", "--shard", "0/1").status == 2
    assert len(drawn()) == 1
    assert shell("sweep", path, "out", "--mix").status == 0
    assert len(drawn()) == 2


def test_what_fails_is_noted_tried_again_and_told(shell: Shell) -> None:
    Path("flaky.py").write_text(
        "from pathlib import Path\n"
        "def solver(denoise, x, interval, memory, draw):\n"
        "    tries = Path('tries')\n"
        "    tries.write_text(tries.read_text() + 'x' if tries.exists() else 'x')\n"
        "    if len(tries.read_text()) <= int(Path('fails').read_text()):\n"
        "        raise ZeroDivisionError('now and then')\n"
        "    prediction = denoise(x, interval.sigma)\n"
        "    return prediction.x0, prediction, memory\n"
    )
    path = plan(shell.model, "steps: 1\nmatrix: {scheduler: [flaky.py, euler]}\n", "[red]", "0")
    Path("fails").write_text("5")
    result = shell("sweep", path, "out")
    assert result.status == 1
    assert str(result.paths[0]) == "1 of 2 pictures are in out; 1 drawn now"
    assert Path("tries").read_text() == "xx"  # once, and once again
    (note,) = Path("out/.sweep/failed").iterdir()
    assert json.loads(note.read_text())["error"].endswith("ZeroDivisionError: now and then")
    assert "ZeroDivisionError: now and then" in result.err
    assert shell("sweep", path, "out", "--retry", 0).status == 1
    assert Path("tries").read_text() == "xxx"
    healed = shell("sweep", path, "out", "--retry", 3)
    assert healed.status == 0
    assert Path("tries").read_text() == "xxxxxx"
    assert list(Path("out/.sweep/failed").iterdir()) == []


def test_one_of_a_batch_that_fails_takes_no_other_along(shell: Shell) -> None:
    Path("picky.py").write_text(
        "def solver(denoise, x, interval, memory, draw):\n"
        "    prediction = denoise(x, interval.sigma)\n"
        "    if len(x) > 1:\n"
        "        raise MemoryError\n"
        "    return prediction.x0, prediction, memory\n"
    )
    path = plan(shell.model, "steps: 1\nscheduler: picky.py\n", "[red]", "0-3")
    assert shell("sweep", path, "out", "--batch", 4).status == 0
    assert len(drawn()) == 4


def worked(out: Path, path: Path, claims: Claims) -> Work:
    pictures = read_plan(str(path)).pictures
    folder = Folder(out, claims.worker)
    folder.open("flat", pictures)
    return Work(pictures, folder, claims, Here(Studio()))


def test_a_full_disk_ends_it_and_harms_nothing(shell: Shell, monkeypatch) -> None:
    """Writing fails half-way: nothing half-written is left, no cell is blamed, it goes on later."""
    path, fsync, left = plan(shell.model, "steps: 2\n", "[red]", "0-3"), os.fsync, [2]

    def full(number: int) -> None:
        if not left[0]:
            raise OSError(28, "No space left on device")
        left[0] -= 1
        fsync(number)

    with monkeypatch.context() as patch:
        patch.setattr(folders.os, "fsync", full)
        stopped = shell("sweep", path, "out")
    assert stopped.status == 2
    assert "No space left on device" in stopped.err
    assert len(drawn()) == 2
    assert list(Path("out/.sweep/failed").iterdir()) == []
    assert list(Path("out/.sweep/claims").iterdir()) == []
    assert not list(Path("out").glob(".sdcore-*"))
    assert shell("sweep", path, "out").status == 0
    assert len(drawn()) == 4


def test_a_name_that_is_taken_meanwhile_is_not_written_over(shell: Shell) -> None:
    path = plan(shell.model, "steps: 2\n", "[red]", "0")
    with Claims(Path("out/.sweep/claims").absolute()) as claims:
        work = worked(Path("out"), path, claims)
        (picture,) = work.pictures
        publish = work.folder.publish

        def late(picture: Picture, done) -> bool:
            target = Path("out") / picture.path
            target.write_bytes(b"first")
            return publish(picture, done)

        object.__setattr__(work.folder, "publish", late)
        tally = work.run()
    assert (tally.drawn, tally.lost) == (0, 1)
    assert (Path("out") / picture.path).read_bytes() == b"first"


def test_a_folder_that_cannot_be_written(shell: Shell) -> None:
    Path("out").write_text("")
    result = shell("sweep", plan(shell.model), "out")
    assert result.status == 2
    assert result.err.count("\n") == 1


def test_a_dry_run(shell: Shell) -> None:
    result = shell("sweep", plan(shell.model), "out", "--dry-run")
    lines = [str(line) for line in result.paths]
    assert lines[0] == "16 pictures, 0 there; 16 to draw, 80 NFE"
    assert lines[1].startswith("about ")
    assert not Path("out").exists()


def test_a_fixed_shard_leaves_the_rest(shell: Shell) -> None:
    path = plan(shell.model, "steps: 2\n", "[red]", "0-4")
    one = shell("sweep", path, "out", "--shard", "0/2")
    assert (one.status, len(drawn())) == (0, 3)
    assert shell("sweep", path, "out", "--shard", "1/2").status == 0
    assert len(drawn()) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_processes_that_are_killed_lose_nothing_and_double_nothing(shell: Shell) -> None:
    path = plan(shell.model, MATRIX, "[red, blue]", "0-3")
    hit = killed(path, Path("out"), kills=4, longest=0.1)
    facts = counted(path, Path("out"))
    assert hit >= 1
    assert facts["pictures"] == 32
    assert (facts["lost"], facts["doubled"], facts["torn"], facts["left behind"]) == (0, 0, 0, 0)


def test_a_cell_of_an_old_failure_is_open_again(tmp_path: Path) -> None:
    cell = Cell("a", 0, {})
    picture = Picture(cell, "a.png")
    folder = Folder(tmp_path, "me")
    folder.open("flat", [picture])
    folder.failed(picture, "why")
    folder.failed(replace(picture), "again")
    assert folder.attempts(picture) == 2
    assert folder.failure(picture)["error"] == "again"
    folder.forgive(picture)
    assert folder.attempts(picture) == 0
    (tmp_path / ".sweep" / "failed").rmdir()
    with pytest.raises(CannotWrite):
        folder.failed(picture, "why")


@pytest.mark.slow
def test_a_worker_and_a_node_of_ray_are_lost(shell: Shell) -> None:
    pytest.importorskip("ray")
    path = plan(shell.model, MATRIX, "[red, blue]", "0-9")
    Path("out").mkdir()
    happened = on_ray(path.absolute(), Path("out").absolute())
    assert happened.count("was killed") == 2
    facts = counted(path, Path("out"))
    assert (facts["lost"], facts["doubled"], facts["torn"]) == (0, 0, 0)


def test_without_ray_a_line_says_what_is_missing(shell: Shell, monkeypatch) -> None:
    from sdcore.experiments.sweep import ray_pool

    monkeypatch.setattr(ray_pool.importlib.util, "find_spec", lambda name: None)
    result = shell("sweep", plan(shell.model), "out", "--ray", "auto")
    assert result.status == 2
    assert "pip install 'sdcore[ray]'" in result.err
