"""Output that nobody takes, and Ctrl-C: one line and a status, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SDCORE = [sys.executable, "-m", "sdcore"]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="of POSIX shells")


def shell(command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    script = f'sdcore() {{ "{sys.executable}" -m sdcore "$@"; }}; set -o pipefail; {command}'
    return subprocess.run(
        ["bash", "-c", script], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("command", ["-h", "lab -h"])
def test_a_full_disk_behind_stdout(command: str) -> None:
    done = shell(f"sdcore {command} > /dev/full")
    assert (done.returncode, done.stderr) == (2, "sdcore: No space left on device\n")
    assert shell(f"sdcore {command} > /dev/full 2>&1").returncode == 2


@pytest.mark.parametrize("command", ["-h", "lab -h"])
def test_whose_reader_is_gone_ends_as_other_programs_do(command: str) -> None:
    done = shell(f"sdcore {command} | true")
    assert (done.returncode, done.stderr) == (141, "")


def test_a_stream_that_is_closed_from_the_start() -> None:
    assert shell("sdcore -h >&-").stderr == ""
    assert shell("sdcore nope 2>&-").returncode == 2
    # What is opened first would take its place: nothing that is printed may go into it.
    code = "from sdcore.cli import _open_streams as o; o(); print(open('/dev/zero').fileno() > 2)"
    done = shell(f'"{sys.executable}" -c "{code}" 0>&-')
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
    assert done.stderr == "sdcore: stopped; the pictures named above are whole\n"
    assert done.returncode == 130
