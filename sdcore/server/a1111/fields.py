"""The bodies of A1111's txt2img and img2img, field by field."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from sdcore.server.values import Real, Whole

Text = Annotated[str, Field(max_length=100_000)]


class Drawn(BaseModel):
    """The fields that both routes have. What else is sent is ignored: clients send much."""

    model_config = ConfigDict(extra="ignore")

    prompt: Text | None = None
    negative_prompt: Text | None = None
    styles: list[Any] | None = None
    seed: Whole | None = None  # -1: one is drawn
    subseed: Whole | None = None
    subseed_strength: Real | None = None
    seed_resize_from_h: Whole | None = None
    seed_resize_from_w: Whole | None = None
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = None
    batch_size: Whole | None = None
    n_iter: Whole | None = None
    steps: Whole | None = None
    cfg_scale: Real | None = None
    width: Whole | None = None
    height: Whole | None = None
    restore_faces: bool | None = None
    tiling: bool | None = None
    eta: Real | None = None
    denoising_strength: Real | None = None
    s_churn: Real | None = None
    s_tmin: Real | None = None
    s_tmax: Real | None = None
    s_noise: Real | None = None
    s_min_uncond: Real | None = None
    clip_skip: Whole | None = None  # SillyTavern's
    override_settings: dict[str, Any] | None = None
    override_settings_restore_afterwards: bool | None = None
    refiner_checkpoint: str | None = None
    refiner_switch_at: Real | None = None
    disable_extra_networks: bool | None = None
    script_name: str | None = None
    alwayson_scripts: dict[str, Any] | None = None
    send_images: bool | None = None
    save_images: bool | None = None
    infotext: str | None = None
    force_task_id: str | None = None


class TextToImage(Drawn):
    """Of /sdapi/v1/txt2img."""

    enable_hr: bool | None = None
    hr_scale: Real | None = None
    hr_upscaler: str | None = None
    hr_second_pass_steps: Whole | None = None
    hr_resize_x: Whole | None = None
    hr_resize_y: Whole | None = None
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str | None = None
    hr_negative_prompt: str | None = None
    hr_cfg: Real | None = None
    firstphase_width: Whole | None = None
    firstphase_height: Whole | None = None


class ImageToImage(Drawn):
    """Of /sdapi/v1/img2img."""

    init_images: list[Any] | None = None
    mask: str | None = None
    mask_blur: Real | None = None
    mask_blur_x: Real | None = None
    mask_blur_y: Real | None = None
    inpainting_fill: Whole | None = None
    inpaint_full_res: bool | None = None
    inpaint_full_res_padding: Whole | None = None
    inpainting_mask_invert: Whole | None = None
    resize_mode: Whole | None = None
    image_cfg_scale: Real | None = None
    include_init_images: bool | None = None
