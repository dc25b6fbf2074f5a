"""Attention where float16 would not hold its scores."""

import pytest
import torch

from sdcore.models import UNet, UNetConfig, layers
from sdcore.models.layers import Attention, attend


def test_scores_beyond_float16() -> None:
    """q k^T up to 4 million, where float16 ends at 65504: torch keeps them in float32."""
    torch.manual_seed(0)
    q, v = (250 * torch.randn(1, 64, 128)).half(), torch.randn(1, 64, 128).half()
    assert (q[..., :64].float() @ q[..., :64].float().mT).max() > 3e6
    half, whole = attend(q, q, v, 2), attend(q.float(), q.float(), v.float(), 2)
    assert half.isfinite().all()
    assert torch.equal(half, whole.half())


@pytest.mark.parametrize("upcast", [False, True])
def test_attention_is_float32_where_scores_would_not_be(
    upcast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []

    def spy(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: object, **__: object):
        seen.append(q.dtype)
        return attend(q, k, v, 2)

    monkeypatch.setattr(layers, "FLOAT32_SCORES", ())
    monkeypatch.setattr(layers, "attend", spy)
    attention = Attention(8, 2, upcast=upcast).half()
    out = attention(torch.randn(1, 4, 8).half())
    assert out.dtype == torch.float16
    assert seen == [torch.float32 if upcast else torch.float16]


def test_the_configuration_asks_for_it() -> None:
    for published, upcast in ((True, True), (None, False)):
        config = UNetConfig.from_dict(
            {
                "block_out_channels": [32, 32],
                "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
                "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
                "upcast_attention": published,
            }
        )
        with torch.device("meta"):
            found = [m.upcast for m in UNet(config).modules() if isinstance(m, Attention)]
        assert found
        assert set(found) == {upcast}
