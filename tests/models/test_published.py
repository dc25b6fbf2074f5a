"""Every published configuration is read, and means the network that was published."""

import pytest
import torch

from scripts.families import PUBLISHED
from sdcore.checkpoints.load import NoInit
from sdcore.models import VAE, TextEncoder, TextEncoderConfig, UNet, UNetConfig, VAEConfig

KINDS = {
    "text_encoder": (TextEncoderConfig, TextEncoder),
    "unet": (UNetConfig, UNet),
    "vae": (VAEConfig, VAE),
}
PARTS = [
    pytest.param(name, raw, id=f"{model.split('/')[1]}-{name}")
    for model, parts in PUBLISHED.items()
    for name, raw in parts.items()
    if name.startswith(("text_encoder", "unet", "vae"))
]
UNET_PARAMETERS = {
    (4, 768, None): 859_520_964,
    (4, 768, 256): 859_602_884,
    (9, 768, None): 859_535_364,
    (4, 1024, None): 865_910_724,
    (9, 1024, None): 865_925_124,
    (4, 2048, None): 2_567_463_684,
    (9, 2048, None): 2_567_478_084,
    (4, 1280, None): 2_259_526_660,
}


@pytest.mark.parametrize(("name", "raw"), PARTS)
def test_every_published_configuration(name: str, raw: dict) -> None:
    kind = next(kind for kind in KINDS if name.startswith(kind))
    read, build = KINDS[kind]
    config = read.from_dict(raw)
    for field, value in raw.items():
        if value is not None and hasattr(config, field):
            same = tuple(value) if isinstance(value, list) else value
            assert getattr(config, field) == same, field
    with torch.device("meta"), NoInit():
        count = sum(p.numel() for p in build(config).parameters())
    if kind == "unet":
        shape = (raw["in_channels"], raw["cross_attention_dim"], raw.get("time_cond_proj_dim"))
        assert count == UNET_PARAMETERS[shape]
    elif kind == "vae":
        assert count == 83_653_863
    else:
        projected = "CLIPTextModelWithProjection" in raw["architectures"]
        assert config.with_projection == projected
        assert count == {768: 123_060_480, 1024: 340_387_840, 1280: 694_659_840}[config.hidden_size]
