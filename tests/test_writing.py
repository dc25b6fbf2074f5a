"""Files are there whole or not at all, whoever is killed and whoever else writes there."""

import errno
import os
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path
from threading import Barrier, Thread
from typing import IO

import pytest

from sdcore import writing
from sdcore.errors import InputError
from sdcore.writing import check_target, write_new, write_whole, written_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    with pytest.raises(InputError, match="cannot write"):
        write_whole(tmp_path / "gone" / "a.bin", b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        write_whole(tmp_path / "folder", b"x")
    assert names(tmp_path) == ["a.bin", "folder"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space left"), KeyboardInterrupt()])
def test_what_stops_halfway_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    stopped = InputError if isinstance(error, OSError) else KeyboardInterrupt

    def write() -> None:
        with written_whole(tmp_path / "model") as path:
            path.mkdir()
            (path / "half").write_bytes(b"x")
            raise error

    with pytest.raises(stopped):
        write()
    assert names(tmp_path) == []


def test_a_target_that_is_there_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"

    def write() -> None:
        with written_whole(target) as path:
            path.write_bytes(b"ours")
            target.write_bytes(b"theirs")  # meanwhile

    with pytest.raises(InputError, match="is there already"):
        write()
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == ["a.bin"]
    with pytest.raises(InputError, match="is there already"):
        check_target(target)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(InputError, match="is there already"):
        check_target(tmp_path / "link")


KILLED = """
import os, signal, sys
from pathlib import Path
from sdcore import writing
folder = Path(sys.argv[1])
if sys.argv[2] == "lockless":  # between its folder and its lock
    writing._lock = lambda file: os.kill(os.getpid(), signal.SIGKILL)
    Path.open = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with writing.written_whole(folder / "model") as path:
    path.mkdir()
    (path / "weights").write_bytes(b"x" * 1000)
    print("there", flush=True)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    input()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of this kind")
def test_what_a_killed_writer_left_is_taken_away(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    for how in ("killed", "lockless"):
        subprocess.run([*command, how], check=False, capture_output=True)
        assert len(names(tmp_path)) == 1
        write_whole(tmp_path / "a.bin", b"x")
        assert names(tmp_path) == ["a.bin"]
        (tmp_path / "a.bin").unlink()
    # One that still writes loses nothing, and neither does whoever has a name like ours.
    (tmp_path / ".sdcore-mine").mkdir()
    (tmp_path / ".sdcore-mine" / "x").touch()
    (tmp_path / ".sdcore-00000000").mkdir()
    (tmp_path / ".sdcore-00000000" / "mine").touch()
    with subprocess.Popen(
        [*command, "waits"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        write_whole(tmp_path / "a.bin", b"x")
        other.communicate(b"\n")
        assert other.returncode == 0
    assert names(tmp_path) == [".sdcore-00000000", ".sdcore-mine", "a.bin", "model"]


def test_a_name_is_taken_by_one(tmp_path: Path) -> None:
    """Many writers that want the same names at once: every file is there, under its own."""
    begin = Barrier(8)

    def write(writer: int) -> None:
        begin.wait()
        for number in range(10):
            paths = (tmp_path / f"red-{i}.png" for i in count())
            write_new(paths, f"{writer} {number}".encode())

    writers = [Thread(target=write, args=(writer,)) for writer in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    held = sorted(path.read_text() for path in tmp_path.iterdir())
    assert held == sorted(f"{writer} {number}" for writer in range(8) for number in range(10))


@pytest.mark.skipif(writing.fcntl is None, reason="this system has no locks")
def test_a_folder_that_is_being_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer has the lock of the new folder first, and removes the folder later."""
    taken: list[IO[bytes]] = []  # the other writer's lock
    flock, replace = writing.fcntl.flock, writing.os.replace

    def after_another(file: IO[bytes], how: int) -> None:
        if not taken:
            taken.append(Path(file.name).open("r+b"))  # noqa: SIM115
            flock(taken[0], how)
        flock(file, how)

    def after_removal(source: Path, target: Path) -> None:
        shutil.rmtree(Path(taken[0].name).parent)
        replace(source, target)

    monkeypatch.setattr(writing.fcntl, "flock", after_another)
    monkeypatch.setattr(writing.os, "replace", after_removal)
    write_whole(tmp_path / "a.bin", b"x")
    taken[0].close()
    assert names(tmp_path) == ["a.bin"]


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(writing.os, "link", refused)
    paths = [tmp_path / "a", tmp_path / "b"]
    assert [write_new(paths, b"x"), write_new(paths, b"y")] == paths
    assert [path.read_bytes() for path in paths] == [b"x", b"y"]
    with pytest.raises(InputError, match="is taken"):
        write_new(paths, b"z")
    assert names(tmp_path) == ["a", "b"]


def test_files_are_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", b"x")
        with written_whole(tmp_path / "model") as path:
            path.mkdir()
            (path / "secret").touch(0o600)
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "model", "model/secret")]
    assert modes == [0o640, 0o750, 0o640]
