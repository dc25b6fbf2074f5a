"""GET /metrics, for Prometheus. No prompt, seed, path or client is ever in a label."""

# pyright: reportMissingImports=false

from __future__ import annotations

import os
from collections.abc import Iterable

from fastapi import APIRouter
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector
from starlette.responses import Response

from sdcore.server.jobs import CANCELLED, DONE, FAILED, Job
from sdcore.server.refusals import NoRoom
from sdcore.server.worker import Worker
from sdcore.version import VERSION

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # of a step
MINUTES = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)  # of a picture, of the queue
BATCHES = (1, 2, 4, 8, 16)


class Metrics:
    """What is counted of the jobs of one worker."""

    def __init__(self, worker: Worker) -> None:
        self.registry = own = CollectorRegistry()
        self.jobs = Counter(
            "sdcore_requests", "Requests for pictures that ended.", ["api", "status"], registry=own
        )
        self.images = Counter("sdcore_images", "Pictures that were drawn.", registry=own)
        self.steps = Counter("sdcore_steps", "Steps that were run.", registry=own)
        self.nfe = Counter("sdcore_nfe", "Evaluations of the network, picture by picture.",
                           registry=own)  # fmt: skip
        self.cancelled = Counter("sdcore_cancelled", "Requests that were cancelled.", registry=own)
        self.memory = Counter(
            "sdcore_out_of_memory", "Requests for which memory ran out.", registry=own
        )
        self.queue = Histogram(
            "sdcore_queue_seconds", "Time in the queue.", buckets=MINUTES, registry=own
        )
        self.generation = Histogram(
            "sdcore_generation_seconds", "Time of drawing.", buckets=MINUTES, registry=own
        )
        self.step = Histogram(
            "sdcore_step_seconds", "Time of a step.", buckets=SECONDS, registry=own
        )
        self.batch = Histogram(
            "sdcore_batch_size", "Pictures drawn at once.", buckets=BATCHES, registry=own
        )
        own.register(_Now(worker))

    def observe(self, job: Job) -> None:
        """Called with every job that has ended."""
        api = getattr(job.task, "api", None)
        if api is None:
            return
        self.jobs.labels(api, job.state).inc()
        notes = [e.data["line"] for e in job.events if e.kind == "note"]
        if isinstance(job.error, NoRoom) or any(line.startswith("out of memory") for line in notes):
            self.memory.inc()
        if job.state == CANCELLED:
            self.cancelled.inc()
        if job.started is None or job.ended is None:
            return
        self.queue.observe(max(0.0, job.started - job.created))
        if job.state in (DONE, FAILED):
            self.generation.observe(max(0.0, job.ended - job.started))
        for event in job.events:
            if event.kind == "step":
                self.steps.inc()
                self.nfe.inc(event.data["nfe"] * event.data["pictures"])
                self.step.observe(event.data["seconds"])
                if event.data["done"] == event.data["total"]:
                    self.batch.observe(event.data["batch"])
            elif event.kind == "picture":
                self.images.inc()


class _Now(Collector):
    """What is so at the moment of the question."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def collect(self) -> Iterable[GaugeMetricFamily | InfoMetricFamily]:
        import torch

        worker = self.worker
        depth = GaugeMetricFamily("sdcore_queue_depth", "Jobs that wait.")
        depth.add_metric([], len(worker.queued))
        yield depth
        load = GaugeMetricFamily(
            "sdcore_queue_work", "Work that waits or runs, in million pixel evaluations."
        )
        load.add_metric([], worker.load)
        yield load
        running = GaugeMetricFamily("sdcore_requests_running", "Jobs that are done now.")
        running.add_metric([], len(worker.running))
        yield running
        memory = GaugeMetricFamily("sdcore_memory_bytes", "Memory in use.", labels=["kind"])
        for kind, size in memory_now().items():
            memory.add_metric([kind], size)
        yield memory
        networks = worker.models.peek(worker.models.default)
        told = {"version": VERSION, "torch": str(torch.__version__)}
        if networks is not None:
            told |= {"device": str(networks.device), "dtype": networks.precision}
            told["model"] = worker.models.default
        info = InfoMetricFamily("sdcore_build", "What runs.")
        info.add_metric([], told)
        yield info


def memory_now() -> dict[str, int]:
    """Bytes by kind: "resident" of the process, "device" and "device_peak" of a GPU."""
    import torch

    sizes: dict[str, int] = {}
    try:
        with open("/proc/self/statm") as file:
            sizes["resident"] = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        pass
    if torch.cuda.is_available():
        sizes["device"] = torch.cuda.memory_allocated()
        sizes["device_peak"] = torch.cuda.max_memory_allocated()
    return sizes


def router(worker: Worker) -> APIRouter:
    """The route."""
    routes, metrics = APIRouter(), Metrics(worker)
    worker.observers.append(metrics.observe)

    @routes.get("/metrics", response_class=Response)
    def told() -> Response:  # in a thread: it reads files
        """The numbers, in Prometheus' text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes
