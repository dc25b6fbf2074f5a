"""A sweep over the workers of a Ray cluster: they draw, and this process claims and writes.

No folder need be shared: pictures come back as bytes. Where a worker is lost, or its node, what it
was drawing is drawn again by another one. Needs the extra `ray`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from sdcore.errors import InputError
from sdcore.experiments.cells import Cell, Studio
from sdcore.experiments.sweep.plan import Picture
from sdcore.experiments.sweep.work import Group, Lost, Outcome, drawn


class Drawer:
    """What runs in a worker: one studio, which keeps its networks."""

    def __init__(self) -> None:
        self.studio = Studio()

    def ready(self) -> None:
        """Answers as soon as the worker is there."""

    def draw(self, cells: Sequence[Cell]) -> tuple[bool, Any]:
        """Whether it went well, and the pictures, or the name and the words of the error."""
        outcome = drawn(self.studio, cells)
        if not isinstance(outcome, Exception):
            return True, outcome
        # As text: an exception of a user's solver cannot be read back where its file is not.
        kind = "" if isinstance(outcome, InputError) else f"{type(outcome).__name__}: "
        return False, f"{kind}{outcome}"


class RayPool:
    """One worker for each GPU of the cluster; where it has none, for each CPU, or so many.

    address: as `ray.init` takes it: "auto", "local", "host:6379", "ray://host:10001".

    Raises InputError where Ray is not installed, or cannot be reached.
    """

    def __init__(self, address: str, workers: int | None = None) -> None:
        if importlib.util.find_spec("ray") is None:
            raise InputError("--ray needs Ray: pip install 'sdcore[ray]'")
        ray = self._ray = importlib.import_module("ray")
        self._own = not ray.is_initialized()
        try:
            if self._own:
                ray.init(
                    None if address == "local" else address,
                    log_to_driver=False,
                    logging_level="error",
                    configure_logging=True,
                )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"no Ray cluster at {address}: {str(error).splitlines()[0]}") from None
        self._needs, most = _share(ray.cluster_resources(), workers)
        self._actor: Any = ray.remote(**self._needs, max_restarts=0)(Drawer)
        self._starting: dict[Any, Any] = {}  # by what each answers when it is there
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, Group]] = {}
        for _ in range(most):
            self._start()

    def _start(self) -> None:
        """One more worker. Where the cluster has no room for it, it may never be there."""
        actor = self._actor.remote()
        self._starting[actor.ready.remote()] = actor

    @property
    def free(self) -> bool:
        there = self._ray.wait(list(self._starting), timeout=0)[0] if self._starting else ()
        for answer in there:
            actor = self._starting.pop(answer)
            try:
                self._ray.get(answer)
                self._idle.append(actor)
            except self._ray.exceptions.RayError:
                self._start()
        return bool(self._idle)

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def submit(self, group: Sequence[Picture]) -> None:
        actor = self._idle.pop()
        self._running[actor.draw.remote([each.cell for each in group])] = actor, list(group)

    def take(self) -> tuple[Group, Outcome]:
        (ready, *_), _ = self._ray.wait(list(self._running), num_returns=1)
        actor, group = self._running.pop(ready)
        try:
            well, value = self._ray.get(ready)
        except self._ray.exceptions.RayError as error:
            self._ray.kill(actor)
            self._start()
            return group, Lost(f"a worker was lost ({type(error).__name__})")
        self._idle.append(actor)
        return group, value if well else InputError(value)

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *_: object) -> None:
        running = [actor for actor, _ in self._running.values()]
        for actor in (*self._idle, *self._starting.values(), *running):
            self._ray.kill(actor)
        if self._own:
            self._ray.shutdown()


def _share(resources: Mapping[str, float], workers: int | None) -> tuple[dict[str, int], int]:
    """What each worker needs, and how many there are."""
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    if gpus:
        return {"num_gpus": 1}, min(gpus, workers or gpus)
    return {"num_cpus": 1}, max(1, cpus if workers is None else workers)
