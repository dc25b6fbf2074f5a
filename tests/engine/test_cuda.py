"""What only a GPU shows: graphs."""

import pytest
import torch

from sdcore.engine import Lossy, ready, ready_decoder
from sdcore.engine.calls import GRAPHS
from tests.engine.networks import latents, told, unet, vae

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["SD 1.x", "SDXL", "inpainting", "LCM"])
def test_a_graph_is_equal_to_the_bit(name: str, dtype: torch.dtype) -> None:
    net = unet(name).to("cuda", dtype)
    said = {key: value.to("cuda", dtype) for key, value in told(net, 2).items()}
    fast = ready(net, [900.0, 10.0])
    for rows in (2, 2):
        x = latents(rows).to("cuda", dtype)
        fast.record = True
        graph = [fast(x, t, **said) for t in (900.0, 10.0, 33.3)]
        fast.record = False
        for t, out in zip((900.0, 10.0, 33.3), graph, strict=True):
            assert torch.equal(fast(x, t, **said), out)
    assert len(fast.kept.recorded) == 1


@pytest.mark.parametrize("lossy", ["deepcache:every=2+tgate", "tome:ratio=0.7", "bf16"])
def test_what_is_lossy_is_recorded_too(lossy: str) -> None:
    net = unet("SD 1.x").to("cuda")
    said = {key: value.to("cuda") for key, value in told(net, 2).items()}
    times, x = [900.0, 700.0, 500.0, 300.0, 100.0], latents(2).to("cuda")
    answers = []
    for record in (True, False):
        call = ready(net, times, lossy=Lossy.read(lossy))
        call.record = record
        answers.append([call(x * (1 + t / 1000), t, **said) for t in times])
    assert all(map(torch.equal, *answers))


def test_the_decoder_too_and_no_more_than_a_few_are_kept() -> None:
    net = vae().to("cuda", torch.float16)
    fast = ready_decoder(net)
    for side in range(3, 3 + GRAPHS + 2):
        z = torch.randn(1, 4, side, side, device="cuda", dtype=torch.float16)
        fast.record = True
        out = fast(z)
        fast.record = False
        assert torch.equal(fast(z), out)
    assert len(fast.kept.recorded) == GRAPHS


def test_no_call_waits_for_the_device() -> None:
    net = unet("SD 1.x").to("cuda")
    said = {key: value.to("cuda") for key, value in told(net, 2).items()}
    x, fast = latents(2).to("cuda"), ready(net, [900.0, 10.0])
    fast(x, 900.0, **said)
    torch.cuda.set_sync_debug_mode("error")
    try:
        fast(x, 10.0, **said)
    finally:
        torch.cuda.set_sync_debug_mode("default")
