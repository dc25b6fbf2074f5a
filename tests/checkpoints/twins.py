"""Small random models of SD 1's and SD 2's structure, as a folder and as a single file."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import sdcore
from sdcore.checkpoints import Checkpoint, load_component
from tests.checkpoints.ldm_writer import ldm_clip, ldm_open_clip, ldm_unet, ldm_vae, training_state
from tests.conftest import write_tokenizer

DRAW: dict[str, Any] = {"steps": 2, "width": 32, "height": 32, "seeds": [3]}


def seeded(build: Callable[[], nn.Module]) -> Any:
    """A module with no two parameters alike: norms and biases too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    return module


class Twins:
    """A small random model of a family, as a folder and as a single file."""

    def __init__(self, root: Path, second: bool, channels: int = 4, v: bool = False) -> None:
        from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        self.root, self.folder = root, root / "folder"
        write_tokenizer(self.folder / "tokenizer")
        size = len(json.loads((self.folder / "tokenizer" / "vocab.json").read_text()))
        text = CLIPTextConfig(
            vocab_size=size,
            hidden_size=128,
            intermediate_size=96,
            num_hidden_layers=23 if second else 3,
            num_attention_heads=2,
            hidden_act="gelu" if second else "quick_gelu",
            eos_token_id=2,
        )
        widths, layers = ((64, 128), 1) if second else ((32, 64, 64), 2)
        down = ("CrossAttnDownBlock2D",) * (len(widths) - 1) + ("DownBlock2D",)
        unet = {
            "sample_size": 96 if v else 64,
            "in_channels": channels,
            "block_out_channels": widths,
            "layers_per_block": layers,
            "down_block_types": down,
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (len(widths) - 1),
            "attention_head_dim": (1, 2) if second else 8,
            "cross_attention_dim": 128,
            "use_linear_projection": second,
        }
        vae = {
            "block_out_channels": (32, 32, 64, 32),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "layers_per_block": 2,
        }
        networks = {
            "text_encoder": seeded(lambda: CLIPTextModel(text)),
            "unet": seeded(lambda: UNet2DConditionModel(**unet)),
            "vae": seeded(lambda: AutoencoderKL(**vae)),
        }
        if v:
            up = networks["unet"].up_blocks[-1].attentions[-1]
            nn.init.normal_(up.transformer_blocks[0].norm1.bias, std=0.2)
        scheduler = DDIMScheduler if v else PNDMScheduler
        networks["scheduler"] = scheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type="v_prediction" if v else "epsilon",
            **({"clip_sample": False} if v else {"skip_prk_steps": True}),
        )
        for name, network in networks.items():
            network.save_pretrained(self.folder / name)
        (self.folder / "model_index.json").write_text("{}")
        if second:
            special = self.folder / "tokenizer" / "special_tokens_map.json"
            special.write_text(json.dumps(json.loads(special.read_text()) | {"pad_token": "!"}))
        state = {name: networks[name].state_dict() for name in ("text_encoder", "unet", "vae")}
        self.tensors = {
            **ldm_unet(state["unet"], len(widths), layers),
            **ldm_vae(state["vae"], 4, 2),
            **training_state(),
        }
        if second:
            prefix = "cond_stage_model.model."
            self.tensors |= ldm_open_clip(state["text_encoder"], prefix, layers=23, extra=1)
        else:
            self.tensors |= ldm_clip(state["text_encoder"], "cond_stage_model.transformer.")
        self.file = self.write("model", {})
        write_tokenizer(root / "tokenizer")  # pads with <|endoftext|>, whatever the model does

    def write(self, name: str, more: Mapping[str, Tensor | None]) -> Path:
        """The file with some tensors added, replaced, or (None) left out."""
        tensors = {k: t for k, t in {**self.tensors, **more}.items() if t is not None}
        return save(self.root / f"{name}.safetensors", tensors)


def save(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    save_file({k: t.clone().contiguous() for k, t in tensors.items()}, path)
    return path


def modules(checkpoint: Checkpoint) -> dict[str, nn.Module]:
    return {name: load_component(part) for name, part in checkpoint.components.items()}


def picture(model: Path, prompt: str = "a red boat!", **how: Any) -> bytes:
    run = sdcore.load(model, device="cpu").prepare(prompt, **{**DRAW, **how})
    with torch.inference_mode():
        return run.decode([step.x_next for step in run][-1])[0].tobytes()
