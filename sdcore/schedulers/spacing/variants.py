"""Which grid a name means in each of diffusers' classes."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from sdcore.schedulers.spacing import sigmas as curves
from sdcore.schedulers.spacing import timesteps as grids
from sdcore.schedulers.spacing.plan import Rule

_LAST = ("beta_t", "kl_optimal", "ays", "ays_sdxl", "lcm")
_SAYS = {name: says for name, (_, says) in (*grids.RULES.items(), *curves.CURVES.items())}
# Every name without a tool before it, and what it does, in the order of the lists that users see.
SPACINGS: Mapping[str, str] = {
    name: _SAYS[name] for name in (*(n for n in _SAYS if n not in _LAST), *_LAST)
}


def variants(
    *,
    offset: int = 1,
    drop: int = 0,
    whole: bool = False,
    whole_curves: bool = False,
    base: str = "",
    last: int | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    origin: int = 50,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Rule]:
    """The rules by name, in one class's variant.

    whole: linspace has whole timesteps.
    offset, drop, last, origin, dtype: as leading, linspace and lcm take them.
    whole_curves: what `along` calls whole, for the grids that are laid over sigma.
    base: the name of the grid whose range karras, exponential and beta take, "" for the training
        table's; sigma_min and sigma_max override it.
    """
    rules: dict[str, Rule] = {name: rule for name, (rule, _) in grids.RULES.items()}
    rules |= {
        "leading": partial(grids.leading, offset=offset, drop=drop, last=last),
        "trailing": partial(grids.trailing, last=last),
        "linspace": partial(grids.whole_linspace, drop=drop, last=last)
        if whole
        else partial(grids.linspace, dtype=dtype),
        "lcm": partial(grids.distilled, origin=origin),
    }
    ranged: dict[str, Any] = {
        "within": rules.get(base),
        "sigma_min": sigma_min,
        "sigma_max": sigma_max,
    }
    for name, (curve, _) in curves.CURVES.items():
        limits = ranged if name in ("karras", "exponential", "beta") else {}
        rules[name] = partial(curves.along, curve=curve, whole=whole_curves, **limits)
    return {name: rules[name] for name in SPACINGS}
