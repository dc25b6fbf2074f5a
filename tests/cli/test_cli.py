"""The commands as a user types them: what they write, print, and refuse."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from sdcore.cli.commands import cli
from sdcore.cli.options import choose_seeds, parse_seeds
from sdcore.errors import InputError
from sdcore.images import read_settings, save_png
from sdcore.settings import Settings
from tests.cli.shell import Shell, pixels
from tests.plain_settings import PLAIN


def test_one_prompt(shell: Shell) -> None:
    result = shell.sample("A red house, at sunset!", "--seed", 0)
    assert result.status == 0
    assert result.paths == [Path("out/a-red-house-at-sunset-0.png")]
    assert "1 picture, 2 steps, 4 NFE each" in result.err
    settings = read_settings(result.paths[0])
    assert (settings.prompt, settings.seed) == ("A red house, at sunset!", 0)
    assert (settings.steps, settings.cfg, settings.device) == (2, 7.5, "cpu")


def test_prompts_times_seeds(shell: Shell) -> None:
    result = shell.sample("red", "blue", "--seed", "0-1,7", "--out", "a/b")
    names = [f"{word}-{seed}.png" for word in ("red", "blue") for seed in (0, 1, 7)]
    assert [p.name for p in result.paths] == names
    assert {p.parent for p in result.paths} == {Path("a/b")}
    assert len({pixels(p) for p in result.paths}) == 6


def test_a_drawn_seed_is_printed(shell: Shell) -> None:
    result = shell.sample("red", "--count", 2)
    first = read_settings(result.paths[0]).seed
    assert f"seed {first}-{first + 1}\n" in result.err
    assert read_settings(result.paths[1]).seed == first + 1


def test_a_file_is_overwritten_and_a_folder_never(shell: Shell) -> None:
    for _ in range(2):
        assert shell.sample("red", "--seed", 0, "--out", "a.png").paths == [Path("a.png")]
    first, second = (shell.sample("red", "--seed", 0).paths[0] for _ in range(2))
    assert (first.name, second.name) == ("red-0.png", "red-0-2.png")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_draws_the_same_files(shell: Shell, batch: int) -> None:
    alone = shell.sample("red", "--seed", 2, "--out", "alone.png").paths[0]
    many = shell.sample("red", "--seed", "0-4", "--batch", batch).paths
    assert many[2].read_bytes() == alone.read_bytes()


def test_prompts_from_a_file_and_stdin(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("p.txt").write_text("\ufeffred house\n\n  blue boat \n", encoding="utf-8")
    result = shell.sample("first", "--prompts", "p.txt", "--seed", 0)
    assert [p.stem for p in result.paths] == ["first-0", "red-house-0", "blue-boat-0"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"green ball\n")))
    assert shell.sample("--prompts", "-", "--seed", 0).paths[0].stem == "green-ball-0"


def test_sheets(shell: Shell) -> None:
    result = shell.sample("red", "blue", "--seed", "0-2", "--sheet", "--steps-sheet")
    assert [p.name for p in result.paths[-2:]] == ["sheet.png", "steps.png"]
    assert len(result.paths) == 8
    for path in result.paths[-2:]:
        with Image.open(path) as sheet:
            assert sheet.width > 64
            assert sheet.height > 64
    named = shell.sample("red", "--seed", 0, "--out", "x.png", "--sheet").paths
    assert named == [Path("x.png"), Path("x-sheet.png")]


@pytest.mark.parametrize("scheduler", ["ddim", "Euler a", "DPM++ 2M Karras", "heun"])
def test_rerun_is_equal_to_the_bit(shell: Shell, scheduler: str) -> None:
    options = ["--scheduler", scheduler, "--negative", "boat", "--cfg", 3, "--width", 40]
    drawn = shell.sample("red house", "--seed", "3-5", "--batch", 3, *options).paths[1]
    again = shell("rerun", drawn, "--out", "again.png")
    assert again.status == 0
    assert again.paths[0].read_bytes() == drawn.read_bytes()


def test_rerun_keeps_the_noise(shell: Shell) -> None:
    drawn = shell.sample("red", "--seed", 5, "--scheduler", "euler_a", "--noise", "brownian")
    again = shell("rerun", drawn.paths[0], "--out", "again.png").paths[0]
    assert read_settings(again).noise == "brownian"
    assert again.read_bytes() == drawn.paths[0].read_bytes()


def test_rerun_with_other_options(shell: Shell) -> None:
    drawn = shell.sample("red", "--seed", 0, "--scheduler", "euler_a", "--cfg", 3).paths[0]
    again = shell("rerun", drawn, "--scheduler", "dpmpp_2m", "--cfg", 0, "--seed", 9).paths[0]
    settings = read_settings(again)
    assert (settings.scheduler, settings.eta, settings.cfg) == ("dpmpp_2m", None, 0.0)
    assert (settings.seed, settings.prompt, settings.steps) == (9, "red", 2)
    assert read_settings(shell("rerun", drawn, "--prompt", "blue").paths[0]).prompt == "blue"
    assert len(shell("rerun", drawn, "--count", 3).paths) == 3


def test_a_solver_of_ones_own(shell: Shell) -> None:
    Path("mine.py").write_text(
        "def mine(denoise, x, interval, memory, draw):\n"
        "    p = denoise(x, interval.sigma)\n"
        "    return p.x0 + p.eps * interval.sigma_next, p, memory\n"
    )
    mine = shell.sample("red", "--seed", 0, "--scheduler", "mine.py").paths[0]
    assert read_settings(mine).scheduler == "mine.py"
    again = shell("rerun", mine, "--scheduler", "mine.py").paths[0]
    assert again.read_bytes() == mine.read_bytes()


def test_a_picture_runs_no_code(shell: Shell) -> None:
    drawn = shell.sample("red", "--seed", 0, "--out", "a.png").paths[0]
    settings = replace(read_settings(drawn), scheduler="evil.py")
    with Image.open(drawn) as picture:
        save_png(picture, drawn, settings)
    Path("evil.py").write_text("open('ran', 'w').close()\nsolver = None\n")
    refused = shell("rerun", drawn, "--out", "b.png")
    assert refused.status == 2
    assert "names a file of code, 'evil.py'" in refused.err
    assert "--scheduler evil.py" in refused.err
    assert not Path("ran").exists()
    assert shell("rerun", drawn, "--scheduler", "ddim", "--out", "b.png").status == 0
    assert not Path("ran").exists()
    shell("rerun", drawn, "--scheduler", "evil.py", "--out", "c.png")
    assert Path("ran").exists()


def test_a_cut_prompt_is_quoted(shell: Shell) -> None:
    result = shell.sample("red " * 75 + "Boat at Night", "--seed", 0)
    assert result.status == 0
    assert "this was cut: 'Boat at Night'" in result.err


GIVEN = ["red", "--seed", "0"]
BAD = {
    "no prompt": ([], "no prompt"),
    "model": ([*GIVEN, "--model", "picturbok"], "unknown model"),
    "model path": ([*GIVEN, "--model", "./nowhere"], "no such file or folder"),
    "hub id": ([*GIVEN, "--model", "some/model"], "HF_HUB_OFFLINE"),
    "scheduler": ([*GIVEN, "--scheduler", "eulr"], "euler"),
    "spacing": ([*GIVEN, "--spacing", "karas"], "karras"),
    "width": ([*GIVEN, "--width", "30"], "nearest are 24 and 32"),
    "huge": ([*GIVEN, "--height", "80000"], "out of range"),
    "no size": ([*GIVEN, "--height", "0"], "out of range"),
    "steps": ([*GIVEN, "--steps", "0"], "steps"),
    "half a step": ([*GIVEN, "--steps", "1.5"], "--steps"),
    "too many steps": ([*GIVEN, "--steps", "5000"], "steps"),
    "cfg": ([*GIVEN, "--cfg", "nan"], "cfg"),
    "cfg text": ([*GIVEN, "--cfg", "much"], "--cfg"),
    "eta": ([*GIVEN, "--eta", "inf"], "eta"),
    "eta for none": ([*GIVEN, "--scheduler", "heun", "--eta", "1"], "eta"),
    "seeds": (["red", "--seed", "1,,2"], "seeds"),
    "seeds backwards": (["red", "--seed", "3-1"], "backwards"),
    "too many seeds": (["red", "--seed", "0-99999999"], "more than"),
    "huge seed": (["red", "--seed", str(2**64)], "out of range"),
    "count": (["red", "--count", "0"], "--count"),
    "seeds and count": (["red", "--seed", "1,2", "--count", "3"], "--count"),
    "batch": ([*GIVEN, "--batch", "0"], "batch"),
    "prompt file": (["--prompts", "gone.txt"], "cannot read prompts from gone.txt"),
    "bytes for a prompt": (["\udcff", "--seed", "0"], "not UTF-8"),
    "prompt folder": (["--prompts", "."], "cannot read prompts"),
    "binary prompts": (["--prompts", "bytes.bin"], "UTF-8"),
    "empty prompts": (["--prompts", "empty.txt"], "no prompts"),
    "one file": (["red", "--seed", "0,1", "--out", "a.png"], "one file for 2 pictures"),
    "gif": ([*GIVEN, "--out", "a.gif"], "written as PNG, JPEG or WebP"),
    "out under a file": ([*GIVEN, "--out", "empty.txt/x"], "cannot write"),
    "out is a file": ([*GIVEN, "--out", "empty.txt"], "cannot write"),
    "device": ([*GIVEN, "--device", "cuda:99"], "not there"),
    "strange device": ([*GIVEN, "--device", "gpu"], "unknown device"),
    "dtype": ([*GIVEN, "--dtype", "int8"], "unknown dtype"),
    "option": ([*GIVEN, "--stpes", "3"], "--steps"),
}


@pytest.mark.parametrize(("args", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(shell: Shell, args: list[str], message: str) -> None:
    Path("empty.txt").write_text("")
    Path("bytes.bin").write_bytes(b"\xff\xfe\x00")
    before = sorted(Path().rglob("*"))
    model = [] if "--model" in args else ["--model", str(shell.model)]
    result = shell("sample", *args, *model)
    assert result.status == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert result.err.startswith("sdcore: ")
    assert result.paths == []
    assert sorted(Path().rglob("*")) == before


def test_a_broken_model_is_one_line(shell: Shell, broken_path: Path) -> None:
    unet = broken_path / "unet" / "diffusion_pytorch_model.safetensors"
    unet.write_bytes(unet.read_bytes()[:-100])
    result = shell("sample", "red", "--seed", "0", "--model", broken_path)
    assert (result.status, result.err.count("\n")) == (2, 1)
    assert "truncated" in result.err
    assert not list(Path().iterdir())


def test_rerun_refuses_what_holds_no_settings(shell: Shell) -> None:
    Image.new("RGB", (8, 8)).save("plain.png")
    for name, message in (("plain.png", "no sdcore settings"), ("gone.png", "is missing")):
        result = shell("rerun", name)
        assert (result.status, result.err.count("\n")) == (2, 1)
        assert message in result.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(shell: Shell) -> None:
    Path("locked").mkdir(mode=0o500)
    result = shell.sample("red", "--seed", 0, "--out", "locked/x")
    assert (result.status, result.err.count("\n")) == (2, 1)


def test_seeds() -> None:
    assert parse_seeds(" 5 , 0-3") == [5, 0, 1, 2, 3]
    assert parse_seeds("-3") == [-3]
    assert choose_seeds(["0"], None) == [0]
    assert choose_seeds(["7"], 3) == [7, 8, 9]
    assert choose_seeds([], None, drawn=0) == [0]
    assert choose_seeds(["1-2", "9"], None) == [1, 2, 9]
    assert len({choose_seeds(["-1"], None)[0] for _ in range(3)}) == 3
    for bad in ("", "a", "1-", "0x3", "1.5", "--2"):
        with pytest.raises(InputError):
            parse_seeds(bad)


def test_help_names_every_option() -> None:
    for command in ("sample", "rerun"):
        text = CliRunner().invoke(cli, [command, "--help"]).output
        for option in ("--negative", "--steps-sheet", "--eta", "--batch", "--dtype"):
            assert option in text


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from sdcore.cli import main\n"
        "try: main(['sample', '--help'])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_grammar_and_clip_skip_are_in_the_picture(shell: Shell) -> None:
    words = ["red [house:boat:0.5]" + " blue" * 80, "--grammar", "a1111", "--clip-skip", 2]
    first = shell.sample(*words, "--out", "a.png")
    assert "read in 2 chunks" in first.err
    settings = read_settings(first.paths[0])
    assert (settings.grammar, settings.clip_skip) == ("a1111", 2)
    again = shell("rerun", "a.png", "--out", "b.png")
    assert pixels(again.paths[0]) == pixels(first.paths[0])
    plain = shell("rerun", "a.png", "--grammar", "plain", "--out", "c.png")
    assert "this was cut" in plain.err
    assert pixels(plain.paths[0]) != pixels(first.paths[0])
    refused = shell.sample("red <lora:style:0.8>", "--grammar", "a1111")
    assert (refused.status, "--lora" in refused.err) == (2, True)


def test_a_picture_from_before_a_setting_was_there() -> None:
    old = json.loads(PLAIN.to_json())
    del old["grammar"], old["clip_skip"]
    assert Settings.from_json(json.dumps(old)) == PLAIN


def test_a_lora_and_a_word_are_in_the_picture_and_its_rerun(shell: Shell) -> None:
    down, up = torch.arange(16.0)[None], torch.arange(16.0)[:, None]
    key = "lora_te_text_model_encoder_layers_1_self_attn_q_proj"
    save_file({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, "a.safetensors")
    plain = shell.sample("red boat", "--seed", 1, "--out", "plain.png")
    first = shell.sample("red boat", "--seed", 1, "--lora", "a.safetensors:0.5", "--out", "a.png")
    assert read_settings(first.paths[0]).loras == ("a.safetensors:0.5",)
    assert pixels(first.paths[0]) != pixels(plain.paths[0])
    again = shell("rerun", "a.png", "--out", "b.png")
    assert pixels(again.paths[0]) == pixels(first.paths[0])
    without = shell("rerun", "a.png", "--lora", "a.safetensors:0", "--out", "c.png")
    assert pixels(without.paths[0]) == pixels(plain.paths[0])
    save_file({"<cat>": torch.arange(16.0)}, "cat.safetensors")
    word = shell.sample("a <cat>", "--seed", 1, "--embedding", "cat.safetensors", "--out", "d.png")
    assert read_settings(word.paths[0]).embeddings == ("cat.safetensors:<cat>",)
    assert pixels(shell("rerun", "d.png", "--out", "e.png").paths[0]) == pixels(word.paths[0])
    missing = shell.sample("red", "--lora", "nowhere.safetensors:1")
    assert (missing.status, missing.err) == (
        2,
        "sdcore: no adapter at nowhere.safetensors: there is no such file\n",
    )


D = "9" * 5000


@pytest.mark.parametrize(
    "arguments",
    [
        ("red", "--seed", D),
        ("red", "--seed", f"0-{D}"),
        ("red", "--original-size", f"{D}x1"),
        ("red", "--crop", f"{D},1"),
        ("red", "--cfg", "1e300"),
        ("red", "--sigmas", f"{D},0"),
        ("red", "--sigmas", "1e308,1,0", "--scheduler", "dpmpp_sde"),
        (f"a [red:{D}] house", "--grammar", "a1111"),
        (f"a (red:{D}) house", "--grammar", "a1111"),
        ("red", "--spacing", f"karras:rho={D}"),
    ],
)
def test_numbers_of_5000_digits_are_one_line(shell: Shell, arguments: tuple[str, ...]) -> None:
    given = [] if "--sigmas" in arguments else ["--steps", 2]
    result = shell("sample", *arguments, "--model", shell.model, *given, "--device", "cpu")
    assert result.status == 2
    assert result.err.startswith("sdcore: ")
    assert len(result.err) < 2000
