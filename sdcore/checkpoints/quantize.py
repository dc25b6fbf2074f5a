"""A checkpoint's weights in fewer bits, in files that others read too.

Two layouts. `comfy` is the UNet alone under LDM names without a prefix, as ComfyUI-GGUF and
ComfyUI take it; `sdcpp` is the whole checkpoint, as stable-diffusion.cpp takes it. In GGUF

* a block lies within a row, so a weight whose rows are no multiple of 32 cannot be quantized as it
  is: every 3x3 convolution, 63% of SD 1.5's UNet. `comfy` lays such a weight out as rows of 256,
  and notes its shape beside it. stable-diffusion.cpp knows no such note: there they stay float16;
* first and last layer, the embeddings of time and sizes, norms and biases are kept in any layout:
  they are small, and errors in them reach everything.

fp8 is one float8 number a weight and one scale a layer, of the linear layers, since nobody reads
scales of a convolution; int8 has a scale for every row, of convolutions too, and is sdcore's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from sdcore.checkpoints.blocks import BLOCKS
from sdcore.checkpoints.checkpoint import Checkpoint
from sdcore.checkpoints.convert import (
    check_writable,
    component_state,
    prediction_type,
    single_file_configs,
    single_file_tensors,
)
from sdcore.checkpoints.gguf_header import SHAPE
from sdcore.checkpoints.ldm_families import UNET
from sdcore.checkpoints.ldm_write import unet_to_ldm
from sdcore.checkpoints.read import read_header
from sdcore.checkpoints.scales import MARK
from sdcore.checkpoints.single_file import CONFIGS
from sdcore.errors import InputError, unknown
from sdcore.models.unet_inputs import unet_inputs
from sdcore.writing import check_target, written_whole

GGUF_TYPES = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
TYPES = (*GGUF_TYPES, "fp8", "int8")
LAYOUTS = ("comfy", "sdcpp")
SPELLINGS = ("comfy_quant", "scaled_fp8")
FILE_TYPES = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9}  # llama.cpp's numbers
ROW = 256  # of a weight that is laid out anew
SMALL = 1024  # weights of no more numbers than this stay what they are
KEPT = ("time_embed.", "label_emb.", "input_blocks.0.0.", "out.")  # of a UNet, by LDM names
KEPT_WORDS = ("embedding", "text_projection")  # of a text encoder
LARGEST = {"fp8": 448.0, "int8": 127.0}  # float8 e4m3's largest number, and int8's


@dataclass(frozen=True)
class Written:
    """What was written. nbytes: of the file."""

    nbytes: int
    weights: int
    quantized: int  # how many of the weights

    @property
    def bits(self) -> float:
        """Bits a weight, over the whole file."""
        return 8 * self.nbytes / self.weights


@dataclass(frozen=True)
class Choice:
    """How one tensor is to be written. type: of `TYPES`, or "f16", "f32". rows: laid out anew."""

    type: str
    rows: bool = False


def quantize(
    checkpoint: Checkpoint,
    target: Path,
    type: str,
    layout: str = "comfy",
    spelling: str = "comfy_quant",
) -> Written:
    """Write a checkpoint quantized; beside the target, which then gets its name.

    Args:
        target: a .gguf name, or for fp8 and int8 a .safetensors one.
        type: of `TYPES`; layout: of `LAYOUTS`.
        spelling: of `SPELLINGS`, for the scales of fp8: "comfy_quant" has `layer.weight_scale`,
            "scaled_fp8", the older one, `layer.scale_weight`.

    Raises:
        InputError: an unknown name, a target of another suffix or that is there already, a source
            that is quantized, a model that has no place in a single file, no `gguf` package.
    """
    _check(checkpoint, target, type, layout, spelling)
    tensors = _tensors(checkpoint, layout)
    choices = {key: _choice(key, tensor, type, layout) for key, tensor in tensors.items()}
    save = _save_gguf if type in GGUF_TYPES else _save_safetensors
    with written_whole(target) as path:
        save(path, tensors, choices, _notes(checkpoint, type, layout), spelling)
        nbytes = path.stat().st_size
    weights = sum(tensor.numel() for tensor in tensors.values())
    done = sum(t.numel() for key, t in tensors.items() if choices[key].type == type)
    return Written(nbytes, weights, done)


def _check(checkpoint: Checkpoint, target: Path, type: str, layout: str, spelling: str) -> None:
    for what, name, known in (
        ("type", type, TYPES),
        ("layout", layout, LAYOUTS),
        ("spelling", spelling, SPELLINGS),
    ):
        if name not in known:
            raise unknown(what, name, known)
    suffix = ".gguf" if type in GGUF_TYPES else ".safetensors"
    if target.suffix != suffix:
        raise InputError(f"{type} is written as {suffix}: name it {target.with_suffix(suffix)}")
    check_target(target)
    if type in GGUF_TYPES:
        _gguf()
    check_writable(checkpoint, single_file=layout == "sdcpp")
    for component in checkpoint.components.values():
        for path in component.files:
            if any(info.packed for info in read_header(path).values()):
                raise InputError(
                    f"{path} is quantized already: start from the weights it was made of"
                )


def _gguf() -> Any:
    """The package that writes GGUF."""
    try:
        return import_module("gguf")
    except ImportError:
        raise InputError(
            "to write .gguf files takes the gguf package: pip install 'sdcore[gguf]'"
        ) from None


def _tensors(checkpoint: Checkpoint, layout: str) -> dict[str, Tensor]:
    if layout == "comfy":
        return unet_to_ldm(component_state(checkpoint.components["unet"], None))
    return single_file_tensors(checkpoint)


def _choice(key: str, tensor: Tensor, type: str, layout: str) -> Choice:
    if tensor.ndim < 2 or tensor.numel() <= SMALL:
        return Choice("f32")
    name = key.removeprefix(UNET)
    if name.startswith(KEPT) or any(word in key for word in KEPT_WORDS):
        return Choice("f16")
    if type == "fp8":
        return Choice(type if tensor.ndim == 2 else "f16")
    if type == "int8":
        in_unet = layout == "comfy" or key.startswith(UNET)
        return Choice(type if in_unet or tensor.ndim == 2 else "f16")
    width, count = tensor.shape[-1], tensor.numel()
    if layout == "comfy" and width % ROW and not count % ROW:
        return Choice(type, rows=True)
    return Choice("f16" if width % BLOCKS[type.upper()].size else type)


def _notes(checkpoint: Checkpoint, type: str, layout: str) -> dict[str, str | int]:
    """What the file says of itself. stable-diffusion.cpp's own files say nothing, and ComfyUI-GGUF
    takes one without an architecture for theirs."""
    if layout == "sdcpp":
        return {CONFIGS: single_file_configs(checkpoint)}
    added = unet_inputs(checkpoint.components["unet"].config).added
    prediction = prediction_type(checkpoint)
    notes: dict[str, str | int] = {"general.architecture": "sdxl" if added else "sd1"}
    if type in GGUF_TYPES:
        notes |= {"general.quantization_version": 2, "general.file_type": FILE_TYPES[type]}
    return notes | {"modelspec.prediction_type": "v" if prediction.startswith("v") else prediction}


def _bar(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    yield from tqdm(tensors.items(), unit="tensors", leave=False, disable=None)


def _save_gguf(
    path: Path,
    tensors: Mapping[str, Tensor],
    choices: Mapping[str, Choice],
    notes: Mapping[str, str | int],
    _: str,
) -> None:
    gguf = _gguf()
    writer = gguf.GGUFWriter(path, "")
    writer.kv_data[0].clear()  # it begins with an architecture, whether there is one or not
    for name, note in notes.items():
        writer.add_string(name, note) if isinstance(note, str) else writer.add_uint32(name, note)
    kinds = {key: gguf.GGMLQuantizationType[choice.type.upper()] for key, choice in choices.items()}
    for key, tensor in tensors.items():
        shape = tuple(tensor.shape)
        if choices[key].rows:
            writer.add_array(f"{SHAPE}{key}", shape)
            shape = (tensor.numel() // ROW, ROW)
        size, nbytes = gguf.GGML_QUANT_SIZES[kinds[key]]
        whole = tensor.numel() // size * nbytes
        writer.add_tensor_info(key, shape, torch.float32, whole, raw_dtype=kinds[key])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for key, tensor in _bar(tensors):
        rows = tensor.float().reshape(-1, ROW if choices[key].rows else tensor.shape[-1])
        writer.write_tensor_data(gguf.quants.quantize(rows.numpy(), kinds[key]))
    writer.close()


def _save_safetensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    choices: Mapping[str, Choice],
    notes: Mapping[str, str | int],
    spelling: str,
) -> None:
    written: dict[str, Tensor] = {}
    formats: dict[str, dict[str, str]] = {}
    for key, tensor in _bar(tensors):
        type = choices[key].type
        if type not in LARGEST:
            written[key] = tensor.to(torch.float32 if type == "f32" else torch.float16)
            continue
        layer = key.removesuffix(".weight")
        written[key], scale = scaled(tensor.float(), type)
        formats[layer] = {"format": "float8_e4m3fn" if type == "fp8" else "int8_rowwise"}
        if spelling == "scaled_fp8":
            written[f"{layer}.scale_weight"] = scale
        else:
            written[f"{layer}.weight_scale"] = scale
            text = json.dumps(formats[layer]).encode()
            written[f"{layer}.comfy_quant"] = torch.tensor(list(text), dtype=torch.uint8)
    metadata = {name: str(note) for name, note in notes.items()} | {"format": "pt"}
    if spelling == "scaled_fp8":
        prefix = UNET if any(key.startswith(UNET) for key in tensors) else ""
        written[f"{prefix}{MARK}"] = torch.empty(0, dtype=torch.float8_e4m3fn)
    else:
        metadata["_quantization_metadata"] = json.dumps(
            {"format_version": "1.0", "layers": formats}
        )
    save_file({key: tensor.contiguous() for key, tensor in written.items()}, path, metadata)


def scaled(weight: Tensor, type: str) -> tuple[Tensor, Tensor]:
    """The small numbers, and the scale that brings the largest of them to the format's largest."""
    axes = list(range(weight.ndim)) if type == "fp8" else list(range(1, weight.ndim))
    most = weight.abs().amax(axes, keepdim=type == "int8")
    scale = torch.where(most > 0, most / LARGEST[type], 1.0)
    small = weight / scale
    return small.to(torch.float8_e4m3fn) if type == "fp8" else small.round().to(torch.int8), scale
