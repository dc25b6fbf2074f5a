"""The worker: one thread that does all work with the networks, and the queue before it.

torch lets go of the interpreter while it computes, so requests are answered meanwhile; two runs at
once would only wait for each other. Work is left between two steps, never inside of one.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sdcore.enduring import OutOfMemory
from sdcore.errors import InputError
from sdcore.filters import Filter
from sdcore.server.jobs import AGAIN, CANCELLED, DONE, ENDED, FAILED, RUNNING, Cancelled, Job
from sdcore.server.limits import Limits
from sdcore.server.models import Choice, Models
from sdcore.server.refusals import Failed, Full, Missing, NoRoom, Unready, places

if TYPE_CHECKING:
    from sdcore.networks import Networks

# Gets the networks and the jobs that are done at once, and sets the result of each.
Work = Callable[["Networks", Sequence[Job]], None]
Observe = Callable[[Job], None]

MOST_WAITING = 1000  # jobs, however little work they are
log = logging.getLogger("sdcore.server")


class Worker:
    """A queue that is bounded by work, and the thread that empties it.

    filters: what looks at every picture before anybody gets it: `sdcore.filters`.

    submit -> Job; find(id); cancel(job); forget(job). `observers` get every job that has ended.
    All of it may be called by any thread.
    """

    def __init__(
        self, models: Models, limits: Limits | None = None, filters: Sequence[Filter] = ()
    ) -> None:
        self.models, self.filters = models, tuple(filters)
        self.limits = Limits() if limits is None else limits
        self.observers: list[Observe] = []
        self._queue: deque[tuple[Job, Work]] = deque()
        self._between: deque[tuple[Job, Work]] = deque()  # done between the steps of another
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._running: list[Job] = []
        self._open, self._over = True, False
        self._rate = 0.0  # work a second
        self._lock = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None

    # --- asked by any thread ---------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work; once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="sdcore-worker", daemon=True)
            self._thread.start()

    def submit(
        self,
        work: Work,
        choice: Choice | None = None,
        cost: float = 0.0,
        key: object = None,
        pictures: int = 1,
        task: Any = None,
        between_steps: bool = False,
        given: Mapping[int, int] | None = None,
    ) -> Job:
        """Queue `work`, which is called with the networks of `choice` in the worker's thread.

        cost: as `Limits` counts it. task: kept in the job, for the work to know.
        key: jobs whose keys are equal may be handed to one call, of together no more pictures than
            `Limits.batch`.
        between_steps: short work (a decode) that need not wait for the end of a run.

        given: `Job.given`.

        Raises Full, with the seconds after which there may be room, and Unready.
        """
        choice = Choice(self.models.default) if choice is None else choice
        job = Job(choice, cost, key, pictures, task, bare=self.models.bare)
        job.given = {} if given is None else given
        with self._lock:
            if not self._open:
                raise Unready("the server is about to stop", retry_after=5)
            if len(self.queued) >= MOST_WAITING:
                raise Full(f"{MOST_WAITING} jobs wait already", retry_after=5)
            waiting = self.load
            if waiting and waiting + cost > self.limits.work:
                raise Full(
                    f"the queue is full: {waiting:.0f} of {self.limits.work:.0f} million "
                    "pixel evaluations wait",
                    retry_after=self._seconds(waiting + cost - self.limits.work),
                )
            held = [each for each in self._held if each.state not in ENDED]
            if job.given and held and bytes_of([*held, job]) > self.limits.kept:
                raise Full(
                    "the pictures of what waits take as much memory as the server gives them",
                    retry_after=self._seconds(waiting),
                )
            short = between_steps and self.models.peek(choice.model) is not None
            (self._between if short else self._queue).append((job, work))
            self._jobs[job.id] = job
            self._lock.notify_all()
        return job

    def find(self, id: str) -> Job:
        """Raises Missing."""
        self._forget_old()
        with self._lock:
            if id not in self._jobs:
                raise Missing("no such job, or it was forgotten")
            return self._jobs[id]

    @property
    def jobs(self) -> list[Job]:
        """All that are remembered, the oldest first."""
        self._forget_old()
        with self._lock:
            return list(self._jobs.values())

    @property
    def running(self) -> list[Job]:
        """What is drawn now."""
        with self._lock:
            return list(self._running)

    @property
    def queued(self) -> list[Job]:
        """What waits, in order."""
        with self._lock:
            return [job for job, _ in (*self._between, *self._queue)]

    @property
    def load(self) -> float:
        """The work that waits or runs, as `Limits` counts it."""
        with self._lock:
            return sum(job.cost for job in (*self.queued, *self._running))

    @property
    def _held(self) -> list[Job]:
        """All that hold memory: what is remembered, waits or runs."""
        return list(dict.fromkeys((*self._jobs.values(), *self.queued, *self._running)))

    @property
    def accepts(self) -> bool:
        """Whether new work is taken at all."""
        return self._open

    def position(self, job: Job) -> int:
        """How many are before it; 0: it is next, or runs, or has ended."""
        queued = self.queued
        return queued.index(job) + len(self.running) if job in queued else 0

    def cancel(self, job: Job) -> bool:
        """Take it from the queue, or let it stop between two steps; whether it had not ended."""
        with self._lock:
            if job.state in ENDED:
                return False
            job.mark_cancelled()
            for queue in (self._queue, self._between):
                for waiting in [each for each in queue if each[0] is job]:
                    queue.remove(waiting)
                    self._end(job, CANCELLED)
        return True

    def forget(self, job: Job) -> None:
        """Let go of it and of all that it holds."""
        with self._lock:
            self._jobs.pop(job.id, None)

    def close(self) -> None:
        """Take no new work; what is queued is still done."""
        with self._lock:
            self._open = False
            self._lock.notify_all()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        with self._lock:
            return not (self._running or self._queue or self._between)

    def stop(self, grace: float = 0.0) -> bool:
        """Take no new work, finish within `grace` seconds, cancel the rest; whether it has ended.

        A step that runs is not interrupted: after two more seconds it is left alone.
        """
        self.close()
        with self._lock:
            self._lock.wait_for(lambda: self.idle, timeout=grace)
            for job in (*self.queued, *self._running):
                self.cancel(job)
            self._over = True
            self._lock.notify_all()
        if self._thread is None:
            return True
        self._thread.join(timeout=2.0)
        return not self._thread.is_alive()

    # --- in the worker's thread ------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._lock:
                while not (self._queue or self._between or self._over):
                    self._lock.wait()
                if self._over:
                    return
                jobs, work = self._next(self._between if self._between else self._queue)
                self._running = jobs
            self._do(jobs, work)
            with self._lock:
                self._running = []
                self._lock.notify_all()
            del jobs, work
            self._forget_old()

    def _next(self, queue: deque[tuple[Job, Work]]) -> tuple[list[Job], Work]:
        """The first job of the queue, with those that may be done at once with it."""
        first, work = queue.popleft()
        jobs = [first]
        if first.key is not None and self.limits.batch > 1:
            room = self.limits.batch - first.pictures
            for each in [each for each in queue if each[0].key == first.key]:
                if each[0].pictures <= room:
                    room -= each[0].pictures
                    queue.remove(each)
                    jobs.append(each[0])
        return jobs, work

    def _do(self, jobs: Sequence[Job], work: Work, interrupts: bool = False) -> None:
        """The work, and what became of it; no error of a job is one of the worker.

        Where it fails for several jobs at once, it is done once more for each of them that has no
        result yet: one request that is bad leaves those beside it unharmed.
        """
        begun = time.monotonic()
        for job in jobs:
            job.pause = _nothing if interrupts else self._pause
            job.tell(AGAIN if job.state == RUNNING else RUNNING)
        error = self._error_of(jobs, work)
        if error is None:
            seconds, cost = time.monotonic() - begun, sum(job.cost for job in jobs)
            if cost and seconds > 0:
                rate = cost / seconds
                self._rate = rate if not self._rate else 0.7 * self._rate + 0.3 * rate
            self._end_all(jobs, DONE)
        elif isinstance(error, Cancelled):
            self._end_all(jobs, CANCELLED)
        elif len(jobs) == 1:
            self._end_all(jobs, FAILED, error)
        else:
            self._end_all([job for job in jobs if job.result is not None], DONE)
            self._end_all([job for job in jobs if job.cancelled], CANCELLED)
            for job in [job for job in jobs if job.state not in ENDED]:
                self._do([job], work, interrupts)

    def _error_of(self, jobs: Sequence[Job], work: Work) -> Exception | None:
        """Why the work failed, in words for the client; None: it did not. It is remembered with
        the job, so nothing in it may hold on to networks: no frames, no run."""
        try:
            networks = self.models.networks(jobs[0].choice, lambda line: _tell(jobs, line))
            work(networks, jobs)
        except OutOfMemory as error:
            return NoRoom(str(error))
        except (Cancelled, InputError) as error:
            error.__context__ = error.__cause__ = None
            return error.with_traceback(None)
        except BaseException as error:
            log.error("a job failed: %s", places(error))
            return Failed(f"drawing failed ({type(error).__name__}); the server's log says where")
        return None

    def _pause(self) -> None:
        """What is short is done here, between two steps of something longer."""
        while True:
            with self._lock:
                if not self._between:
                    return
                job, work = self._between.popleft()
                ours, self._running = self._running, [*self._running, job]
            self._do([job], work, interrupts=True)
            with self._lock:
                self._running = ours

    def _end_all(self, jobs: Sequence[Job], state: str, error: Exception | None = None) -> None:
        for job in jobs:
            if job.state not in ENDED:
                cancelled = state == DONE and job.cancelled
                self._end(job, CANCELLED if cancelled else state, error)

    def _end(self, job: Job, state: str, error: Exception | None = None) -> None:
        if error is not None:
            error.args = (job.bare(str(error)),)
        job.error = error
        job.pause = _nothing
        if state != DONE:
            job.result = None
        job.tell(state, **({} if error is None else {"error": str(error)}))
        for observe in self.observers:
            observe(job)

    # --- bounds ----------------------------------------------------------------------------------

    def _seconds(self, work: float) -> int:
        """About how long so much work takes; 1 .. 600."""
        return min(600, max(1, math.ceil(work / self._rate))) if self._rate else 5

    def _forget_old(self) -> None:
        """Jobs that have ended, the oldest first, beyond the limits on number, bytes and time."""
        limits, now = self.limits, time.time()
        with self._lock:
            ended = [job for job in self._jobs.values() if job.state in ENDED]
            count = len(ended)
            for job in ended:
                old = job.ended is not None and now - job.ended > limits.seconds
                if not (old or count > limits.jobs or bytes_of(self._held) > limits.kept):
                    break
                del self._jobs[job.id]
                count -= 1


def bytes_of(jobs: Sequence[Job]) -> int:
    """What they hold, each picture that they were asked with once."""
    given = {place: size for job in jobs for place, size in job.given.items()}
    return sum(job.size for job in jobs) + sum(given.values())


def _nothing() -> None:
    """Between the steps of what is itself done between steps."""


def _tell(jobs: Sequence[Job], line: str) -> None:
    for job in jobs:
        job.tell("note", line=line)
