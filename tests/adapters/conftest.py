"""A small model with several layers of every sort, and adapters for it written by hand."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import sdcore
from sdcore.loading import load
from sdcore.pipeline import StableDiffusion

ATTENTION = "down_blocks.0.attentions.0"
BLOCK = f"{ATTENTION}.transformer_blocks.0"
LAYER = "text_model.encoder.layers.1"
# A linear layer, a 1x1 and a 3x3 convolution, a strided one, and two of the text encoder.
UNET = (f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn2.to_out.0", f"{BLOCK}.ff.net.0.proj")
CONVS = (f"{ATTENTION}.proj_in", "mid_block.resnets.0.conv1", "down_blocks.0.downsamplers.0.conv")
TEXT = (f"{LAYER}.self_attn.q_proj", f"{LAYER}.mlp.fc1")

Save = Callable[..., Path]


@pytest.fixture(scope="session")
def sd(tiny_path: Path) -> StableDiffusion:
    return load(tiny_path, device="cpu", engine="plain")


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def save(
        tensors: Mapping[str, Tensor], name: str = "style", metadata: dict[str, str] | None = None
    ) -> Path:
        path = tmp_path / f"{name}.safetensors"
        save_file({k: t.clone().contiguous() for k, t in tensors.items()}, path, metadata)
        return path

    return save


def rand(*shape: int, seed: int = 0, size: float = 0.2) -> Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def flat(name: str) -> str:
    return name.replace(".", "_")


def weight(sd: StableDiffusion, place: str) -> Tensor:
    """By a dotted path that begins with the component."""
    component, _, name = place.partition(".")
    return getattr(sd, component).get_submodule(name).weight


def factors(shape: torch.Size, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """down [r, in(, k, k)] and up [out, r(, 1, 1)]."""
    ones = (1,) * (len(shape) - 2)
    return rand(rank, *shape[1:], seed=seed), rand(shape[0], rank, *ones, seed=seed + 50)


def latents(sd: StableDiffusion, prompt: str = "a red boat") -> Tensor:
    run: sdcore.Run = sd.prepare(prompt, steps=2, seeds=[1], scheduler="ddim")
    return [step.x_next for step in run][-1]
