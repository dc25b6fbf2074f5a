"""The LDM layout of single files (CompVis, Stability-AI, sgm), brought to the modules' own names.

An LDM network is a list of nn.Sequentials: its keys count where the modules' names tell. Each rule
here takes a key without its component's prefix and gives the name of the parameter, or None for a
key that no Stable Diffusion network has. Where a parameter is stored in another form than the
modules', the name says so, and `pieces` has the transform.
"""

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from sdcore.checkpoints.parameter_names import Cut, whole

UNET_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
VAE_RESNET = {
    **{name: name for name in ("norm1", "conv1", "norm2", "conv2")},
    "nin_shortcut": "conv_shortcut",
}
VAE_ATTENTION = {
    # As diffusers' script of conversion has written them since 0.18; the old ones are written.
    **{name: name for name in ("to_q", "to_k", "to_v", "to_out.0")},
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}
OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
    "attn": "self_attn",  # in_proj_weight, in_proj_bias: see `pieces`
}
OPEN_CLIP = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection",  # used as x @ P: see `pieces`
    "text_projection.weight": "text_projection.weight",
}


def unet_name(key: str, layers: int) -> str | None:
    """A UNet of so many residual blocks on every level of its way down.

    >>> unet_name("input_blocks.4.0.in_layers.2.weight", layers=2)
    'down_blocks.1.resnets.0.conv1.weight'
    """
    # Down, a level is `layers` blocks and a halving, and conv_in goes before all; up, it is one
    # block more, and the doubling belongs to the last of them.
    per_level = layers + 1
    match _split(key):
        case ["input_blocks", 0, 0, str(last)]:
            return f"conv_in.{last}"
        case ["input_blocks", int(i), 0, "op", str(last)]:
            return f"down_blocks.{(i - 1) // per_level}.downsamplers.0.conv.{last}"
        case ["input_blocks", int(i), 0 | 1 as place, *rest]:
            return _block(f"down_blocks.{(i - 1) // per_level}", place, (i - 1) % per_level, rest)
        case ["middle_block", 0 | 1 | 2 as i, *rest]:
            return _block("mid_block", i % 2, i // 2, rest)
        case ["output_blocks", int(i), 1 | 2, "conv", str(last)]:
            return f"up_blocks.{i // per_level}.upsamplers.0.conv.{last}"
        case ["output_blocks", int(i), 0 | 1 as place, *rest]:
            return _block(f"up_blocks.{i // per_level}", place, i % per_level, rest)
        case ["time_embed", 0 | 2 as i, str(last)]:
            return f"time_embedding.linear_{i // 2 + 1}.{last}"
        case ["time_embed" | "time_embedding", "cond_proj", str(last)]:
            return f"time_embedding.cond_proj.{last}"
        case ["label_emb", 0, 0 | 2 as i, str(last)]:
            return f"add_embedding.linear_{i // 2 + 1}.{last}"
        case ["out", 0, str(last)]:
            return f"conv_norm_out.{last}"
        case ["out", 2, str(last)]:
            return f"conv_out.{last}"
    return None


def vae_name(key: str, levels: int) -> str | None:
    """An AutoencoderKL of so many resolutions. LDM numbers the decoder's from the largest.

    >>> vae_name("decoder.up.3.block.0.nin_shortcut.bias", levels=4)
    'decoder.up_blocks.0.resnets.0.conv_shortcut.bias'
    """
    match _split(key):
        case ["quant_conv" | "post_quant_conv", str()]:
            return key
        case ["encoder" | "decoder", "conv_in" | "conv_out", str()]:
            return key
        case ["encoder" | "decoder" as side, "norm_out", str(last)]:
            return f"{side}.conv_norm_out.{last}"
        case ["encoder" | "decoder" as side, "mid", "block_1" | "block_2" as block, *rest]:
            head = f"{side}.mid_block.resnets.{int(block[-1]) - 1}"
            return _inside(head, VAE_RESNET, rest)
        case ["encoder" | "decoder" as side, "mid", "attn_1", *rest]:
            return _inside(f"{side}.mid_block.attentions.0", VAE_ATTENTION, rest)
        case ["encoder", "down", int(i), "block", int(j), *rest]:
            return _inside(f"encoder.down_blocks.{i}.resnets.{j}", VAE_RESNET, rest)
        case ["decoder", "up", int(i), "block", int(j), *rest]:
            return _inside(f"decoder.up_blocks.{levels - 1 - i}.resnets.{j}", VAE_RESNET, rest)
        case ["encoder", "down", int(i), "downsample", "conv", str(last)]:
            return f"encoder.down_blocks.{i}.downsamplers.0.conv.{last}"
        case ["decoder", "up", int(i), "upsample", "conv", str(last)]:
            return f"decoder.up_blocks.{levels - 1 - i}.upsamplers.0.conv.{last}"
    return None


def open_clip_name(key: str) -> str | None:
    """OpenCLIP's text encoder: that of SD 2.x, SDXL's second.

    >>> open_clip_name("transformer.resblocks.7.mlp.c_fc.bias")
    'text_model.encoder.layers.7.mlp.fc1.bias'
    """
    match _split(key):
        case ["transformer", "resblocks", int(i), *rest]:
            return _inside(f"text_model.encoder.layers.{i}", OPEN_CLIP_LAYER, rest)
    return OPEN_CLIP.get(key)


def pieces(name: str) -> Mapping[str, Cut]:
    """The parameters in the tensor that a rule calls `name`, each with its transform.

    >>> list(pieces("text_model.encoder.layers.7.self_attn.in_proj_bias"))[2]
    'text_model.encoder.layers.7.self_attn.v_proj.bias'
    """
    head, _, last = name.rpartition(".")
    if last in ("in_proj_weight", "in_proj_bias"):
        last = last.removeprefix("in_proj_")
        return {f"{head}.{part}_proj.{last}": partial(third, n) for n, part in enumerate("qkv")}
    if name == "text_projection":
        return {"text_projection.weight": transposed}
    if ".mid_block.attentions.0.to_" in name and last == "weight":
        return {name: matrix}
    return {name: whole}


def third(n: int, stored: Tensor) -> Tensor:
    """One of query, key and value, which lie row on row: [3D, ...] -> [D, ...]."""
    return stored.chunk(3)[n]


def transposed(stored: Tensor) -> Tensor:
    """x @ P -> linear(x), whose weight is P^T."""
    return stored.t().contiguous()


def matrix(stored: Tensor) -> Tensor:
    """A 1x1 convolution as the linear layer that it is: [out, in, 1, 1] -> [out, in]."""
    return stored.flatten(1)


def _split(key: str) -> list[str | int]:
    """The parts of a key, its numbers as numbers."""
    return [int(p) if p.isdecimal() and len(p) < 4 else p for p in key.split(".")]


def _block(head: str, place: int, n: int, rest: list[str | int]) -> str | None:
    """Place 0 of a Sequential is a residual block, place 1 a transformer, its names unchanged."""
    if place == 0:
        return _inside(f"{head}.resnets.{n}", UNET_RESNET, rest)
    return ".".join(map(str, [head, "attentions", n, *rest]))


def _inside(head: str, names: Mapping[str, str], rest: list[str | int]) -> str | None:
    """`head`, the new name of the layer that `rest` begins with, and its last part unchanged."""
    layer, _, last = ".".join(map(str, rest)).rpartition(".")
    return f"{head}.{names[layer]}.{last}" if layer in names else None
