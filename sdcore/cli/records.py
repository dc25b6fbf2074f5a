"""`--record FILE`: every step of each run, in a file for each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdcore.cli.echo import tell
from sdcore.errors import InputError
from sdcore.paths import check_folder, path_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdcore.run import Run
    from sdcore.sampling import Step
    from sdcore.trajectory import Recorder


class Records:
    """Records every run that is drawn: the first under the name that was given, then NAME-2 ...

    A run that ends early, by Ctrl-C or an error, leaves its first steps.
    """

    def __init__(self, how: Mapping[str, Any]) -> None:
        """how: the options of the command. Raises InputError where nothing can be recorded."""
        self.path = None if how["record"] is None else path_of(how["record"])
        self.written: list[Path] = []
        self._recorder: Recorder | None = None
        self._pictures: list[Image] = []
        if self.path is None:
            return
        from sdcore.trajectory.recorder import check_recording

        what = tuple(each.strip() for each in how["record_what"].split(",") if each.strip())
        self._how: Any = {"what": what, "every": how["record_every"], "dtype": how["record_dtype"]}
        check_recording(**self._how)
        check_folder(self.path.parent)
        if self.path.is_dir():
            raise InputError(f"--record {self.path} is a folder: name a file in it")

    def keep(self, run: Run, step: Step) -> None:
        """Add a step: the first one of a run begins the next record."""
        if self.path is None:
            return
        if self._recorder is None or step.index == run.start.index:
            self._close()
            from sdcore.trajectory import Recorder

            self._recorder = Recorder(run, **self._how)
        self._recorder.add(step)

    def shown(self, picture: Image) -> None:
        """A picture of the run that was recorded last."""
        if self.path is not None:
            self._pictures.append(picture)

    def _close(self) -> None:
        recorder, pictures = self._recorder, self._pictures
        self._recorder, self._pictures = None, []
        if recorder is None or self.path is None:
            return
        number = len(self.written) + 1
        stem = self.path.stem if number == 1 else f"{self.path.stem}-{number}"
        path = self.path.with_name(stem + self.path.suffix)
        self.written.append(recorder.save(path, pictures))

    def __enter__(self) -> Records:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._close()
            return
        before = len(self.written)
        self._close()
        if len(self.written) > before:
            tell(f"stopped: {self.written[-1]} holds the steps until then")
