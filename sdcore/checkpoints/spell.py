"""Which parameter of which network every key of an LDM file is; what is left over is told."""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from sdcore.checkpoints.families import UNET, VAE, Encoder, Family
from sdcore.checkpoints.ldm import pieces, unet_name, vae_name
from sdcore.checkpoints.names import Cut, Rename
from sdcore.checkpoints.read import TensorInfo
from sdcore.checkpoints.shapes import indices
from sdcore.errors import InputError, listed

Header = Mapping[str, TensorInfo]
Table = dict[str, Mapping[str, Cut]]  # key in the file -> the parameters stored there

MIN_EMA_KEYS = 100  # "emaonly" files keep two counters of it and no weights

# What published files hold beside weights: tables and counters of the training, marks for other
# programs, and what of CLIP does not read the prompt.
IGNORED = re.compile(
    r"""
    betas | alphas_cumprod | alphas_cumprod_prev | sqrt_alphas_cumprod
    | sqrt_one_minus_alphas_cumprod | log_one_minus_alphas_cumprod | sqrt_recip_alphas_cumprod
    | sqrt_recipm1_alphas_cumprod | posterior_variance | posterior_log_variance_clipped
    | posterior_mean_coef1 | posterior_mean_coef2 | logvar | denoiser\.sigmas
    | model_ema\.decay | model_ema\.num_updates | v_pred | ztsnr
    | (cond_stage_model | conditioner)\..* (position_ids | logit_scale | attn_mask)
    | (cond_stage_model | conditioner)\..* (vision_model | visual_projection | visual)\..*
    """,
    re.VERBOSE,
)


def spell(path: Path, info: Header, family: Family, ema: bool) -> dict[str, Table]:
    """The table of every component. Raises InputError for keys that nothing explains.

    ema: take the UNet's averaged weights in place of the last ones.
    """
    unet = (key for key in info if key.startswith(UNET))
    averaged = {twin: key for key in unet if (twin := _ema_key(key)) in info}
    if ema and len(averaged) < MIN_EMA_KEYS:
        raise InputError(f"{path} holds no averaged (EMA) weights")
    passed_over = set(averaged.values()) if ema else set(averaged)
    rules: dict[str, tuple[str, Rename]] = {
        UNET: ("unet", partial(unet_name, layers=ldm_layers(info, UNET))),
        VAE: ("vae", partial(vae_name, levels=ldm_levels(info, VAE))),
    }
    for component, (prefix, encoder) in family.encoders.items():
        rules[prefix] = (component, encoder.rename)
    tables: dict[str, Table] = {component: {} for component, _ in rules.values()}
    strangers = []
    for key in info:
        if key in passed_over or IGNORED.fullmatch(key):
            continue
        plain = averaged.get(key, key)
        prefix = next(filter(plain.startswith, rules), "")
        component, rename = rules.get(prefix, ("", _unknown))
        name = rename(plain.removeprefix(prefix))
        if name is None:
            strangers.append(key)
        elif component not in family.encoders or _used(name, family.encoders[component][1]):
            tables[component][key] = pieces(name)
    if strangers:
        raise InputError(
            f"{path} is more than a {family.name} model: {listed('unknown keys', strangers)}"
        )
    return tables


def _ema_key(key: str) -> str:
    """Where the average of a UNet's weight lies: its name has lost its dots.

    >>> _ema_key("model.diffusion_model.out.2.bias")
    'model_ema.diffusion_modelout2bias'
    """
    return "model_ema." + key.removeprefix("model.").replace(".", "")


def _unknown(key: str) -> None:
    """The rule of no component."""


def _used(name: str, encoder: Encoder) -> bool:
    """False for the layers and the projection that the UNet never hears of."""
    if name.startswith("text_projection"):
        return encoder.projected
    layer = re.match(r"text_model\.encoder\.layers\.(\d+)\.", name)
    return layer is None or encoder.layers is None or int(layer[1]) < encoder.layers


def ldm_layers(keys: Iterable[str], prefix: str = "") -> int:
    """Residual blocks a level: as many as come between conv_in and the first halving."""
    return max(1, min(indices(keys, f"{prefix}input_blocks.", ".0.op."), default=3) - 1)


def ldm_levels(keys: Iterable[str], prefix: str = "") -> int:
    """The VAE's resolutions."""
    return 1 + max(indices(keys, f"{prefix}decoder.up."), default=0)


def look_up(table: Table, key: str) -> Mapping[str, Cut]:
    """The spelling that a table is."""
    return table.get(key, {})
