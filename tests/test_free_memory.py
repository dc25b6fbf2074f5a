"""Whose limits are asked, and what running out of memory looks like."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sdcore.free_memory import _container, _machine, available, give_back, is_out_of_memory

GB = 10**9


def laid(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_machine(tmp_path: Path) -> None:
    assert list(_machine(tmp_path)) == []
    text = "MemTotal:  9 kB\nMemAvailable:    2000 kB\nSwapFree: 1 kB\n"
    assert list(_machine(laid(tmp_path, {"proc/meminfo": text}))) == [2_048_000]


def test_a_container_of_version_2(tmp_path: Path) -> None:
    """Every group above this one counts; what it holds of files' contents can be had again."""
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/memory.max": f"{4 * GB}\n",
        "sys/fs/cgroup/a/memory.current": f"{3 * GB}\n",
        "sys/fs/cgroup/a/memory.stat": f"anon {2 * GB}\ninactive_file {GB}\nactive_file 5\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/fs/cgroup/a/b/memory.current": "5\n",
        "sys/fs/cgroup/a/b/memory.stat": "inactive_file 0\n",
    }
    assert list(_container(laid(tmp_path, files))) == [2 * GB]


def test_a_container_of_version_1(tmp_path: Path) -> None:
    """Its own group is the top there, by a path that only the system outside knows."""
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/docker/xyz\n4:memory:/docker/xyz\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{4 * GB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GB}\n",
        "sys/fs/cgroup/memory/memory.stat": "cache 9\ntotal_inactive_file 0\n",
    }
    assert list(_container(laid(tmp_path, files))) == [3 * GB]
    assert list(_container(tmp_path / "elsewhere")) == []


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is kept by Linux")
def test_a_process_with_a_limit() -> None:
    code = (
        "import resource, torch\n"
        "from sdcore.free_memory import available, _process\n"
        "assert list(_process()) == []\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 10**9, resource.RLIM_INFINITY))\n"
        "print(min(_process()), available(torch.device('cpu')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    left, free = map(int, done.stdout.split())
    assert 0.9 * GB < left <= GB
    assert free <= GB  # less where the machine itself has less


def test_something_is_available_here() -> None:
    give_back()
    free = available(torch.device("cpu"))
    assert free is None or free > 0


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("could not create a primitive"),
        RuntimeError("could not create a memory object"),
        RuntimeError("std::bad_alloc"),
        ImportError("libtorch.so: failed to map segment from shared object"),
    ],
)
def test_what_running_out_looks_like(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes differ"),
        RuntimeError("could not create a primitive descriptor for a convolution"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("can't allocate memory"),
    ],
)
def test_what_it_does_not_look_like(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_the_allocator_says_so() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
