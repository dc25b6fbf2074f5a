"""What a figure depends on beside what was asked: a kept one counts only where it is equal."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from pathlib import Path

import torch

import sdcore
from sdcore.cli.bench import processor


@cache
def state() -> str:
    """12 hex digits of sdcore's code, of torch's and Python's version and of the processor.

    What is kept lies under them, so that a command which was stopped goes on, and no table has
    figures of another code or another machine in it.
    """
    return digest(Path(sdcore.__file__).parent, processor() or platform.machine())


def digest(code: Path, machine: str) -> str:
    """Of every Python file below a folder, by its place in it, and of what runs it."""
    whole = hashlib.sha256(repr((machine, torch.__version__, platform.python_version())).encode())
    for path in sorted(code.rglob("*.py")):
        whole.update(f"{path.relative_to(code)}\0".encode() + path.read_bytes() + b"\0")
    return whole.hexdigest()[:12]
