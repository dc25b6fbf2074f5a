"""What A1111's img2img begins with: its picture, and its mask."""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdcore.fitting import to_rgb
from sdcore.server.a1111.fields import ImageToImage
from sdcore.server.a1111.repainting import Region, filled, inverted, region_of
from sdcore.server.asked import picture
from sdcore.server.limits import Limits
from sdcore.server.refusals import Refused

if TYPE_CHECKING:
    from PIL.Image import Image

FITS = ("stretch", "crop", "pad")  # by resize_mode


def started(
    asked: ImageToImage, limits: Limits, size: tuple[int, int]
) -> tuple[dict[str, Any], Region | None, dict[str, str]]:
    """What is said of the picture to start from, and of its mask."""
    pictures = asked.init_images or []
    if len(pictures) != 1:
        raise Refused(f"init_images holds {len(pictures)} pictures: one is wanted",
                      param="init_images")  # fmt: skip
    mode = asked.resize_mode or 0
    if not 0 <= mode < len(FITS):
        raise Refused("resize_mode is 0, 1 or 2", param="resize_mode")
    given = picture("init_images", pictures[0], limits)
    strength = 0.75 if asked.denoising_strength is None else asked.denoising_strength
    fields: dict[str, Any] = {"image": given, "strength": strength, "fit": FITS[mode]}
    if not asked.mask:
        return fields, None, {}
    blur, mask = _mask(asked, limits)
    original = image = to_rgb(given)  # upright, as the mask is
    if mask.size != image.size:
        mask = mask.resize(image.size)
    if asked.inpainting_fill in (None, 0):
        fields["image"] = image = filled(image, mask)
    fields |= {"mask": mask, "paste": True}
    if asked.inpaint_full_res is False:
        return fields | ({"mask_blur": blur} if blur else {}), None, {}
    padding = asked.inpaint_full_res_padding or 0
    if not 0 <= padding <= limits.side:
        raise Refused(f"inpaint_full_res_padding is 0 to {limits.side} pixels",
                      param="inpaint_full_res_padding")  # fmt: skip
    region = region_of(original, mask, blur, padding, size)
    if region is None:
        raise Refused("the mask is black: nothing is repainted", param="mask")
    inner = {"image": region.cut(image), "mask": region.cut(mask), "fit": "stretch"}
    return {**fields, **inner, "paste": False}, region, {}


def _mask(asked: ImageToImage, limits: Limits) -> tuple[float, Image]:
    """How it is blurred, and the mask itself: white where it is repainted."""
    sides = {4.0 if side is None else side for side in (asked.mask_blur_x, asked.mask_blur_y)}
    if asked.mask_blur is None and len(sides) > 1:
        raise Refused("mask_blur_x and mask_blur_y are the same", param="mask_blur_x")
    blur = asked.mask_blur if asked.mask_blur is not None else sides.pop()
    if not 0 <= blur <= 256:
        raise Refused("mask_blur is 0 to 256 pixels", param="mask_blur")
    mask = to_rgb(picture("mask", asked.mask, limits), "black").convert("L")
    return blur, inverted(mask) if asked.inpainting_mask_invert else mask
