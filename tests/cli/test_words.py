"""Spellings, lists of prompts with options of their own, options given several times."""

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from sdcore.cli.commands import cli
from sdcore.cli.prompt_lists import from_line
from sdcore.errors import InputError
from sdcore.images import KEY, read_settings
from sdcore.picture_options import OPTIONS
from tests.cli.shell import Shell, pixels


def test_spellings_of_other_tools_are_ours(shell: Shell) -> None:
    ours = ["--negative", "boat", "--scheduler", "euler", "--cfg", 3, "--width", 40, "--height", 24]
    theirs = ["--negative_prompt", "boat", "--sampler", "euler", "--guidance_scale", 3, "-W", 40]
    wanted = shell.sample("red", *ours, "--seed", 1, "--dtype", "float32", "--out", "a.png")
    same = shell(
        "sample", "--prompt", "red", *theirs, "-H", 24, "-S", 1, "-n", 1, "--precision", "full",
        "--num_inference_steps", 2, "--model", shell.model, "--device", "cpu", "--out", "b.png",
    )  # fmt: skip
    assert same.status == 0, same.err
    assert read_settings(same.paths[0]) == read_settings(wanted.paths[0])
    auto = shell.sample("red", *ours, "--seed", 1, "--precision", "autocast", "--out", "c.png")
    assert pixels(auto.paths[0]) == pixels(wanted.paths[0])


def test_each_other_spelling_stands_once_in_the_help() -> None:
    for command in ("sample", "rerun"):
        text = CliRunner().invoke(cli, [command, "--help"]).output
        for option in OPTIONS.values():
            for flag in option.also:
                assert text.replace(",", " ").split().count(flag) == 1, flag
        assert max(map(len, text.splitlines())) <= 80


def test_seed_minus_one_is_drawn(shell: Shell) -> None:
    first, second = (shell.sample("red", "--seed", -1) for _ in range(2))
    seeds = [read_settings(result.paths[0]).seed for result in (first, second)]
    assert seeds[0] != seeds[1]
    assert f"seed {seeds[0]}\n" in first.err
    assert min(seeds) >= 0
    Path("list.txt").write_text("red --seed 5\nblue\ngreen --seed -1\n")
    listed = shell.sample("--prompts", "list.txt")
    drawn = sorted(read_settings(path).seed for path in listed.paths[1:])
    assert f"seeds {drawn[0]}, {drawn[1]}\n" in listed.err


def test_words_without_quotes_are_told(shell: Shell) -> None:
    told = shell.sample("red", "house", "--seed", 0)
    assert '2 prompts of one word each; a sentence wants quotes: sdcore sample "red house"' in (
        told.err
    )
    assert "quotes" not in shell.sample("red", "blue boat", "--seed", 0).err
    dashed = shell.sample("-a red house")
    assert (dashed.status, dashed.err.count("\n")) == (2, 1)
    assert "stands behind --: -- '-a red house'" in dashed.err
    more = ["--steps", 2, "--model", shell.model]
    assert len(shell("sample", "--seed", 0, *more, "--", "-a red house").paths) == 1


def test_the_settings_can_be_left_out(shell: Shell) -> None:
    path = shell.sample("red", "--seed", 0, "--no-settings").paths[0]
    with Image.open(path) as picture:
        picture.load()
        assert KEY not in picture.text  # type: ignore[attr-defined]
        assert "Steps: 2" in picture.text["parameters"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "line",
    [
        'a red house --negative "blue, boat" --seed 42 --steps 3',
        '"a red house" --negative "blue, boat" -S42 -s 3',
        '--prompt "a red house" --negative_prompt "blue, boat" --seed 42 --steps 3',
        '{"prompt": "a red house", "negative_prompt": "blue, boat", "seed": 42, "steps": 3}',
    ],
)
def test_a_line_has_options_of_its_own(shell: Shell, line: str) -> None:
    more = ["--model", shell.model, "--device", "cpu"]
    options = ["--negative", "blue, boat", "--seed", 42, "--steps", 3]
    wanted = shell("sample", "a red house", *options, *more, "--out", "wanted.png").paths[0]
    Path("list.txt").write_text(f"# mine\n\n// and theirs\n{line}\nplain words\n")
    drawn = shell("sample", "--prompts", "list.txt", "--seed", 7, "--steps", 2, *more)
    assert drawn.status == 0, drawn.err
    first, second = map(read_settings, drawn.paths)
    assert pixels(drawn.paths[0]) == pixels(wanted)
    assert first == read_settings(wanted)
    assert (second.prompt, second.seed, second.steps) == ("plain words", 7, 2)
    assert second.negative == ""


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a red house --ar 16:9", "--ar"),
        ("a red house --out there.png", "--out"),
        ("a red house --steps many", "many"),
        ("a red house --negative 'it", "no closing quotation"),
        ("--prompt a red house", "red"),
        ("--seed 7", "no prompt"),
        ("Steps: 20, Sampler: Euler a, Seed: 1", "sdcore rerun"),
        ('{"prompt": "red", "seed": {"a": 1}}', "seed"),
        ('{"prompt": "red",', "JSON"),
    ],
)
def test_foreign_lines_are_refused_by_their_number(shell: Shell, line: str, told: str) -> None:
    Path("list.txt").write_text(f"a red house\n{line}\n")
    result = shell.sample("--prompts", "list.txt", "--seed", 0)
    assert (result.status, result.paths, result.err.count("\n")) == (2, [], 1)
    assert result.err.startswith("sdcore: list.txt, line 2: ")
    assert told in result.err
    assert not Path("out").exists()


