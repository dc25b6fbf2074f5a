"""`sdcore train`: spellings, a configuration, and what goes wrong in one line."""

from pathlib import Path

import pytest

from tests.cli.shell import Shell
from tests.training.conftest import picture

QUICK = ["--rank", 2, "--grid", 1, "--draw-steps", 1, "--device", "cpu"]


@pytest.fixture
def pictures(shell: Shell) -> Path:
    folder = Path("pictures")
    folder.mkdir()
    for i, words in enumerate(("a red house", "a boat")):
        picture(i).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(words)
    return folder


def test_the_usual_spellings(shell: Shell, pictures: Path) -> None:
    got = shell("train", "--data_dir", pictures, "--epochs", 2, "--learning_rate", "1e-4",
                "--model", shell.model, "--train_batch_size", 2, *QUICK)  # fmt: skip
    assert got.status == 0, got.err
    assert got.paths == [Path("trained/pictures/pictures.safetensors")]
    assert "2 pictures, 2 looks an epoch, 2 captions, 0 passed over" in got.err
    assert "step 2 of 2" in got.err
    assert '"lr": 0.0001' in Path("trained/pictures/plan.json").read_text()
    assert Path("trained/pictures/report.html").is_file()
    again = shell("sample", "a boat", "--model", shell.model, "--lora", got.paths[0], "--steps", 1)
    assert again.status == 0, again.err


def test_a_configuration(shell: Shell, pictures: Path) -> None:
    """YAML takes 1e-4 for a text; what is typed goes before what the file says."""
    Path("t.yaml").write_text(
        f"data_dir: {pictures}\nmodel: {shell.model}\nlearning_rate: 1e-4\nsteps: 7\nrank: 2\n"
        "flip: true\nprompt: [a boat, a house]\ndevice: cpu\ngrid: 1\ndraw-steps: 1\nout: here\n"
    )
    got = shell("train", "--config", "t.yaml", "--steps", 1)
    assert got.status == 0, got.err
    plan = Path("here/plan.json").read_text()
    for said in ('"lr": 0.0001', '"steps": 1', '"rank": 2', '"flip": true', '"a boat"'):
        assert said in plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: fast", "t.yaml, line 1: lr: 'fast' is not a valid float"),
        ("rank: 7.9", "t.yaml, line 1: rank: '7.9' is not a valid integer"),
        ("rank: true", "t.yaml, line 1: rank: 'true' is not a valid integer"),
        ("lr: 1\nflip: 3", "t.yaml, line 2: flip is true or false, not '3'"),
        ("learning-rat: 1", "t.yaml, line 1: unknown option 'learning-rat': did you mean learning"),
        ("lr: 1\nlr: 2", "t.yaml, line 2: lr stands in line 1 too"),
        ("rank: [1, 2]", "t.yaml, line 1: rank takes one value, not 2"),
        ("rank: {a: 1}", "t.yaml, line 1: rank takes a value"),
        ("- lr", "t.yaml"),
        ("a: [", "t.yaml"),
    ],
)
def test_a_configuration_that_says_nothing(shell: Shell, text: str, message: str) -> None:
    Path("t.yaml").write_text(text)
    got = shell("train", "x", "--config", "t.yaml")
    assert got.status == 2
    assert message in got.err
    assert len(got.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "which pictures? sdcore train DIR"),
        (["none"], "no pictures at none: there is no such folder"),
        (["pictures", "--method", "lorra"], "unknown method 'lorra': did you mean lora"),
        (["pictures", "--method", "embedding"], "which word is learned? Give --word"),
        (["pictures", "--method", "dreambooth"], "dreambooth needs --caption"),
        (["pictures", "--rank", 0], "rank is a number of at least 1, not 0"),
        (["pictures", "--dropout", 1], "dropout is a share, 0 to 1, not 1.0"),
        (["pictures", "--steps", 1, "--epochs", 1], "steps and epochs both say how long"),
        (["pictures", "--zero-snr"], "--zero-snr is for v_prediction only"),
        (["pictures", "--lr", "nan"], "lr is a number of at least 0, not nan"),
        (["pictures", "--resolution", 0], "resolution 0 is out of range: 8 to 8192 pixels"),
        (["pictures", "--resolution", 9999], "resolution 9999 is out of range"),
        (["pictures", "--seed", 2**64], "seed is a number of at most 9223372036854775807"),
        (["pictures", "--method", "embedding", "--word", " "], "which word is learned? Give"),
        (["pictures", "--method", "embedding", "--word", "(x)"], "'(x)' is none of a prompt"),
        (["pictures", "--dtype", "float16"], "in float16 small gradients become 0"),
    ],
)
def test_what_goes_wrong(shell: Shell, pictures: Path, options: list[object], message: str) -> None:
    got = shell("train", *options, "--model", shell.model, "--device", "cpu")
    assert got.status == 2
    assert message in got.err
    assert len(got.err.splitlines()) == 1
    assert not Path("trained").exists()


def test_help(shell: Shell) -> None:
    got = shell("train", "--help")
    assert got.status == 0
    for said in ("What is trained:", "--rank", "[default: 16]", "--learning-rate", "torchrun"):
        assert said in "\n".join(map(str, got.paths))
