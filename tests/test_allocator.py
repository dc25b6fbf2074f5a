"""The C library's memory: kept where it is told to, and not by importing sdcore."""

import subprocess
import sys

import pytest

import sdcore

# Ten tensors of 64 MB, one after the other: how many pages does the system hand out for them?
CODE = """
import resource, sys
import sdcore
done = sdcore.tune_allocator() if sys.argv[1] == "tune" else None
import torch
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):  # until it has a hole for every alignment
    torch.ones(1 << 24)
before = faults()
for _ in range(10):
    torch.ones(1 << 24)
print(done, faults() - before)
"""


def pages(how: str) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True
    )
    said, count = done.stdout.split()
    return said, int(count)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_what_is_freed_is_used_again() -> None:
    said, tuned = pages("tune")
    if said != "True":
        pytest.skip("another C library")
    assert tuned < pages("leave")[1] / 4


def test_it_can_be_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDCORE_ALLOCATOR", "system")
    assert sdcore.tune_allocator() is False
