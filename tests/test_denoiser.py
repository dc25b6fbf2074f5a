"""The UNet's only caller: scaling, timesteps, branches, forms, dtypes, extra inputs."""

import pytest
import torch
from torch import Tensor

from sdcore.denoiser import Denoiser
from sdcore.guidance import CFG
from sdcore.models import UNet, UNetConfig
from sdcore.process import VariancePreserving

X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 5
U = torch.full((2, 3, 6), 0.1)
C = torch.full((2, 3, 6), 0.7)
BOTH = {"uncond": {"context": U}, "cond": {"context": C}}


class Spy:
    """A UNet that keeps what it was given and says x / 2 + the mean of its context."""

    def __init__(self):
        self.calls = []

    def __call__(self, x: Tensor, t: float, context: Tensor, **added: Tensor) -> Tensor:
        self.calls.append((x, t, context, added))
        return x[:, :4] / 2 + context.mean((1, 2))[:, None, None, None]


class Hundredths:
    """A clock that tells the network 100 sigma."""

    def timestep(self, sigma: float) -> float:
        return 100 * sigma

    def sigma(self, t: float) -> float:
        return t / 100


def made(spy, guidance, prediction_type="epsilon", conditions=BOTH, **options):
    process = VariancePreserving(Hundredths(), prediction_type)
    return Denoiser(spy, process, conditions, guidance, **options)


def test_branches_are_one_call_in_order_uncond_cond():
    spy = Spy()
    sigma, scale = 3.0, 7.5
    prediction = made(spy, CFG(scale))(X, sigma)
    ((x, t, context, added),) = spy.calls
    assert torch.equal(x[:2], X * (1 + sigma**2) ** -0.5)
    assert torch.equal(x[2:], x[:2])
    assert t == 300.0
    assert torch.equal(context, torch.cat([U, C]))
    assert added == {}
    assert list(prediction.branches) == ["uncond", "cond"]
    eps = x[:2] / 2 + 0.1 + scale * 0.6
    assert (prediction.eps - eps).abs().max() <= 1e-5
    assert (prediction.x0 - (X - sigma * eps)).abs().max() <= 2e-5


@pytest.mark.parametrize(("scale", "context"), [(1, C), (0, U)])
def test_one_branch_is_one_small_call(scale, context):
    spy = Spy()
    prediction = made(spy, CFG(scale))(X, 1.0)
    ((x, _, given, _),) = spy.calls
    assert x.shape == X.shape
    assert torch.equal(given, context)
    assert len(prediction.branches) == 1


def test_the_same_context_tensor_comes_back():
    """A UNet may cache its keys and values by it."""
    spy = Spy()
    denoise = made(spy, CFG(2))
    denoise(X, 2.0)
    denoise(X, 1.0)
    assert spy.calls[0][2] is spy.calls[1][2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("x_dtype", [torch.float32, torch.float64])
def test_one_cast_in_and_one_out(dtype, x_dtype):
    seen = []

    def unet(x, t, context):
        seen.append(x.dtype)
        return x / 2

    prediction = made(unet, CFG(3), dtype=dtype)(X.to(x_dtype), 2.0)
    assert seen == [dtype]
    assert prediction.x0.dtype == prediction.eps.dtype == x_dtype


def test_without_a_dtype_the_network_gets_xs():
    spy = Spy()
    made(spy, CFG(1))(X.double(), 1.0)
    assert spy.calls[0][0].dtype == torch.float64


def test_whatever_a_unet_is_told_is_joined_by_branch():
    told = {
        "uncond": {"context": U, "text_embeds": torch.zeros(2, 5), "time_ids": torch.ones(2, 6)},
        "cond": {"context": C, "text_embeds": torch.ones(2, 5), "time_ids": torch.ones(2, 6)},
    }
    spy = Spy()
    made(spy, CFG(3), conditions=told)(X, 2.0)
    made(spy, CFG(1), conditions=told)(X, 2.0)
    both, one = spy.calls[0][3], spy.calls[1][3]
    assert torch.equal(both["text_embeds"], torch.cat([torch.zeros(2, 5), torch.ones(2, 5)]))
    assert both["time_ids"].shape == (4, 6)
    assert torch.equal(one["text_embeds"], torch.ones(2, 5))


def test_inpainting_channels_reach_the_network_unscaled():
    torch.manual_seed(0)
    config = UNetConfig(
        in_channels=9,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=6,
        layers_per_block=1,
    )
    unet, extra, seen = UNet(config), torch.randn(2, 5, 8, 8), []
    unet.conv_in.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    told = {name: {**parts, "extra": extra} for name, parts in BOTH.items()}
    with torch.no_grad():
        made(unet, CFG(3), conditions=told)(X, 2.0)
    assert seen[0].shape == (4, 9, 8, 8)
    assert torch.equal(seen[0][:, 4:], torch.cat([extra, extra]))
    assert torch.equal(seen[0][:2, :4], X * (1 + 4.0) ** -0.5)


def test_guidance_may_change_with_sigma():
    spy = Spy()
    denoise = made(spy, CFG(3, sigma_low=1.0))
    for sigma in (2.0, 0.5, 2.0):
        denoise(X, sigma)
    assert [len(call[0]) for call in spy.calls] == [4, 2, 4]


def test_arguments_are_left_alone():
    x = X.clone()
    made(Spy(), CFG(7.5), "v_prediction")(x, 3.0)
    assert torch.equal(x, X)
