"""The loop of one process over a sweep: claim, draw, write, let go; until nothing is left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sdcore.errors import InputError, one_line
from sdcore.experiments.cells import Cell, Studio
from sdcore.experiments.sweep.claims import Claims
from sdcore.experiments.sweep.folder import CannotWrite, Finished, Folder
from sdcore.experiments.sweep.plan import Picture, Shard
from sdcore.images import to_png

Group = list[Picture]  # pictures that may be drawn at once
PATIENCE = 0.5  # seconds between two looks at what others are drawing
Outcome = Sequence[Finished] | Exception


class Lost(Exception):
    """Whoever was drawing is gone; nothing is wrong with the pictures."""


class Drawers(Protocol):
    """Who draws groups: this process, or a cluster's workers."""

    @property
    def free(self) -> bool:
        """Whether one more group can be taken."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a group is being drawn."""
        ...

    def submit(self, group: Group) -> None: ...

    def take(self) -> tuple[Group, Outcome]:
        """The next group that is done; waits for it."""
        ...


class Here:
    """This process draws, one group after the other."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._group: Group | None = None

    @property
    def free(self) -> bool:
        return self._group is None

    @property
    def busy(self) -> bool:
        return self._group is not None

    def submit(self, group: Group) -> None:
        self._group = group

    def take(self) -> tuple[Group, Outcome]:
        group, self._group = self._group, None
        assert group is not None
        return group, drawn(self.studio, [each.cell for each in group])


def drawn(studio: Studio, cells: Sequence[Cell]) -> Outcome:
    """The pictures of one batch as files, or what went wrong."""
    try:
        return [
            Finished(to_png(each.picture, each.settings), each.settings, each.nfe, each.seconds)
            for each in studio.draw(cells)
        ]
    except Exception as error:  # whatever a solver of one's own raises: the cell has failed
        return error


@dataclass
class Tally:
    """What one process has done."""

    drawn: int = 0
    lost: int = 0  # drawn here, and another process was first: after a lease that ran out
    failed: dict[str, str] = field(default_factory=dict)  # id -> why, of cells that are given up


@dataclass
class Work:
    """What one process needs to take part in a sweep.

    retry: how often a cell that failed is tried again. look: is called after each picture.
    """

    pictures: Sequence[Picture]
    folder: Folder
    claims: Claims
    drawers: Drawers
    shard: Shard = field(default_factory=Shard)
    batch: int = 1
    retry: int = 1
    tell: Callable[[str], None] = lambda line: None
    look: Callable[[], None] = lambda: None

    def run(self) -> Tally:
        """Draw until every picture is there, or given up, by whichever process.

        Raises CannotWrite where the folder takes nothing any more, InputError where the sweep was
        begun with another model.
        """
        tally = Tally()
        mine = self.shard.order(_groups(self.pictures, self.batch))
        before = {each.cell.id: self.folder.attempts(each) for group in mine for each in group}
        self._most = {name: n + 1 + self.retry for name, n in before.items()}
        waiting = deque(mine)
        while waiting or self.drawers.busy:
            passed = 0  # groups that others hold, one after the other
            while self.drawers.free and waiting and passed <= len(waiting):
                group = [each for each in waiting.popleft() if self._is_open(each, tally)]
                taken = [each for each in group if self._claimed(each)]
                left = [each for each in group if each not in taken]
                if left:
                    waiting.append(left)
                if taken:
                    self.drawers.submit(taken)
                passed = 0 if taken else passed + 1
            if self.drawers.busy:
                self._settle(*self.drawers.take(), waiting, tally)
            elif waiting:
                time.sleep(PATIENCE)  # the rest is being drawn elsewhere
        return tally

    def _is_open(self, picture: Picture, tally: Tally) -> bool:
        """Whether it is still to be drawn."""
        if self.folder.is_done(picture):
            return False
        if self.folder.attempts(picture) >= self._most[picture.cell.id]:
            tally.failed[picture.cell.id] = str(self.folder.failure(picture).get("error"))
            return False
        return True

    def _claimed(self, picture: Picture) -> bool:
        try:
            if not self.claims.take(picture.cell.id):
                return False
        except OSError as error:
            raise CannotWrite(f"cannot write to {self.folder.root}: {error.strerror}") from None
        if self.folder.is_done(picture):  # between our look and our claim
            self.claims.release(picture.cell.id)
            return False
        return True

    def _settle(self, group: Group, outcome: Outcome, waiting: deque[Group], tally: Tally) -> None:
        """Write what was drawn, or note why it was not, and let go."""
        try:
            if isinstance(outcome, Lost):
                self.tell(f"{outcome}; {len(group)} to be drawn again")
                waiting.appendleft(group)
            elif isinstance(outcome, Exception):
                self._failed(group, outcome, waiting)
            else:
                for picture, done in zip(group, outcome, strict=True):
                    self._publish(picture, done, tally)
        finally:
            for picture in group:
                self.claims.release(picture.cell.id)

    def _publish(self, picture: Picture, done: Finished, tally: Tally) -> None:
        self.folder.check_model(done.settings)
        if self.folder.publish(picture, done):
            tally.drawn += 1
            self.folder.forgive(picture)
        else:
            tally.lost += 1
        self.look()

    def _failed(self, group: Group, error: Exception, waiting: deque[Group]) -> None:
        if len(group) > 1:  # one of them may be to blame: each by itself
            waiting.extendleft([each] for each in reversed(group))
            return
        (picture,) = group
        why = f"{'' if isinstance(error, InputError) else f'{type(error).__name__}: '}{error}"
        self.folder.failed(picture, one_line(why)[:500])
        tries = self.folder.attempts(picture)
        self.tell(f"{picture.path} failed ({tries} of {self._most[picture.cell.id]}): {why:.200}")
        waiting.append(group)  # given up there, where it has failed too often


def _groups(pictures: Sequence[Picture], size: int) -> list[Group]:
    """Pictures of the same options next to each other, in the order of the plan."""
    by_options: dict[str, Group] = {}
    for each in pictures:
        by_options.setdefault(each.cell.shared, []).append(each)
    return [same[i : i + size] for same in by_options.values() for i in range(0, len(same), size)]
