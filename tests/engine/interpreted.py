"""Triton's kernels, where there is no GPU by its interpreter: tests/conftest.py chooses it."""

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def kernels():
    """The module, for tensors on DEVICE; skips where there is no Triton."""
    pytest.importorskip("triton")
    from sdcore.engine import kernels

    return kernels


def cuda_ops():
    kernels()
    from sdcore.engine.cuda import CudaOps

    return CudaOps()


torch.backends.cudnn.allow_tf32 = False  # convs in "float32" would be right to 1e-3 only
