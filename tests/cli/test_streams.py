"""Output that nobody takes, and Ctrl-C: one line and a status, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    assert done.stderr == "sdcore: stopped\n"  # no picture is named above
    assert done.returncode == 130


def test_who_is_interrupted_is_told_of_the_pictures_that_there_are(
    tiny_path: Path, tmp_path: Path
) -> None:
    lines = [
        "import os, signal, sys, sdcore.cli, sdcore.cli.output as output",
        "real, saved = output.Output.save, []",
        "def save(self, *args):",
        "    if len(saved) == int(sys.argv[1]): os.kill(os.getpid(), signal.SIGINT)",
        "    saved.append(real(self, *args))",
        "    return saved[-1]",
        "output.Output.save = save",
        "signal.signal(signal.SIGINT, signal.default_int_handler)",
        "sdcore.cli.main(sys.argv[2:])",
    ]
    draw = ["sample", "a", "--count", "2", "--steps", "1", "--model", str(tiny_path), "--out", "o"]
    for count, told in (("0", "stopped"), ("1", "stopped; the pictures named above are whole")):
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(lines), count, *draw],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stderr.splitlines()[-1] == f"sdcore: {told}"
        assert len(list((tmp_path / "o").glob("*.png"))) == int(count)
        assert done.returncode == 130