STRANGE = [
    ("--scheduler evil.py", "a file of code, 'evil.py'"),
    ("--sampler cfg:x=evil.py", "a file of code"),
    ("--guidance EVIL.PY:Mine", "a file of code"),
    ("--vae somebody/tiny", "somebody/tiny, which is not here"),
    ("--revision other", "somebody/theirs, which is not here"),
    (r"--image '\\host\x.png'", "another machine"),
]


@pytest.mark.parametrize(("options", "told"), STRANGE)
def test_a_list_runs_no_code_and_asks_no_hub(shell: Shell, options: str, told: str) -> None:
    Path("evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    name, value = shlex.split(options)
    model = ["--model", "somebody/theirs"] if name == "--revision" else ["--model", shell.model]
    for line in (f"red {options}", json.dumps({"prompt": "red", name[2:]: value})):
        Path("list.txt").write_text(line)
        result = shell("sample", "--prompts", "list.txt", "--seed", 0, *model)
        assert (result.status, result.paths, result.err.count("\n")) == (2, [], 1)
        assert told in result.err
        assert "the list of prompts names" in result.err
    assert not Path("ran").exists()


def test_the_user_allows_a_list_what_the_command_line_names_too(shell: Shell) -> None:
    Path("mine.py").write_text("from sdcore.schedulers.solvers.euler import euler as mine\n")
    Path("list.txt").write_text("red --scheduler mine.py\nblue --scheduler euler\n")
    drawn = shell.sample("--prompts", "list.txt", "--seed", 0, "--scheduler", "mine.py")
    assert drawn.status == 0, drawn.err
    assert len(drawn.paths) == 2


def test_a_path_in_a_file_of_wildcards_is_not_the_users(shell: Shell) -> None:
    Path("wildcards").mkdir()
    Path("wildcards/style.txt").write_text("<lora:./there:1>\n")
    Path("there").touch()
    words = ["--grammar", "a1111", "--wildcards", "one", "--wildcard-dir", "wildcards"]
    refused = shell.sample("red __style__", "--seed", 0, *words)
    assert refused.status == 2
    assert "the adapter of <lora:./there> is not here" in refused.err
    typed = shell.sample("{red|red} <lora:./there:1>", "--seed", 0, *words)
    assert "is not here" not in typed.err  # looked into, and found to be no adapter
    assert typed.status == 2
    far = shell.sample("red <lora://host/there:1>", "--seed", 0, *words)
    assert "on another machine" in far.err


def test_words_of_a_line_stay_as_they_are() -> None:
    for words in ("a dog's house, 5'2\"", "a - b -- c", "{red|blue} house", '"a" and "b"'):
        assert [each.prompt for each in from_line(words)] == [words]
    assert from_line('"a \\"red\\" house"')[0].prompt == 'a "red" house'
    assert from_line(json.dumps({"prompt": ["--a", "b"]}))[0].prompt == "--a"
    with pytest.raises(InputError):
        from_line('{"seed": 1}')


def test_options_given_several_times_are_a_product(shell: Shell) -> None:
    axes = [(scheduler, steps) for scheduler in ("euler", "dpmpp_2m") for steps in (2, 3)]
    more = ["--seed", 1, "--model", shell.model, "--device", "cpu"]
    alone = []
    for s, n in axes:
        one = ["--scheduler", s, "--steps", n, "--out", f"{s}{n}.png"]
        alone += shell("sample", "red", *one, *more).paths
    grid = shell(
        "sample", "red", "--scheduler", "euler", "--scheduler", "dpmpp_2m", "--steps", 2,
        "--steps", 3, *more, "--sheet", "--steps-sheet", "--out", "grid",
    )  # fmt: skip
    assert grid.status == 0, grid.err
    assert [path.name for path in grid.paths] == [
        "red-1-euler-2.png", "red-1-euler-3.png", "red-1-dpmpp_2m-2.png", "red-1-dpmpp_2m-3.png",
        "sheet.png", "steps.png",
    ]  # fmt: skip
    assert [path.read_bytes() for path in grid.paths[:4]] == [path.read_bytes() for path in alone]
    assert "4 pictures, 2 to 3 steps, 4 to 6 NFE each" in grid.err
    again = shell("rerun", alone[0], "--cfg", 3, "--cfg", 5, "--batch", 2)
    assert [read_settings(path).cfg for path in again.paths] == [3, 5]
    refused = shell.sample("red", "--scheduler", "euler", "--scheduler", "oiler")
    assert (refused.status, refused.paths) == (2, [])


def test_a_product_of_models_and_sizes(shell: Shell) -> None:
    grid = shell.sample(
        "red", "blue", "--seed", 1, "--width", 32, "--width", 40, "--memory", "fast",
        "--memory", "low", "--sheet",
    )  # fmt: skip
    assert grid.status == 0, grid.err
    told = [(s.prompt, s.width, s.memory) for s in map(read_settings, grid.paths[:-1])]
    assert sorted(told) == sorted(
        (prompt, width, memory)
        for prompt in ("red", "blue")
        for width in (32, 40)
        for memory in ("fast", "low")
    )


def test_one_file_takes_the_last_of_several_values(shell: Shell) -> None:
    twice = shell.sample("red", "--steps", 1, "--steps", 2, "--seed", 1, "--out", "twice.png")
    assert "steps: the last value counts" in twice.err
    once = shell.sample("red", "--steps", 2, "--seed", 1, "--out", "once.png")
    assert pixels(twice.paths[0]) == pixels(once.paths[0])
