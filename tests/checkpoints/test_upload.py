"""Weights to a device in parts: the same bits, whatever their size."""

import pytest
import torch

from sdcore.checkpoints.upload import Upload

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_bits(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    upload = Upload(torch.device(device), size=64)
    generator = torch.Generator().manual_seed(0)
    kept = []
    for shape in ((), (0,), (3,), (16,), (17,), (5, 7, 3), (200,)):
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int8):
            tensor = (100 * torch.randn(shape, generator=generator)).to(dtype)
            kept.append((tensor, upload(tensor)))
    for tensor, sent in kept:  # after all of them: a buffer that is used anew changes nothing
        assert sent.device.type == device
        assert sent.dtype == tensor.dtype
        assert torch.equal(sent.cpu(), tensor)
    turned = torch.arange(100.0).view(10, 10).T
    assert torch.equal(upload(turned).cpu(), turned)
