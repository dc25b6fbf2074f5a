"""Networks of published sizes from random weights, ours and theirs, and what they are asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scripts.gpu_check.report import Report

PUBLISHED = json.loads(Path(__file__).parent.with_name("published.json").read_text())
SD15, SDXL = "runwayml/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0"
TINY: dict[str, Any] = {"layers_per_block": 1, "norm_num_groups": 8}


def config_of(model: str, part: str, tiny: bool) -> dict[str, Any]:
    config = dict(PUBLISHED[model][part])
    if tiny:
        widths = len(config["block_out_channels"])
        config |= {**TINY, "block_out_channels": [32, 32, 64, 64][:widths], "sample_size": 8}
        if part == "unet":
            config |= {"attention_head_dim": 4, "cross_attention_dim": 16}
            if "transformer_layers_per_block" in config:
                config["transformer_layers_per_block"] = 1
    return config


def ours(model: str, part: str, report: Report, dtype: torch.dtype = torch.float32) -> Any:
    """A network with random weights, made on the device."""
    from sdcore.checkpoints.load import BUILD, NoInit

    with torch.device("meta"), NoInit():
        network = BUILD[part](config_of(model, part, report.tiny))
    network = network.to(dtype).to_empty(device=report.device)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter, dtype=torch.float32))
                parameter.mul_(parameter[0].numel() ** -0.5)
            else:
                parameter.normal_(std=0.1).add_(1.0 if "norm" in name and "weight" in name else 0.0)
    return network.eval().requires_grad_(False)


def theirs(model: str, part: str, network: Any, report: Report) -> Any:
    """diffusers' network of the same weights, shared."""
    import diffusers

    cls = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}[part]
    with torch.device("meta"):
        other = cls.from_config(config_of(model, part, report.tiny))
    other.load_state_dict(network.state_dict(), strict=True, assign=True)
    return other.eval().requires_grad_(False)


def told(model: str, unet: Any, report: Report, dtype: torch.dtype) -> tuple[Tensor, dict, int]:
    """x [2,4,h,w] and what a UNet is told, for a guided picture of the published size."""
    side = 8 if report.tiny else {SD15: 64, SDXL: 128}[model]
    rng = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=rng).to(report.device, dtype)  # noqa: E731
    config = unet.config
    what = {"context": draw(2, 77, config.cross_attention_dim)}
    if config.inputs.added:
        ids = torch.tensor([[1024, 1024, 0, 0, 1024, 1024]] * 2, device=report.device)
        what |= {"text_embeds": draw(2, config.added_dims[0] - 6 * config.added_dims[1])}
        what["time_ids"] = ids.float()
    return draw(2, 4, side, side), what, side


def asked(other: Any, x: Tensor, t: Any, what: dict) -> Tensor:
    added = {k: v for k, v in what.items() if k != "context"}
    return other(x, t, what["context"], added_cond_kwargs=added or None).sample


def apart(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def halves(report: Report) -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16] if report.device.type == "cuda" else [torch.bfloat16]
