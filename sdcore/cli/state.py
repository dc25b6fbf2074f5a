"""`--state FILE`: where a run stands, written after each step and taken away when it is done."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from threading import current_thread, main_thread
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from sdcore.cli.echo import tell
from sdcore.errors import InputError
from sdcore.paths import check_folder, path_of

if TYPE_CHECKING:
    from sdcore.cli.jobs import Job
    from sdcore.run import Run
    from sdcore.sampling import Step


def check_state(options: Mapping[str, Any], jobs: Sequence[Job]) -> None:
    """Raises InputError where a state cannot be kept: several runs, or a file that is there."""
    after = options["stop_after"]
    if after is not None and (options["state"] is None or after < 1):
        raise InputError("--stop-after takes at least 1 step, and leaves a --state FILE")
    if options["state"] is None:
        return
    size = options["batch"]
    if len(jobs) > 1 or (size is not None and size < len(jobs[0])):
        raise InputError("--state keeps one run: give each option once, and no smaller --batch")
    path = path_of(options["state"])
    if os.path.lexists(path):
        raise InputError(
            f"{path} is there already: sdcore resume {shlex.quote(str(path))} goes on with it, "
            "or name another --state"
        )
    check_folder(path.parent)


class _Enough(Exception):
    """As many steps are run as were asked for."""


class Unfinished:
    """Keeps where a run stands in a file, as long as it is not done.

    Ctrl-C and SIGTERM end the run between two steps or within one; what was written after the last
    whole step is what is gone on from. So it is after `stop_after` steps, where that is a number.
    """

    def __init__(self, path: str | None, stop_after: int | None = None) -> None:
        self.path = None if path is None else path_of(path)
        self.stop_after = stop_after
        self.stopped = False  # since that many steps were run
        self.steps = 0
        self._before: Any = None

    def keep(self, run: Run, step: Step) -> None:
        if self.path is None:
            return
        from sdcore.inversion import Recorded

        self.steps += 1
        settings = [each.to_json() for each in run.settings]
        draws = run.noise.draws if isinstance(run.noise, Recorded) else ()
        step.state.save(self.path, settings, draws, run.sigmas)
        if self.steps == self.stop_after:
            raise _Enough

    def __enter__(self) -> Unfinished:
        if self.path is not None and current_thread() is main_thread():
            self._before = signal.signal(signal.SIGTERM, _stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType
    ) -> bool:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        self.stopped = kind is _Enough
        if self.path is None or not self.steps:  # what is there now is somebody else's
            return False
        if kind is None:
            self.path.unlink(missing_ok=True)
        elif self.path.exists():
            tell(f"stopped: sdcore resume {shlex.quote(str(self.path))} goes on")
        return self.stopped


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
