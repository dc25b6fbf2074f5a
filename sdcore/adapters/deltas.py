"""What an adapter adds to a weight W [out, in] or [out, in, k, k], by the formula of its kind.

    LoRA   (Hu et al. 2021, arXiv 2106.09685)         dW = (alpha/r) up @ down
    LoCon  the same for convolutions, with `mid` a Tucker core between
    LoHa   (Hyeon-Woo et al. 2022, arXiv 2108.06098)  dW = (alpha/r) (a1 @ b1) * (a2 @ b2)
    LoKr   (Yeh et al. 2023, arXiv 2309.14859)        dW = (alpha/r) kron(w1, w2), each may be a @ b
    GLoRA  (Chavan et al. 2023, arXiv 2306.07967)     dW = (alpha/r) (W a2 @ a1 + b2 @ b1)
    DoRA   (Liu et al. 2024, arXiv 2402.09353, eq. 5) dW = m V / |V| - W with V = W + any of these
    diff   the difference itself

alpha/r is 1 where no alpha is stored or it is 0, and for a LoKr of two whole matrices. All in
float32; the strength of an adapter multiplies dW, and nothing inside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sdcore.errors import InputError

Parts = Mapping[str, Tensor]  # the tensors of one adapter for one layer, by their part's name

LOW_RANK = {"down", "up"}
MAGNITUDES = {"magnitude", "dora_scale"}  # as PEFT writes DoRA's m, and as everyone else does
_LOHA = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}
_LOKR = ("lokr_w1", "lokr_w2")
_GLORA = {"glora_a1", "glora_a2", "glora_b1", "glora_b2"}


def change(parts: Parts, weight: Tensor) -> Tensor:
    """dW for this weight, float32, in its shape.

    Raises InputError (without the layer's name) for parts that do not make a whole, or fit
    another shape.
    """
    parts = {name: part.to(weight.device, torch.float32) for name, part in parts.items()}
    try:
        delta = _delta(parts, weight)
        fits = delta.shape[:1] == weight.shape[:1] and delta.numel() == weight.numel()
    except (RuntimeError, IndexError):
        fits = False
    if not fits:
        shapes = ", ".join(f"{name} {list(part.shape)}" for name, part in sorted(parts.items()))
        raise InputError(f"made for another shape than {list(weight.shape)}: {shapes}")
    delta = delta.reshape(weight.shape)
    for name in MAGNITUDES & parts.keys():
        magnitude = parts[name]
        # LyCORIS may measure along the inputs: [1, in, ...]. PEFT's [1, out, 1, 1] are outputs.
        inputs = name == "dora_scale" and magnitude.ndim > 1 and magnitude.shape[0] == 1
        return _dora(weight.float(), delta, magnitude, 1 if inputs else 0)
    return delta


def factor(parts: Parts) -> float:
    """alpha/r."""
    alpha = float(parts["alpha"]) if "alpha" in parts else 0.0
    rank = _rank(parts)
    return 1.0 if alpha == 0 or rank is None else alpha / rank


def scaled(parts: Parts, scale: float) -> Parts:
    """The same parts with alpha/r = scale: as an alpha, or where there is no r as a factor."""
    rank = _rank(parts)
    if rank is not None:
        return {**parts, "alpha": torch.tensor(scale * rank)}
    return {n: part * scale if n in ("lokr_w1", "diff") else part for n, part in parts.items()}


def _rank(parts: Parts) -> int | None:
    """r; None where nothing is factorised."""
    for name, axis in (
        ("down", 0),
        ("hada_w1_b", 0),
        ("lokr_w1_b", 0),
        ("lokr_w2_b", 0),
        ("glora_a1", 0),
    ):
        if name in parts:
            return parts[name].shape[axis]
    return None


def _delta(parts: Parts, weight: Tensor) -> Tensor:
    if LOW_RANK.issubset(parts):
        return factor(parts) * _low_rank(parts)
    if _LOHA.issubset(parts):
        return (
            factor(parts)
            * _factored(parts, "hada_w1", "hada_t1")
            * _factored(parts, "hada_w2", "hada_t2")
        )
    if all(name in parts or f"{name}_b" in parts for name in _LOKR):
        return factor(parts) * _kron(
            _factored(parts, "lokr_w1", "lokr_t1"), _factored(parts, "lokr_w2", "lokr_t2")
        )
    if _GLORA.issubset(parts):
        a1, a2, b1, b2 = (parts[name].flatten(1) for name in sorted(_GLORA))
        on_inputs = torch.einsum("oi...,ij->oj...", weight.float(), a2 @ a1)
        return factor(parts) * (on_inputs + (b2 @ b1).reshape(weight.shape))
    for name in ("diff", "w_norm"):
        if name in parts:
            return parts[name]
    raise InputError(f"incomplete: it has {', '.join(sorted(parts))}")


def _low_rank(parts: Parts) -> Tensor:
    up, down = parts["up"].flatten(1), parts["down"].flatten(1)  # [out, r], [r, in * k * k]
    if "mid" in parts:  # [r, r, k, k]
        return torch.einsum("oa,abkl,bi->oikl", up, parts["mid"], down)
    return up @ down


def _factored(parts: Parts, name: str, core: str) -> Tensor:
    """A matrix, or its factors a @ b, or these around a Tucker core [r, r, k, k]."""
    if name in parts:
        return parts[name]
    a, b = parts[f"{name}_a"], parts[f"{name}_b"]
    if core in parts:  # here a is [r, out], b [r, in]
        return torch.einsum("abkl,ao,bi->oikl", parts[core], a, b)
    return a @ b.flatten(1)


def _kron(w1: Tensor, w2: Tensor) -> Tensor:
    if w2.ndim == 4 and w1.ndim == 2:
        w1 = w1[:, :, None, None]
    return torch.kron(w1, w2.contiguous())  # of strided ones it makes views, and fails


def _dora(weight: Tensor, delta: Tensor, magnitude: Tensor, axis: int) -> Tensor:
    """m V / |V| - W. m lies along `axis`; the norm is over all others."""
    v = weight + delta
    if magnitude.numel() != v.shape[axis]:
        raise InputError(f"{magnitude.numel()} magnitudes for a weight of {list(v.shape)}")
    across = [d for d in range(v.ndim) if d != axis]
    norm = v.pow(2).sum(across, keepdim=True).sqrt() + torch.finfo(torch.float32).eps
    along = [v.shape[axis] if d == axis else 1 for d in range(v.ndim)]
    return v * (magnitude.view(along) / norm) - weight


def check_parts(parts: Parts) -> None:
    """Raises InputError where a part holds nothing, or no number, or alpha several; and for factors
    of a LoRA that cannot be multiplied, whatever the weight."""
    for name, part in parts.items():
        if name == "alpha" and part.numel() != 1:
            raise InputError(f"its alpha is {part.numel()} numbers")
        if not part.numel():
            raise InputError(f"its {name} is empty")
        if not math.isfinite(float(part.float().abs().sum())):
            raise InputError(f"its {name} is not finite")
    if LOW_RANK.issubset(parts):
        down, up = parts["down"].shape, parts["up"].shape
        core = parts["mid"].shape if "mid" in parts else down[:1] * 2 + (1, 1)
        if len(down) < 2 or len(up) < 2 or len(core) != 4 or core[:2] != up[1:2] + down[:1]:
            shapes = ", ".join(f"{name} {list(parts[name].shape)}" for name in sorted(parts))
            raise InputError(f"its factors do not fit each other: {shapes}")
