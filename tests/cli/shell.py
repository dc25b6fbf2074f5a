"""A shell for the tests of the commands: `sdcore` with a tiny model, in a folder of its own."""

from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from sdcore.cli import main


class Result(NamedTuple):
    status: int
    paths: list[Path]  # stdout, a path a line
    err: str


class Shell:
    """Runs `sdcore` in a folder of its own."""

    def __init__(self, capfd: pytest.CaptureFixture[str], model: Path) -> None:
        self.capfd, self.model = capfd, model

    def __call__(self, *args: object) -> Result:
        with pytest.raises(SystemExit) as caught:
            main([str(a) for a in args])
        out, err = self.capfd.readouterr()
        assert isinstance(caught.value.code, int)
        return Result(caught.value.code, [Path(line) for line in out.splitlines()], err)

    def sample(self, *args: object) -> Result:
        """A quick run of the tiny model."""
        return self("sample", *args, "--model", self.model, "--steps", 2, "--device", "cpu")


def pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.convert("RGB").tobytes()
