"""docs/files.md says what the code does with every kind of file."""

import pytest


def test_the_page_is_what_happens() -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("gguf")
    from scripts.file_kinds import PAGE, page

    assert page().splitlines() == PAGE.read_text().splitlines(), "run `make docs`"
