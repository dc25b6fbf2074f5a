"""The VAEs by themselves: what a tensor may come in."""

import pytest
import torch

from sdcore.engine import ready_decoder
from sdcore.models import VAE, TinyVAE, TinyVAEConfig, VAEConfig

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def vaes() -> list[VAE | TinyVAE]:
    torch.manual_seed(0)
    narrow = {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4}
    tiny = TinyVAEConfig(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    return [VAE(VAEConfig(**narrow)).eval(), TinyVAE(tiny).eval()]


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_latents_and_pictures_of_any_dtype(dtype: torch.dtype) -> None:
    for vae in vaes():
        z, image = torch.randn(1, 4, 4, 4).to(dtype), torch.rand(1, 3, 16, 16).to(dtype)
        assert torch.equal(vae.decode(z), vae.decode(z.float()))
        assert torch.equal(vae.encode(image).mean, vae.encode(image.float()).mean)
        if isinstance(vae, VAE):
            fast = ready_decoder(vae, "auto")
            assert torch.equal(fast(z), fast(z.float()))


@torch.inference_mode()
def test_networks_of_another_dtype_take_float32() -> None:
    for vae in vaes():
        half = vae.to(torch.bfloat16)
        z = torch.randn(1, 4, 4, 4)
        assert half.decode(z).dtype == half.encode(half.decode(z).float()).mean.dtype == half.dtype
        assert torch.equal(half.decode(z), half.decode(z.bfloat16()))


def test_gradients_come_back_in_the_dtype_of_the_latents() -> None:
    z = torch.randn(1, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    vaes()[0].decode(z).square().mean().backward()
    assert z.grad is not None
    assert z.grad.dtype == torch.float64
    assert z.grad.abs().max() > 0
