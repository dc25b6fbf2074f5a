"""Networks of diffusers and transformers written as an LDM file: by walking the original code's
loops with a counter, not by rules on names, so that the reader is held against something else."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

StateDict = dict[str, Tensor]


class Mover:
    """Takes tensors out of a published state dict and puts them down under LDM names."""

    def __init__(self, state: Mapping[str, Tensor], prefix: str) -> None:
        self.left, self.out, self.prefix = dict(state), {}, prefix

    def has(self, old: str) -> bool:
        return any(key.startswith(old + ".") for key in self.left)

    def move(self, new: str, old: str, change: Callable[[Tensor], Tensor] = lambda t: t) -> None:
        keys = [key for key in self.left if key.startswith(old + ".")]
        assert keys, old
        for key in keys:
            self.out[f"{self.prefix}{new}{key[len(old) :]}"] = change(self.left.pop(key))

    def done(self) -> StateDict:
        assert not self.left, list(self.left)
        return self.out


def ldm_unet(state: Mapping[str, Tensor], levels: int, layers: int) -> StateDict:
    """openaimodel.UNetModel: input_blocks, middle_block, output_blocks."""
    m = Mover(state, "model.diffusion_model.")

    def resnet(new: str, old: str) -> None:
        for a, b in (("in_layers.0", "norm1"), ("in_layers.2", "conv1"), ("out_layers.0", "norm2")):
            m.move(f"{new}.{a}", f"{old}.{b}")
        m.move(f"{new}.out_layers.3", f"{old}.conv2")
        m.move(f"{new}.emb_layers.1", f"{old}.time_emb_proj")
        if m.has(f"{old}.conv_shortcut"):
            m.move(f"{new}.skip_connection", f"{old}.conv_shortcut")

    m.move("time_embed.0", "time_embedding.linear_1")
    m.move("time_embed.2", "time_embedding.linear_2")
    if m.has("time_embedding.cond_proj"):
        m.move("time_embed.cond_proj", "time_embedding.cond_proj")
    if m.has("add_embedding"):
        m.move("label_emb.0.0", "add_embedding.linear_1")
        m.move("label_emb.0.2", "add_embedding.linear_2")
    m.move("input_blocks.0.0", "conv_in")
    i = 1
    for level in range(levels):
        for layer in range(layers):
            resnet(f"input_blocks.{i}.0", f"down_blocks.{level}.resnets.{layer}")
            if m.has(f"down_blocks.{level}.attentions.{layer}"):
                m.move(f"input_blocks.{i}.1", f"down_blocks.{level}.attentions.{layer}")
            i += 1
        if level < levels - 1:
            m.move(f"input_blocks.{i}.0.op", f"down_blocks.{level}.downsamplers.0.conv")
            i += 1
    resnet("middle_block.0", "mid_block.resnets.0")
    m.move("middle_block.1", "mid_block.attentions.0")
    resnet("middle_block.2", "mid_block.resnets.1")
    i = 0
    for level in range(levels):
        for layer in range(layers + 1):
            block = 0
            resnet(f"output_blocks.{i}.{block}", f"up_blocks.{level}.resnets.{layer}")
            if m.has(f"up_blocks.{level}.attentions.{layer}"):
                block += 1
                m.move(f"output_blocks.{i}.{block}", f"up_blocks.{level}.attentions.{layer}")
            if layer == layers and level < levels - 1:
                block += 1
                upsampler = f"up_blocks.{level}.upsamplers.0.conv"
                m.move(f"output_blocks.{i}.{block}.conv", upsampler)
            i += 1
    m.move("out.0", "conv_norm_out")
    m.move("out.2", "conv_out")
    return m.done()


def ldm_vae(state: Mapping[str, Tensor], levels: int, layers: int) -> StateDict:
    """autoencoder.AutoencoderKL; its attention is made of 1x1 convolutions."""
    m = Mover(state, "first_stage_model.")

    def as_conv(t: Tensor) -> Tensor:
        return t[:, :, None, None] if t.ndim == 2 else t

    def resnet(new: str, old: str) -> None:
        for name in ("norm1", "conv1", "norm2", "conv2"):
            m.move(f"{new}.{name}", f"{old}.{name}")
        if m.has(f"{old}.conv_shortcut"):
            m.move(f"{new}.nin_shortcut", f"{old}.conv_shortcut")

    for side in ("encoder", "decoder"):
        m.move(f"{side}.conv_in", f"{side}.conv_in")
        m.move(f"{side}.norm_out", f"{side}.conv_norm_out")
        m.move(f"{side}.conv_out", f"{side}.conv_out")
        resnet(f"{side}.mid.block_1", f"{side}.mid_block.resnets.0")
        resnet(f"{side}.mid.block_2", f"{side}.mid_block.resnets.1")
        attention = f"{side}.mid_block.attentions.0"
        m.move(f"{side}.mid.attn_1.norm", f"{attention}.group_norm")
        for name in "qkv":
            m.move(f"{side}.mid.attn_1.{name}", f"{attention}.to_{name}", as_conv)
        m.move(f"{side}.mid.attn_1.proj_out", f"{attention}.to_out.0", as_conv)
    for level in range(levels):
        up = levels - 1 - level  # the original inserts at the front
        for layer in range(layers):
            old = f"encoder.down_blocks.{level}.resnets.{layer}"
            resnet(f"encoder.down.{level}.block.{layer}", old)
        for layer in range(layers + 1):
            resnet(f"decoder.up.{up}.block.{layer}", f"decoder.up_blocks.{level}.resnets.{layer}")
        if level < levels - 1:
            halving = f"encoder.down_blocks.{level}.downsamplers.0.conv"
            m.move(f"encoder.down.{level}.downsample.conv", halving)
            m.move(f"decoder.up.{up}.upsample.conv", f"decoder.up_blocks.{level}.upsamplers.0.conv")
    m.move("quant_conv", "quant_conv")
    m.move("post_quant_conv", "post_quant_conv")
    return m.done()


def ldm_clip(state: Mapping[str, Tensor], prefix: str, position_ids: bool = True) -> StateDict:
    """CLIP as transformers of the time wrote it."""
    out = {f"{prefix}text_model.{k.removeprefix('text_model.')}": t for k, t in state.items()}
    if position_ids:
        out[f"{prefix}text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return out


def ldm_open_clip(
    state: Mapping[str, Tensor], prefix: str, layers: int, extra: int = 0
) -> StateDict:
    """OpenCLIP's own module: fused q, k, v; a bare text_projection; `extra` blocks nobody uses."""
    state = {k.removeprefix("text_model."): t for k, t in state.items()}
    state = {k: t for k, t in state.items() if not k.endswith("position_ids")}
    width = state["final_layer_norm.bias"].shape[0]
    projection = state.pop("text_projection.weight", None)
    m = Mover(state, prefix)
    m.out[f"{prefix}positional_embedding"] = m.left.pop("embeddings.position_embedding.weight")
    m.out[f"{prefix}text_projection"] = (
        torch.full((width, width), 7.0) if projection is None else projection.T.contiguous()
    )
    m.out[f"{prefix}logit_scale"] = torch.tensor(4.6)
    m.move("token_embedding", "embeddings.token_embedding")
    m.move("ln_final", "final_layer_norm")
    for i in range(layers):
        old, new = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        for kind in ("weight", "bias"):
            parts = [m.left.pop(f"{old}.self_attn.{p}_proj.{kind}") for p in "qkv"]
            m.out[f"{prefix}{new}.attn.in_proj_{kind}"] = torch.cat(parts)
        m.move(f"{new}.attn.out_proj", f"{old}.self_attn.out_proj")
        m.move(f"{new}.ln_1", f"{old}.layer_norm1")
        m.move(f"{new}.ln_2", f"{old}.layer_norm2")
        m.move(f"{new}.mlp.c_fc", f"{old}.mlp.fc1")
        m.move(f"{new}.mlp.c_proj", f"{old}.mlp.fc2")
    out = m.done()
    for i in range(layers, layers + extra):
        first = f"{prefix}transformer.resblocks.0."
        for key in [k for k in out if k.startswith(first)]:
            out[f"{prefix}transformer.resblocks.{i}.{key[len(first) :]}"] = 3 * out[key]
    return out


def ldm_ema(unet: Mapping[str, Tensor]) -> StateDict:
    """The averages as ddpm.LitEma keeps them: every dot is taken out of the name."""
    flat = {key.removeprefix("model.").replace(".", ""): t for key, t in unet.items()}
    return {f"model_ema.{key}": t + 1 for key, t in flat.items()}


def training_state() -> StateDict:
    """What the training left in every published SD 1 and 2 file: 14 tensors."""
    tables = ["betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod"]
    tables += ["sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod"]
    tables += ["sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance"]
    tables += ["posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"]
    counters = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(9)}
    return {name: torch.zeros(1000) for name in tables} | counters
