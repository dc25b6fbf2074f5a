"""Paths that cannot be are one line, whoever asks."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sdcore.adapters.embeddings import open_embedding
from sdcore.adapters.files import find_adapter
from sdcore.checkpoints.find import find_model, is_here
from sdcore.cli.output import Output
from sdcore.cli.prompt_lists import read_prompts
from sdcore.config_file import user_file
from sdcore.errors import InputError
from sdcore.experiments.comparison import cache_folder
from sdcore.images import open_picture
from sdcore.paths import home, path_of
from sdcore.user_file import load_object
from sdcore.writing import check_target

OPENERS: list[Callable[[str], object]] = [
    path_of,
    find_model,
    is_here,
    find_adapter,
    open_embedding,
    open_picture,
    lambda path: check_target(Path(path)),
    lambda path: load_object(path, ["solver"], "solver"),
    lambda path: Output(path, 1),
    lambda path: read_prompts([], path),
]
CANNOT_BE = ["~nobody-is-called-so/x", "x" * 300, "folder/" + "x" * 300, "zero\0byte"]


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("path", CANNOT_BE)
def test_a_path_that_cannot_be(opener: Callable[[str], object], path: str) -> None:
    with pytest.raises(InputError) as caught:
        opener(path)
    assert len(str(caught.value)) < 1700


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0 or sys.platform == "win32",
    reason="root may look everywhere",
)
def test_a_closed_folder(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    for opener in OPENERS:
        with pytest.raises(InputError, match="ermission denied"):
            opener(str(tmp_path / "closed" / "x"))


def test_what_is_not_there_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_of(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    (tmp_path / "file").touch()
    assert path_of(tmp_path / "file" / "b") == tmp_path / "file" / "b"
    assert path_of("~") == Path.home()


@pytest.mark.skipif(os.name != "posix", reason="of users who have a number and no name")
def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    def nobody(number: int) -> None:
        raise KeyError(number)

    assert home() == Path.home()
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert home() == Path("/")
    assert user_file({}).is_relative_to("/")
    assert cache_folder() == Path("/.cache/sdcore/references")
    with pytest.raises(InputError, match="no such user's home"):
        path_of("~")
