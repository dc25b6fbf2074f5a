"""`sdcore ui` and `python -m sdcore.webui`: the address is told, and opened."""

import runpy
import sys
import threading
import webbrowser
from typing import Any

import pytest

from sdcore.cli import main, ui


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the browser was asked to open, of a server that only says where it is."""
    addresses: list[str] = []

    def run(options: Any, tell: Any) -> None:
        before = set(threading.enumerate())
        tell(f"http://{options['host']}:{options['port']}/  picturebook")
        for thread in set(threading.enumerate()) - before:
            thread.join(60)

    monkeypatch.setattr(ui, "run", run)
    monkeypatch.setattr(ui, "_AT_ONCE", 0.0)
    monkeypatch.setattr(webbrowser, "open", addresses.append)
    return addresses


@pytest.mark.parametrize(
    ("words", "address"),
    [
        ((), "http://127.0.0.1:7860/"),
        (("--port", "8123"), "http://127.0.0.1:8123/"),
        (("--host", "0.0.0.0"), "http://127.0.0.1:7860/"),
        (("--no-browser",), None),
    ],
)
def test_the_page_is_opened(
    opened: list[str], words: tuple[str, ...], address: str | None, capfd: Any
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ui", *words])
    assert ended.value.code == 0
    assert opened == ([] if address is None else [address])
    assert "http://" in capfd.readouterr().err


def test_by_the_name_that_people_look_for(
    opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["webui", "--port", "8124"])
    with pytest.raises(SystemExit):
        runpy.run_module("sdcore.webui", run_name="__main__")
    assert opened == ["http://127.0.0.1:8124/"]
