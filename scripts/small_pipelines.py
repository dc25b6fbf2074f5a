"""diffusers' pipelines around small random networks, and each of them as one network of our loop.

No weights are read; all are drawn from a seed. Texts are tensors, so no text encoder is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from sdcore.brownian import noise_named
from sdcore.noise import SeededNoise
from sdcore.process import process_of
from sdcore.sampling import Prediction, State, sample
from sdcore.schedulers import Scheduler, resolve
from sdcore.schedulers.config import SD15
from sdcore.schedulers.spacing.flow import at_given

Held = Callable[[Tensor, float], Tensor]
SEEDS = (7, 3)
SIDE = 64  # pixels of all pictures: 8 x 8 latents

SD: Mapping[str, Any] = {**SD15, "_class_name": "DDIMScheduler"}
SDXL: Mapping[str, Any] = {
    **SD15, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading",
}  # fmt: skip
FLOW: Mapping[str, Any] = {
    "_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "num_train_timesteps": 1000,
}  # fmt: skip
DYNAMIC: Mapping[str, Any] = {**FLOW, "shift": 1.0, "use_dynamic_shifting": True}

diffusers.utils.logging.set_verbosity_error()


@dataclass(frozen=True)
class Small:
    """A pipeline, and how it is called."""

    pipe: Any
    config: Mapping[str, Any]  # of its scheduler
    shape: tuple[int, ...]  # of one picture's x in its loop
    call: Mapping[str, Any]  # arguments beside the steps, the latents and the scheduler
    given: Callable[[Tensor], Tensor] = lambda x: x  # from x to the argument `latents`

    def __post_init__(self) -> None:
        self.pipe.set_progress_bar_config(disable=True)

    def noise(self) -> SeededNoise:
        return SeededNoise(SEEDS, self.shape)

    def run(self, steps: int, **call: Any) -> Tensor:
        """x at the end, [B,...], of the pipeline with the scheduler that it has."""
        last: list[Tensor] = []

        def look(_: Any, index: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
            last[:] = [values["latents"].clone()]
            return {}

        generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        if "strength" not in call:  # then it draws the starting noise itself
            call["latents"] = self.given(randn_tensor((2, *self.shape), generators))
        self.pipe(
            num_inference_steps=steps, callback_on_step_end=look, output_type="latent",
            generator=generators, **self.call, **call,
        )  # fmt: skip
        return last[0]

    def says(self, x: Tensor, t: float, steps: int) -> tuple[Tensor, Any]:
        """What the whole pipeline says of x, in its network's form, at t; and its grid's requests.

        The pipeline runs one step with a scheduler that only listens.
        """
        probe, kept = _Probe(self.config, t), self.pipe.scheduler
        self.pipe.scheduler = probe
        try:
            self.pipe(
                num_inference_steps=steps, latents=self.given(x), output_type="latent", **self.call
            )
        finally:
            self.pipe.scheduler = kept
        return probe.answer, probe.asked

    def ours(
        self,
        name: str,
        steps: int,
        start: int = 0,
        x: Tensor | None = None,
        held: Held | None = None,
    ) -> Tensor:
        """x at the end of our own loop over the same network, in the network's form.

        start: the step to begin with, from a picture x [B,...], to which noise is added. held: a
        part of every x that the network sees, and of the last one, at this sigma.
        """
        scheduler = self.scheduler(name, steps)
        plan = scheduler.plan(steps)
        noise = noise_named(scheduler.entry.noise)(SEEDS, self.shape, "cpu")
        process = process_of(scheduler.prediction_type, plan)

        def denoise(x: Tensor, sigma: float) -> Prediction:
            x = x if held is None else held(x, sigma)
            raw, _ = self.says(x * process.c_in(sigma), plan.timestep(sigma), steps)
            return Prediction(*process.x0_eps(raw, x, sigma))

        begin = self.noise().start()
        x = begin * plan.start_scale if x is None else x + plan.sigmas[start] * begin
        for step in sample(denoise, State(x, start), plan.sigmas, scheduler.solver, noise):
            x = step.x_next
        x = x * plan.end_scale
        return x if held is None else held(x, 0.0)

    def scheduler(self, name: str, steps: int) -> Scheduler:
        """The one that our loop runs with, on the grid that the pipeline asks for."""
        _, asked = self.says(self.noise().start(), 500.0, steps)
        mu, levels = asked.get("mu"), asked.get("sigmas")
        config = dict(self.config) if mu is None else {**self.config, "mu": mu}
        spacing = None if levels is None else at_given([float(s) for s in levels])
        return resolve(name, spacing, config=config, corrected=False)


class _Probe:
    """A scheduler of one step that keeps what it is told."""

    order, init_noise_sigma = 1, 1.0

    def __init__(self, config: Mapping[str, Any], t: float) -> None:
        self.config = diffusers.configuration_utils.FrozenDict(config)
        self.timesteps = torch.tensor([t])
        self.asked: dict[str, Any] = {}
        self.answer = torch.empty(0)

    def set_timesteps(self, steps=None, device=None, timesteps=None, sigmas=None, mu=None) -> None:
        self.asked = {"sigmas": sigmas, "mu": mu}

    def set_begin_index(self, index: int) -> None: ...

    def scale_model_input(self, sample: Tensor, t: Any) -> Tensor:
        return sample

    def step(self, answer: Tensor, t: Any, sample: Tensor, return_dict: bool = True) -> Any:
        self.answer = answer
        return (sample,)


# --- the pipelines --------------------------------------------------------------------------------


def _seeded(make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def text(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _scheduler(config: Mapping[str, Any]) -> Any:
    config = {key: value for key, value in config.items() if key != "_use_default_values"}
    return getattr(diffusers, config["_class_name"]).from_config(config)


_BLOCKS: Mapping[str, Any] = {
    "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8,
}  # fmt: skip
_UNET: Mapping[str, Any] = {
    **_BLOCKS,
    "sample_size": 8,
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
}
_UP: Mapping[str, Any] = {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
_ADDED: Mapping[str, Any] = {
    "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 16 + 6 * 8,
}  # fmt: skip


@cache
def _vae() -> Any:
    return _seeded(
        lambda: diffusers.AutoencoderKL(
            block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )
    )  # fmt: skip


@cache
def _unet(**added: Any) -> Any:
    unet = _seeded(lambda: diffusers.UNet2DConditionModel(**_UNET, **_UP, **added))
    with torch.no_grad():  # so that latents stay near unit size
        unet.conv_out.weight *= 0.2
    return unet


def _parts(config: Mapping[str, Any], unet: Any) -> dict[str, Any]:
    readers = dict.fromkeys(("text_encoder", "tokenizer"))
    return {"vae": _vae(), "unet": unet, "scheduler": _scheduler(config), **readers}


_UNSAFE: Mapping[str, Any] = {
    "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False,
}  # fmt: skip
_TOLD: Mapping[str, Any] = {"guidance_scale": 4.0}


def _prompts(length: int = 5) -> dict[str, Any]:
    return {
        "prompt_embeds": text(2, length, 16),
        "negative_prompt_embeds": text(2, length, 16, seed=2),
    }


def _pooled(width: int = 16) -> dict[str, Any]:
    return {
        "pooled_prompt_embeds": text(2, width, seed=3),
        "negative_pooled_prompt_embeds": text(2, width, seed=4),
    }


_SQUARE: Mapping[str, Any] = {"height": SIDE, "width": SIDE}


def sd() -> Small:
    pipe = diffusers.StableDiffusionPipeline(**_parts(SD, _unet()), **_UNSAFE)
    return Small(pipe, SD, (4, 8, 8), {**_TOLD, **_prompts(), **_SQUARE})


def sd_img2img() -> Small:
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**_parts(SD, _unet()), **_UNSAFE)
    return Small(pipe, SD, (4, 8, 8), {**_TOLD, **_prompts()})


def sd_inpaint() -> Small:
    pipe = diffusers.StableDiffusionInpaintPipeline(**_parts(SD, _unet()), **_UNSAFE)
    return Small(pipe, SD, (4, 8, 8), {**_TOLD, **_prompts(), **_SQUARE})


def sdxl() -> Small:
    parts = {**_parts(SDXL, _unet(**_ADDED)), **dict.fromkeys(("text_encoder_2", "tokenizer_2"))}
    pipe = diffusers.StableDiffusionXLPipeline(**parts)
    return Small(pipe, SDXL, (4, 8, 8), {**_TOLD, **_prompts(), **_pooled(), **_SQUARE})


def controlnet() -> Small:
    net = _seeded(
        lambda: diffusers.ControlNetModel(
            **{key: value for key, value in _UNET.items() if key != "sample_size"},
            conditioning_embedding_out_channels=(4, 4, 8, 8),
        )
    )
    with torch.no_grad():  # a new one says nothing
        for block in (*net.controlnet_down_blocks, net.controlnet_mid_block):
            torch.nn.init.normal_(block.weight, std=0.2)
    parts = {**_parts(SD, _unet()), "controlnet": net, **_UNSAFE}
    pipe = diffusers.StableDiffusionControlNetPipeline(**parts)
    hint = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    return Small(pipe, SD, (4, 8, 8), {**_TOLD, **_prompts(), **_SQUARE, "image": hint})


def sd3() -> Small:
    net = _seeded(
        lambda: diffusers.SD3Transformer2DModel(
            sample_size=8, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16,
            pooled_projection_dim=16, pos_embed_max_size=8,
        )
    )  # fmt: skip
    readers = dict.fromkeys(
        f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")
    )
    pipe = diffusers.StableDiffusion3Pipeline(
        transformer=net, scheduler=_scheduler(FLOW), vae=None, **readers
    )
    return Small(pipe, FLOW, (4, 8, 8), {**_TOLD, **_prompts(), **_pooled(), **_SQUARE})


def flux() -> Small:
    net = _seeded(
        lambda: diffusers.FluxTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=16,
            guidance_embeds=True, axes_dims_rope=(2, 2, 4),
        )
    )  # fmt: skip
    readers = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipe = diffusers.FluxPipeline(
        transformer=net, scheduler=_scheduler(DYNAMIC), vae=None, **readers
    )
    told = {"prompt_embeds": text(2, 5, 16), "pooled_prompt_embeds": text(2, 16, seed=3)}
    return Small(pipe, DYNAMIC, (16, 16), {**_TOLD, **told, **_SQUARE})


def flux2() -> Small:
    net = _seeded(
        lambda: diffusers.Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=1, joint_attention_dim=16, timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
        )
    )  # fmt: skip
    pipe = diffusers.Flux2Pipeline(
        transformer=net, scheduler=_scheduler(DYNAMIC), vae=_PlainVAE(), text_encoder=None,
        tokenizer=None,
    )  # fmt: skip
    return Small(
        pipe, DYNAMIC, (16, 16), {**_TOLD, "prompt_embeds": text(2, 5, 16), **_SQUARE},
        given=lambda x: x.permute(0, 2, 1).reshape(len(x), 16, 4, 4),
    )  # fmt: skip


def z_image() -> Small:
    net = _seeded(
        lambda: diffusers.ZImageTransformer2DModel(
            in_channels=4, dim=16, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
            cap_feat_dim=16, axes_dims=[2, 2, 4], axes_lens=[64, 32, 32],
        )
    )  # fmt: skip
    pipe = diffusers.ZImagePipeline(
        transformer=net, scheduler=_scheduler(FLOW), vae=None, text_encoder=None, tokenizer=None
    )
    told = {f"{which}prompt_embeds": list(text(2, 5, 16, seed=seed))
            for which, seed in (("", 1), ("negative_", 2))}  # fmt: skip
    return Small(pipe, FLOW, (4, 8, 8), {**_TOLD, **told, **_SQUARE})


def qwen_image() -> Small:
    net = _seeded(
        lambda: diffusers.QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=1, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(2, 2, 4),
        )
    )  # fmt: skip
    config = {**DYNAMIC, "shift_terminal": 0.02}
    pipe = diffusers.QwenImagePipeline(
        transformer=net, scheduler=_scheduler(config), vae=None, text_encoder=None, tokenizer=None
    )
    mask = torch.ones(2, 5, dtype=torch.int64)
    told = {**_prompts(), "prompt_embeds_mask": mask, "negative_prompt_embeds_mask": mask}
    return Small(pipe, config, (16, 16), {"true_cfg_scale": 4.0, **told, **_SQUARE})


class _PlainVAE(torch.nn.Module):
    """Of Flux.2's VAE its pipeline asks so much where latents are wanted."""

    config = SimpleNamespace(block_out_channels=(1,) * 4)
    device, dtype = torch.device("cpu"), torch.float32


PIPELINES: Mapping[str, Callable[[], Small]] = {
    "StableDiffusion": sd,
    "StableDiffusionImg2Img": sd_img2img,
    "StableDiffusionInpaint": sd_inpaint,
    "StableDiffusionXL": sdxl,
    "StableDiffusionControlNet": controlnet,
    "StableDiffusion3": sd3,
    "Flux": flux,
    "Flux2": flux2,
    "ZImage": z_image,
    "QwenImage": qwen_image,
}
