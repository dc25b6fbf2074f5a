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


class Unfinished:
    """Keeps where a run stands in a file, as long as it is not done.

    Ctrl-C and SIGTERM end the run between two steps or within one; what was written after the last
    whole step is what is gone on from.
    """

    def __init__(self, path: str | None) -> None:
        self.path = None if path is None else path_of(path)
        self.begun = False
        self._before: Any = None

    def keep(self, run: Run, step: Step) -> None:
        if self.path is None:
            return
        from sdcore.inversion import Recorded

        self.begun = True
        settings = [each.to_json() for each in run.settings]
        draws = run.noise.draws if isinstance(run.noise, Recorded) else ()
        step.state.save(self.path, settings, draws, run.sigmas)

    def __enter__(self) -> Unfinished:
        if self.path is not None and current_thread() is main_thread():
            self._before = signal.signal(signal.SIGTERM, _stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        if self.path is None:
            return
        if not self.begun:  # what is there now, if anything, is somebody else's
            return
        if kind is None:
            self.path.unlink(missing_ok=True)
        elif self.path.exists():
            tell(f"stopped: sdcore resume {shlex.quote(str(self.path))} goes on")


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
