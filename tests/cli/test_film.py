"""`sdcore sample --film`, as a user types it."""

from pathlib import Path

from PIL import Image

from sdcore.images import read_settings
from tests.cli.shell import Shell, pixels

FILM = ("a red house", "blue", "--seed", "1-2", "--film", 3)


def test_a_film(shell: Shell, tmp_path: Path) -> None:
    done = shell.sample(*FILM)
    *frames, film = done.paths
    assert (done.status, [path.name for path in frames]) == (
        *(0, ["0001.png", "0002.png", "0003.png"]),
    ), done.err
    assert film == frames[0].parent.with_suffix(".webp")
    with Image.open(film) as moving:
        assert moving.n_frames == 3
    ends = [shell.sample(word, "--seed", seed) for word, seed in (("a red house", 1), ("blue", 2))]
    assert [pixels(each.paths[0]) for each in ends] == [pixels(frames[0]), pixels(frames[2])]
    middle = read_settings(frames[1])
    assert (middle.prompt, middle.seed) == ("a red house", 1)
    assert (middle.towards, middle.variation) == ("blue:0.5", "2:0.5")
    again = shell("rerun", frames[1], "--device", "cpu")
    assert pixels(again.paths[0]) == pixels(frames[1])
    other = shell.sample(*FILM, "--film-rate", 24)
    assert {path.parent.name for path in other.paths[:3]} == {"film-2"}
    assert other.paths[3].name == "film-2.webp"


def test_what_the_line_says(shell: Shell) -> None:
    assert "the film jumps" in shell.sample(*FILM, "--scheduler", "euler_a").err
    assert (
        "jumps"
        not in shell.sample("a red house", "blue", "--film", 2, "--scheduler", "euler_a").err
    )


def test_what_is_no_film(shell: Shell, tmp_path: Path) -> None:
    for args, why in (
        (("a red house", "--seed", 1, "--film", 3), "two prompts, or two seeds"),
        ((*FILM, "--film-rate", 0), "frames a second"),
        ((*FILM, "--cfg", 3, "--cfg", 5), "give each option once"),
        ((*FILM, "--variation", "3:0.1"), "--variation is what a film changes"),
        ((*FILM, "--out", "x.png"), "give a folder"),
    ):
        done = shell.sample(*args)
        assert (done.status, done.err.count("\n")) == (2, 1)
        assert why in done.err
