"""Output that nobody takes, and Ctrl-C: one line and a status, no traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdcore.cli.output import Output
from tests.cli.shell import Shell

pytestmark = pytest.mark.skipif(os.name != "posix", reason="of POSIX shells")


def bash(command: str) -> subprocess.CompletedProcess[str]:
    script = f'sdcore() {{ "{sys.executable}" -m sdcore "$@"; }}; set -o pipefail; {command}'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("command", ["-h", "lab -h"])
def test_a_full_disk_behind_stdout(command: str) -> None:
    done = bash(f"sdcore {command} > /dev/full")
    assert (done.returncode, done.stderr) == (2, "sdcore: No space left on device\n")
    assert bash(f"sdcore {command} > /dev/full 2>&1").returncode == 2


@pytest.mark.parametrize("command", ["-h", "lab -h"])
def test_whose_reader_is_gone_ends_as_other_programs_do(command: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "sdcore", *command.split()],
        stdout=write, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_stream_that_is_closed_from_the_start() -> None:
    assert bash("sdcore -h >&-").stderr == ""
    assert bash("sdcore nope 2>&-").returncode == 2
    # What is opened first would take its place: nothing that is printed may go into it.
    code = "from sdcore.cli import _open_streams as o; o(); print(open('/dev/zero').fileno() > 2)"
    done = bash(f'"{sys.executable}" -c "{code}" 0>&-')
    assert done.stdout == "True\n"


STUBBORN = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException:
    pass
"""


@pytest.mark.parametrize("code", ["import stubborn", "os.kill(os.getpid(), signal.SIGINT)"])
def test_an_interrupt(tmp_path: Path, code: str) -> None:
    """Also while a library is imported that makes something else of it."""
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    lines = [
        "import os, signal, sdcore.cli, sdcore.cli.commands as commands",
        f"def run(args): {code}",
        "commands.run = run",
        "signal.signal(signal.SIGINT, signal.default_int_handler)",
        "sdcore.cli.main([])",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "sdcore: stopped\n"  # no picture is named above
    assert done.returncode == 130


@pytest.mark.parametrize(
    ("count", "told"), [(0, "stopped"), (1, "stopped; the pictures named above are whole")]
)
def test_who_is_interrupted_is_told_of_the_pictures_that_there_are(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, count: int, told: str
) -> None:
    real, saved = Output.save, []

    def save(self: Output, *args: Any) -> Any:
        if len(saved) == count:
            os.kill(os.getpid(), signal.SIGINT)
        saved.append(real(self, *args))
        return saved[-1]

    monkeypatch.setattr(Output, "save", save)
    done = shell.sample("a", "--count", 2, "--out", "o")
    assert done.err.splitlines()[-1] == f"sdcore: {told}"
    assert len(list(Path("o").glob("*.png"))) == len(done.paths) == count
    assert done.status == 130
