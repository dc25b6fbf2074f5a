"""Whose an adapter's keys are: every trainer spells the layers in its own way.

kohya, SD 1.x and 2.x  lora_unet_mid_block_attentions_0_proj_in.lora_down.weight, lora_te_
LyCORIS by itself      lycoris_mid_block_attentions_0_proj_in.lokr_w1
kohya, SDXL            lora_unet_middle_block_1_proj_in.lora_down.weight, lora_te1_, lora_te2_
diffusers, PEFT        unet.mid_block.attentions.0.proj_in.lora_A.weight, text_encoder. ...
older diffusers        unet.mid_block. ... .attn1.processor.to_q_lora.down.weight; unet.unet. ...
ComfyUI's nodes        diffusion_model.middle_block. ..., text_encoders.clip_l.transformer. ...
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import nn

from sdcore.checkpoints.ldm import UNET_RESNET, unet_name
from sdcore.models import UNet

Place = tuple[str, str]  # component ("unet" ...), name of the layer in it

_ENDINGS = {
    **{f"{mark}down.weight": "down" for mark in ("lora_", "lora.", "lora_linear_layer.")},
    **{f"{mark}up.weight": "up" for mark in ("lora_", "lora.", "lora_linear_layer.")},
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_mid.weight": "mid",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    **{name: name for name in ("alpha", "dora_scale", "diff", "diff_b", "w_norm", "b_norm")},
    **{f"hada_{w}": f"hada_{w}" for w in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f"{w}.weight": f"glora_{w}" for w in ("a1", "a2", "b1", "b2")},
    **{f"lokr_{w}": f"lokr_{w}" for w in ("w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
}
_ENDING = re.compile(rf"(.+)\.({'|'.join(map(re.escape, _ENDINGS))})")
# PEFT writes an adapter's name into its keys while it is in use.
_NAMED = re.compile(r"\.(lora_A|lora_B|lora_magnitude_vector)\.(?!weight$)\w+(?=\.weight$|$)")
_PROCESSOR = re.compile(
    r"(.+?)(?:\.processor)?\.to_(q|k|v|out)_lora\.(down\.weight|up\.weight|alpha)"
)
_COMFYUI = {"text_encoder": ("clip_l", "clip_h"), "text_encoder_2": ("clip_g",)}
_PREFIXES = {
    "unet": ("lora_unet", "lycoris"),
    "text_encoder": ("lora_te", "lora_te1"),
    "text_encoder_2": ("lora_te2",),
}


def split_key(key: str) -> tuple[str, str] | None:
    """The layer as the file spells it, and which part of the adapter the key is.

    >>> split_key("unet.mid_block.attn1.processor.to_out_lora.up.weight")
    ('unet.mid_block.attn1.to_out.0', 'up')
    """
    key = _NAMED.sub(r".\1", key).removeprefix("base_model.model.")
    key = key.removeprefix("unet.") if key.startswith("unet.unet.") else key
    if old := _PROCESSOR.fullmatch(key):
        head, which, part = old.groups()
        text = head.endswith("self_attn")
        layer = f"{which}_proj" if text else "to_out.0" if which == "out" else f"to_{which}"
        return f"{head}.{layer}", part.removesuffix(".weight")
    if match := _ENDING.fullmatch(key):
        return re.sub(r"\.to_out$", ".to_out.0", match[1]), _ENDINGS[match[2]]
    return None


def places(components: Mapping[str, nn.Module]) -> dict[str, Place]:
    """Every spelling of every layer with a weight, and where it is."""
    table: dict[str, Place] = {}
    for component, root in components.items():
        layers = [
            n
            for n, m in root.named_modules()
            if isinstance(getattr(m, "weight", None), nn.Parameter)
        ]
        for name in layers:
            place, flat = (component, name), name.replace(".", "_")
            for prefix in _PREFIXES[component]:
                table[f"{prefix}_{flat}"] = place
            table[f"{component}.{name}"] = place
            for which in _COMFYUI.get(component, ()):
                table[f"text_encoders.{which}.transformer.{name}"] = place
            # transformers has dropped a prefix, and files of one network lack the component.
            short = name.removeprefix("text_model.")
            table[f"{component}.{short}"] = place
            table.setdefault(name, place)
            table.setdefault(short, place)
        if isinstance(root, UNet):
            for spelt, name in _ldm_layers(root, layers):
                table.setdefault(f"lora_unet_{spelt.replace('.', '_')}", (component, name))
                table[f"diffusion_model.{spelt}"] = (component, name)
    return table


def kohya_names(components: Mapping[str, nn.Module]) -> dict[Place, str]:
    """How kohya's trainer spells each layer: of a model with two text encoders as LDM files do."""
    several = "text_encoder_2" in components
    prefixes = {name: own[several and len(own) - 1] for name, own in _PREFIXES.items()}
    prefixes["unet"] = "lora_unet"
    names = {
        (component, name): f"{prefixes[component]}_{name.replace('.', '_')}"
        for component, root in components.items()
        for name, layer in root.named_modules()
        if isinstance(getattr(layer, "weight", None), nn.Parameter)
    }
    unet = components.get("unet")
    if several and isinstance(unet, UNet):
        layers = [name for component, name in names if component == "unet"]
        for spelt, name in _ldm_layers(unet, layers):
            names["unet", name] = f"lora_unet_{spelt.replace('.', '_')}"
    return names


def _ldm_layers(unet: UNet, layers: list[str]) -> Iterator[tuple[str, str]]:
    """Each layer's name in the LDM layout, and its own: the rule tried on all there can be."""
    per_level = unet.config.layers[0]
    blocks = len(unet.config.block_out_channels) * (per_level + 1) + 1
    heads = [f"{side}_blocks.{i}" for side in ("input", "output") for i in range(blocks)]
    heads.append("middle_block")
    spelt = ["input_blocks.0.0", "time_embed.0", "time_embed.2", "label_emb.0.0", "label_emb.0.2"]
    spelt += ["out.0", "out.2"]
    for head in heads:
        spelt += [f"{head}.{i}.{layer}" for i in (0, 2) for layer in UNET_RESNET]
        spelt += [f"{head}.0.op", f"{head}.1.conv", f"{head}.2.conv"]
        attention = (unet_name(f"{head}.1.x.weight", per_level) or "").removesuffix("x.weight")
        inside = [
            n.removeprefix(attention) for n in layers if attention and n.startswith(attention)
        ]
        spelt += [f"{head}.1.{layer}" for layer in inside]
    known = set(layers)
    for name in spelt:
        own = (unet_name(f"{name}.weight", per_level) or "").removesuffix(".weight")
        if own in known:
            yield name, own
