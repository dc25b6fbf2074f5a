"""What was measured: printed at once, written after each section."""

from __future__ import annotations

import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

STARTED = time.time()


class Report:
    """What was measured, by section; printed at once, written after each section."""

    def __init__(self, out: Path | None, device: torch.device, tiny: bool) -> None:
        self.out, self.device, self.tiny = out, device, tiny
        self.sections: dict[str, dict[str, Any]] = {}
        self.now: dict[str, Any] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        self.now[name] = value
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"   {name}: {shown}", flush=True)

    @contextmanager
    def section(self, name: str) -> Iterator[Report]:
        print(f"\n## {name}  [{time.time() - STARTED:.0f} s]", flush=True)
        self.now = self.sections.setdefault(name, {})
        begun = time.time()
        try:
            yield self
        except Exception as error:
            self.now["FAILED"] = f"{type(error).__name__}: {error}"
            traceback.print_exc(limit=-6, file=sys.stdout)
            print(f"   FAILED: {type(error).__name__}: {str(error)[:300]}", flush=True)
        self.now["seconds"] = round(time.time() - begun, 1)
        self.write()

    def write(self) -> None:
        if self.out is None:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "report.json").write_text(json.dumps(self.sections, indent=1, default=str))
        lines = []
        for name, values in self.sections.items():
            lines += [f"## {name}", "", "| | |", "|---|---|"]
            for key, value in values.items():
                shown = f"{value:.4g}" if isinstance(value, float) else str(value)
                lines.append(f"| {key} | {shown} |")
            lines.append("")
        (self.out / "report.md").write_text("\n".join(lines))

    def timed(self, function: Callable[[], Any], count: int = 20, warm: int = 3) -> float:
        """Milliseconds a call, the median; on a GPU between events, the host not waited for."""
        if self.device.type != "cuda":
            count, warm = 2, 1
        with torch.inference_mode():
            for _ in range(warm):
                function()
            if self.device.type != "cuda":
                times = []
                for _ in range(count):
                    begun = time.perf_counter()
                    function()
                    times.append(1e3 * (time.perf_counter() - begun))
                return statistics.median(times)
            marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
            torch.cuda.synchronize()
            marks[0].record()
            for mark in marks[1:]:
                function()
                mark.record()
            torch.cuda.synchronize()
        return statistics.median(a.elapsed_time(b) for a, b in pairwise(marks))

    def hosted(self, function: Callable[[], Any], count: int = 10) -> float:
        """Microseconds until a call returns, whatever the device is still at."""
        with torch.inference_mode():
            function()
            self.sync()
            begun = time.perf_counter()
            for _ in range(count):
                function()
            taken = time.perf_counter() - begun
            self.sync()
        return 1e6 * taken / count

    def sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
