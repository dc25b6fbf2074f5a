"""What a file is that is no whole model, told by parts of its keys that only its kind has."""

from collections.abc import Collection

VIDEO = ".time_stack."  # what Stable Video Diffusion has between SD's own layers

# The most telling first.
OTHER_KINDS = {
    "a video model": (VIDEO,),
    "a ControlNet": (
        "control_model.",
        "controlnet_",
        "lora_controlnet",
        "lllite_",
        "input_hint_block.",
    ),
    "an IP-Adapter": ("ip_adapter.", "image_proj."),
    "a PhotoMaker": ("id_encoder.",),
    "a motion module": ("motion_modules.",),
    "a T2I-Adapter": (
        "adapter.body.",
        "body.0.block1.",
        "body.0.resnets.0.block1.",
        "transformer_layes.",
    ),
    "an OFT adapter": (".oft_blocks", ".oft_diag", ".oft_r", ".oft_R."),
    "a BOFT adapter": (".boft_",),
    "an IA3 adapter": (".ia3_l", ".on_input"),
    "a LoRA": ("lora_", ".lora.", "_lora.", ".hada_", ".lokr_", ".a1.weight"),
    "a Flux model": ("double_blocks.", "single_transformer_blocks."),
    "an SD 3 model": ("joint_blocks.", ".ff_context."),
    "an upscaler": (
        "RRDB_trunk.",
        "body.0.rdb1.",
        "model.1.sub.0.",
        "residual_group.blocks.",
        "low_res_model.",
    ),
    "a hypernetwork": ("layer_structure", ".linear1.weight"),
    "a safety checker": ("concept_embeds",),
    "a textual inversion": ("emb_params", "clip_g", "clip_l", "string_to_param"),
    "a UNet in the diffusers layout": ("down_blocks.0.resnets.0.time_emb_proj.",),
    "a VAE": ("decoder.conv_in.", "decoder.layers.", "quant_conv.", "3.conv.0.weight"),
    "a text encoder": ("text_model.", "resblocks.", "embeddings.token_embedding."),
    "an image encoder": ("vision_model.", "visual.", "visual_projection."),
    "a bare UNet": ("input_blocks.",),
}
# What can be done with some of them all the same.
USES = {
    "a LoRA": "--lora lays it over one",
    "a textual inversion": "--embedding teaches one its word",
    "a UNet in the diffusers layout": "--unet puts it into one",
    "a VAE": "--vae puts it into one",
    "a text encoder": "--text-encoder puts it into one",
    "a bare UNet": "--unet puts it into one",
}


def other_kind(keys: Collection[str]) -> str:
    """What a file holds that is no whole model, with its article; "" where nothing tells.

    >>> other_kind(["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"])
    'an IP-Adapter'
    """
    for kind, marks in OTHER_KINDS.items():
        if any(mark in key for key in keys for mark in marks):
            return kind
    return ""
