"""Scaled float8 and int8 in safetensors files: a weight, and beside it what it is multiplied by.

Two spellings are about, both ComfyUI's:

    layer.weight   layer.scale_weight   layer.scale_input   scaled_fp8 (a mark)
    layer.weight   layer.weight_scale   layer.input_scale   layer.comfy_quant (JSON: the format)

The weight is what is stored times its scale: one for the tensor, or one for every row. The scales
of inputs are for multiplying in float8, which is not done here. A reader that passes the scales
over draws white or grey and says nothing; so a scale that cannot be laid to its weight is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sdcore.checkpoints.tensor_info import FLOATING, TensorInfo
from sdcore.errors import InputError

SMALL = ("F8_E4M3", "F8_E5M2", "I8")
SCALES = (".weight_scale", ".scale_weight")
BESIDE = (".input_scale", ".scale_input", ".comfy_quant")
MARK = "scaled_fp8"


def join_scales(path: Path, infos: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """The tensors of a file, every scale laid to its weight, the marks left out.

    Raises InputError for a form of storing that is not read.
    """
    scales = {weight: key for key in infos if (weight := _weight(key, SCALES)) in infos}
    marks = {key for key in infos if _weight(key, BESIDE) in infos or _is_mark(key)}
    for weight in {_weight(key, (".comfy_quant",)) for key in marks} & infos.keys():
        if infos[weight].dtype not in (*SMALL, *FLOATING):
            raise InputError(
                f"{path} stores {weight} in a quantized form that is not read: float8 and int8 "
                "with a scale are"
            )
    joined = {}
    for key, info in infos.items():
        if key in scales:
            joined[key] = _scaled(path, key, info, infos[scales[key]])
        elif key not in marks and _weight(key, SCALES) not in infos:
            joined[key] = info
    return joined


def _weight(key: str, endings: tuple[str, ...]) -> str:
    """The key of the weight that a key is beside; "" for other keys."""
    ending = next((e for e in endings if key.endswith(e)), None)
    return "" if ending is None else f"{key.removesuffix(ending)}.weight"


def _is_mark(key: str) -> bool:
    return key.rpartition(".")[2] == MARK


def _scaled(path: Path, key: str, info: TensorInfo, scale: TensorInfo) -> TensorInfo:
    rows = info.shape[0] if info.shape else 1
    if info.dtype not in SMALL or scale.dtype not in FLOATING or scale.count not in (1, rows):
        raise InputError(
            f"{path} holds {key} as {info.dtype} {list(info.shape)} with scales {scale.dtype} "
            f"{list(scale.shape)}: one scale, or one for every row of float8 or int8, is read"
        )
    return replace(info, scale=scale)
