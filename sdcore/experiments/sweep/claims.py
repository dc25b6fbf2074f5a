"""Who draws what: a claim is a file that only one process can make, and has to keep alive.

Made by O_CREAT | O_EXCL, which is one move on local disks and on NFS since version 3. Its age is
told by the file system's own clock, so that the clocks of machines need not agree. A claim whose
process is gone from this machine, or that was not renewed for the time of a lease, is taken over:
by renaming it away, which works for one process only, and claiming anew.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from contextlib import suppress
from pathlib import Path

LEASE = 120.0  # seconds


def _machine() -> str:
    """This machine since it was started, and the processes that see each other on it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _born(pid: int) -> str | None:
    """When a process was started, in the system's ticks; None where that is not known."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return None


class Claims:
    """The claims of one process in a folder that it shares with others.

        with Claims(folder) as claims:
            if claims.take(name): ...; claims.release(name)

    lease: seconds without a sign of life after which a claim may be taken over. Signs of life are
    given by a thread of its own.
    """

    def __init__(self, folder: Path, lease: float = LEASE) -> None:
        self.folder, self.lease = folder, lease
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.held: set[str] = set()
        self._machine, pid = _machine(), os.getpid()
        facts = {"machine": self._machine, "pid": pid, "born": _born(pid), "worker": self.worker}
        self._said = json.dumps(facts).encode()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> Claims:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._probe.write_bytes(self._said)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        for name in list(self.held):
            self.release(name)
        self._probe.unlink(missing_ok=True)

    def take(self, name: str) -> bool:
        """Whether it is ours now. Raises OSError where the folder cannot be written."""
        path = self.folder / name
        for _ in range(3):
            if self._make(path):
                with self._lock:
                    self.held.add(name)
                return True
            if name in self.held or not self._stale(path):
                return False
            self._take_away(path)
        return False

    def release(self, name: str) -> None:
        """Let go of it; a claim that was taken over meanwhile is left to its new holder."""
        with self._lock:
            self.held.discard(name)
        path = self.folder / name
        with suppress(FileNotFoundError):
            if path.read_bytes() == self._said:
                path.unlink()

    def is_held(self, name: str) -> bool:
        """Whether a process that is alive holds it."""
        path = self.folder / name
        return path.exists() and not self._stale(path)

    def clear(self) -> None:
        """Take away what processes that are gone have left."""
        for path in self.folder.iterdir():
            if path != self._probe and self._stale(path):
                self._take_away(path)

    def _make(self, path: Path) -> bool:
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        try:
            os.write(file, self._said)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)
        return True

    def _stale(self, path: Path) -> bool:
        try:
            said, age = path.read_bytes(), self._now() - path.stat().st_mtime
        except FileNotFoundError:
            return True  # released by now
        if age > self.lease:
            return True
        try:
            holder = json.loads(said)
            if holder["machine"] != self._machine:
                return False
            born = _born(holder["pid"])
            return born != holder["born"] if holder["born"] is not None else False
        except (ValueError, KeyError, TypeError):
            return False  # being written, or its writer was killed within: the lease tells

    def _take_away(self, path: Path) -> None:
        """Rename a stale claim away: of several processes one can. What was renewed comes back."""
        away = path.with_name(f".{path.name}.{self.worker}")
        try:
            os.rename(path, away)
        except FileNotFoundError:
            return
        if not self._stale(away):
            with suppress(FileExistsError):
                os.link(away, path)
        away.unlink(missing_ok=True)

    @property
    def _probe(self) -> Path:
        return self.folder / f".now.{self.worker}"

    def _now(self) -> float:
        """The time on the file system's clock."""
        file = os.open(self._probe, os.O_CREAT | os.O_WRONLY, 0o666)
        try:  # by its number, where there is one: another process may take the name away
            os.utime(file if os.utime in os.supports_fd else self._probe)
            return os.fstat(file).st_mtime
        finally:
            os.close(file)

    def _live(self) -> None:
        while not self._stopped.wait(self.lease / 4):
            with self._lock:
                names = list(self.held)
            for name in names:
                with suppress(OSError):
                    os.utime(self.folder / name)
