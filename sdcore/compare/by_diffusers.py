"""The answers of diffusers and transformers, in float32 on the CPU.

diffusers is imported in here alone, and only when something is compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdcore.compare.questions import Ask, T, Tensors, inputs, numbers, pictures
from sdcore.images import to_tensor


def quiet() -> None:
    """No talk of the other libraries, and no bars of theirs, in between the table."""
    import diffusers
    import transformers

    for library in (diffusers.utils.logging, transformers.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


@torch.inference_mode()
def theirs(folder: Path, asked: Ask, lean: bool = False, **how: Any) -> Tensors:
    """Every component and the run's last "latents", by diffusers and transformers in float32.

    Args:
        lean: one network in memory at a time.
        how: what diffusers' `from_pretrained` is told beside the folder.
    """
    import diffusers

    kind = getattr(diffusers, asked.pipeline)
    readers = {p.name: None for p in folder.glob("text_encoder*")}
    others = dict.fromkeys(("unet", "vae"))
    how = {"dtype": torch.float32, "local_files_only": True, **how}
    pipe = kind.from_pretrained(folder, **how, **(others if lean else {}))
    given, out = inputs(asked), {}
    out |= _their_text(pipe, asked.prompt)
    arguments: dict[str, Any] = {"num_inference_steps": asked.steps, "guidance_scale": asked.cfg}
    arguments |= {"generator": [torch.Generator().manual_seed(asked.seed)], "output_type": "latent"}
    arguments["prompt"] = asked.prompt
    if lean:
        del pipe
        pipe = kind.from_pretrained(folder, **how, **readers)
        names = {"prompt_embeds": "text", "negative_prompt_embeds": "text, negative"}
        if "pooled text" in out:
            names |= {
                f"{k.replace('prompt', 'pooled_prompt')}": f"pooled {v}" for k, v in names.items()
            }
        arguments |= {name: out[key] for name, key in names.items()} | {"prompt": None}
    pipe.set_progress_bar_config(desc="diffusers", leave=False, disable=None)
    for t in T:
        out[f"UNet, t = {t:g}"] = their_unet(pipe.unet, given, out, asked.cfg, t)
    if asked.from_image:  # the second half of twice the steps
        arguments |= {"image": given["latents"][:1], "strength": 0.5}
        arguments["num_inference_steps"] = 2 * asked.steps
    else:
        arguments |= {"height": asked.side, "width": asked.side}
    if given_pictures := pictures(asked):
        arguments |= {"image": given_pictures["image"], "mask_image": given_pictures["mask"]}
        arguments["strength"] = 1.0
    out["latents"] = pipe(**arguments).images
    code, scale = pipe.vae.encode(given["image"]).latent_dist, pipe.vae.config.scaling_factor
    out["VAE encode, mean"], out["VAE encode, std"] = code.mean * scale, code.std * scale
    out["VAE decode"] = pipe.vae.decode(given["latents"] / scale).sample
    return out


def _their_text(pipe: Any, prompt: str) -> Tensors:
    options = {"num_images_per_prompt": 1, "do_classifier_free_guidance": True}
    if not hasattr(pipe, "text_encoder_2"):
        cond, uncond = pipe.encode_prompt(prompt, device="cpu", **options)
        return {"text": cond, "text, negative": uncond}
    cond, uncond, pooled, negative = pipe.encode_prompt(prompt, **options)
    both = {"text": cond, "text, negative": uncond}
    return {**both, "pooled text": pooled, "pooled text, negative": negative}


def their_unet(unet: Any, given: Tensors, text: Tensors, cfg: float, t: float) -> Tensor:
    """Output [2,4,h,w] of diffusers' UNet, told the text and what else its family is told."""
    from diffusers.pipelines.latent_consistency_models import pipeline_latent_consistency_text2img

    conditions: dict[str, Any] = {}
    if "pooled text" in text:
        count = unet.add_embedding.linear_1.in_features - text["pooled text"].shape[1]
        ids = torch.tensor([numbers(count // unet.config.addition_time_embed_dim)] * 2)
        pooled = text["pooled text"].expand(2, -1).to(unet.dtype)
        conditions["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": ids}
    if unet.config.time_cond_proj_dim is not None:
        embed: Any = pipeline_latent_consistency_text2img.LatentConsistencyModelPipeline
        scale = torch.tensor([cfg - 1.0] * 2)
        conditions["timestep_cond"] = embed.get_guidance_scale_embedding(
            None, scale, embedding_dim=unet.config.time_cond_proj_dim, dtype=unet.dtype
        )
    context = text["text"].expand(2, -1, -1).to(unet.dtype)
    return unet(given["x"].to(unet.dtype), torch.tensor(t), context, **conditions).sample


@torch.inference_mode()
def their_picture(folder: Path, latents: Tensor, variant: str | None = None) -> Tensor:
    """[1,3,H,W] in [-1, 1], rounded to the 256 values of a picture."""
    from diffusers.image_processor import VaeImageProcessor
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    how = {"dtype": torch.float32, "local_files_only": True, "variant": variant}
    vae: Any = AutoencoderKL.from_pretrained(folder / "vae", **how)
    image = vae.decode(latents / vae.config.scaling_factor).sample
    pixels: Any = VaeImageProcessor().postprocess(image)
    return to_tensor(pixels[0])
