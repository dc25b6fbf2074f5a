"""A Python file of the user's: what it holds, and what became of it."""

import pytest

from sdcore.errors import InputError
from sdcore.user_file import blame, difference, digest, load_object, said


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\n"
        "class Mine:\n"
        "    scale: float = 1.0\n"
        "number = 3\n"
        "def fails():\n"
        "    return {}['x']\n"
    )
    return path


def test_the_first_name_that_can_be_called_is_loaded(file):
    assert load_object(file, ("number", "absent", "Mine"), "guidance")(2.0).scale == 2.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no guidance named Mine or mine"),
        ("1 / 0", "does not run: ZeroDivisionError: division by zero"),
        ("def f(:", "does not run: SyntaxError"),
        ("raise SystemExit(3)", "does not run: SystemExit: 3"),
        ("raise BaseException('x')", "does not run: BaseException: x"),
        ("raise ValueError('x' * 10**6)", "does not run: ValueError: xxx"),
        ("\0", "does not run"),
    ],
)
def test_what_is_not_there_or_does_not_run_is_one_line(file, text, message):
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        load_object(file, ("Mine", "mine"), "guidance")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_file_that_is_not_there(file):
    with pytest.raises(InputError, match="no solver file"):
        load_object(file.with_name("other.py"), ("x",), "solver")
    with pytest.raises(InputError, match="no solver file"):
        load_object(file.parent, ("x",), "solver")


def test_ctrl_c_is_nobodys_mistake(file):
    file.write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_object(file, ("x",), "solver")


def test_the_digest_tells_what_became_of_a_file(file):
    known = digest(file)
    assert difference(file, known) is None
    file.write_text("")
    assert "has changed" in difference(file, known)
    file.unlink()
    assert "is gone" in difference(file, known)
    with pytest.raises(InputError, match="cannot read"):
        digest(file)


def test_a_mistake_is_told_by_the_files_own_line(file):
    with pytest.raises(KeyError) as caught:
        load_object(file, ("fails",), "solver")()
    assert str(blame(caught.value, file, "solver")) == "mine.py, line 8: KeyError: 'x'"
    elsewhere = ValueError("two\nlines")
    assert str(blame(elsewhere, file, "solver")) == "the solver of mine.py: ValueError: two lines"


def test_words_that_cannot_be_made_are_said_so():
    class Broken(Exception):
        def __str__(self):
            raise RuntimeError

    assert said(Broken()) == "Broken: (its message cannot be made)"
    assert said(InputError("plain")) == "plain"
