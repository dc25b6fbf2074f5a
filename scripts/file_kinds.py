"""Write docs/files.md: `python -m scripts.file_kinds` (make docs).

Every kind of file that people have is made, small and random, and given to the option that they
would give it to. The table says what came of it: it loads, or is refused by the line that is shown.
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import sdcore
from scripts import families
from sdcore.checkpoints import open_model
from sdcore.checkpoints.convert import convert
from sdcore.checkpoints.quantize import GGUF_TYPES, quantize
from sdcore.checkpoints.single_file import CONFIGS
from sdcore.errors import InputError
from sdcore.inspection import inspect
from sdcore.writing import write_whole

PAGE = Path(__file__).parents[1] / "docs" / "files.md"
UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."


def rand(*shape: int) -> Tensor:
    return 0.05 * torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


class Bench:
    """A folder with a small SD 1.x and a small SDXL, as folders and as single files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.count = 0

    def model(self, name: str) -> Path:
        folder = self.root / name
        if not folder.is_dir():
            families.write(folder, families.FAMILIES[name])
        return folder

    @cached_property
    def file(self) -> Path:
        path = self.root / "sd1.safetensors"
        convert(open_model(self.model("SD 1.x")), path)
        shutil.copytree(self.model("SD 1.x") / "tokenizer", self.root / "tokenizer")
        return path

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.file)

    def unet(self, name: str = "SD 1.x") -> dict[str, Tensor]:
        return load_file(self.model(name) / "unet" / "diffusion_pytorch_model.safetensors")

    def new(self, suffix: str = ".safetensors") -> Path:
        self.count += 1
        return self.root / f"file{self.count}{suffix}"

    def save(self, tensors: Mapping[str, Tensor], told: bool = False) -> Path:
        """As a safetensors file; told: with the configurations of the small SD 1.x inside."""
        metadata = None
        if told:
            with safe_open(self.file, "pt") as file:
                metadata = {CONFIGS: file.metadata()[CONFIGS]}
        path = self.new()
        save_file({k: t.clone().contiguous() for k, t in tensors.items()}, path, metadata)
        return path

    def whole(self, more: Mapping[str, Tensor], without: str | None = None) -> Path:
        kept = {k: t for k, t in self.tensors.items() if not (without and k.startswith(without))}
        return self.save({**kept, **more}, told=True)

    def part(self, prefix: str) -> Path:
        part = {k.removeprefix(prefix): t for k, t in self.tensors.items() if k.startswith(prefix)}
        return self.save(part)

    def pickled(self, value: Any) -> Path:
        path = self.new(".pt")
        torch.save(value, path)
        return path

    def text(self, text: str, suffix: str = ".safetensors") -> Path:
        path = self.new(suffix)
        path.write_text(text)
        return path

    def with_unet(self, name: str, **fields: Any) -> Path:
        """The small model of a family with another UNet, written by diffusers."""
        from diffusers import UNet2DConditionModel

        folder = self.root / f"folder{self.count}"
        self.count += 1
        shutil.copytree(self.model(name), folder)
        config = json.loads((folder / "unet" / "config.json").read_text())
        config = {k: v for k, v in config.items() if not k.startswith("_")} | fields
        shutil.rmtree(folder / "unet")
        UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
        return folder

    def with_json(self, name: str, file: str, **fields: Any) -> Path:
        folder = self.root / f"folder{self.count}"
        self.count += 1
        shutil.copytree(self.model(name), folder)
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
        return folder


@dataclass(frozen=True)
class Kind:
    """A kind of file: how a small one is made, and which option it is given to."""

    name: str
    make: Callable[[Bench], Path]
    option: str = "model"
    base: str = "SD 1.x"


LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
FLAT = f"lora_unet_{LAYER.replace('.', '_')}"


def adapter(**parts: tuple[int, ...]) -> Callable[[Bench], Path]:
    """An adapter of one layer of the small UNet, of 32 channels; __ in a part's name is a dot."""
    tensors = {f"{FLAT}.{name.replace('__', '.')}": rand(*shape) for name, shape in parts.items()}
    return lambda bench: bench.save(tensors)


def only(*keys: str) -> Callable[[Bench], Path]:
    """A file that is known by its keys."""
    return lambda bench: bench.save({key: rand(4, 4) for key in keys})


def renamed(bench: Bench, *names: tuple[str, str]) -> Path:
    tensors = dict(bench.tensors)
    for old, new in names:
        tensors = {key.replace(old, new): tensor for key, tensor in tensors.items()}
    return bench.save(tensors, told=True)


def png(bench: Bench) -> Path:
    from PIL import Image, PngImagePlugin

    params = {"*": {"TORCHTENSOR": rand(1, 32).tolist()}}
    text = base64.b64encode(json.dumps({"string_to_param": params, "name": "cat"}).encode())
    info = PngImagePlugin.PngInfo()
    info.add_text("sd-ti-embedding", text.decode())
    path = bench.new(".png")
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def learned(bench: Bench, second: bool = False) -> Path:
    """The folder that a training of textual inversion leaves."""
    folder = bench.new("")
    folder.mkdir()
    save_file({"<cat>": rand(1, 32)}, folder / "learned_embeds.safetensors")
    if second:
        save_file({"<cat>": rand(1, 48)}, folder / "learned_embeds_2.safetensors")
    return folder


def tiny_vae(bench: Bench, decoder: bool = False) -> Path:
    from diffusers import AutoencoderTiny

    widths = {f"{side}_block_out_channels": (8,) * 4 for side in ("encoder", "decoder")}
    tiny = AutoencoderTiny(**widths)
    if decoder:  # as the authors' file of it counts
        head = "decoder.layers."
        state = {k.removeprefix(head): t for k, t in tiny.state_dict().items() if head in k}
        split = {k: k.partition(".") for k in state}
        return bench.save({f"{int(n) + 1}.{rest}": state[k] for k, (n, _, rest) in split.items()})
    path = bench.new("")
    tiny.save_pretrained(path)
    return path


def asymmetric_vae(bench: Bench) -> Path:
    from diffusers import AsymmetricAutoencoderKL

    blocks = {"down": "DownEncoderBlock2D", "up": "UpDecoderBlock2D"}
    sides = {f"{side}_block_types": (kind,) * 4 for side, kind in blocks.items()}
    widths = {"down_block_out_channels": (8, 8, 16, 16), "up_block_out_channels": (8, 16, 16, 32)}
    path = bench.new("")
    AsymmetricAutoencoderKL(norm_num_groups=4, **sides, **widths).save_pretrained(path)
    return path


def learned_tokenizer(bench: Bench) -> Path:
    folder = bench.with_json("SD 1.x", "model_index.json")
    words = json.loads((folder / "tokenizer" / "vocab.json").read_text())
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "added_tokens.json").write_text(json.dumps({"<cat>": len(words)}))
    file = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if key.endswith("token_embedding.weight"))
    save_file({**tensors, key: torch.cat([tensors[key], rand(1, 32)])}, file)
    config = folder / "text_encoder" / "config.json"
    size = {"vocab_size": len(words) + 1}
    config.write_text(json.dumps(json.loads(config.read_text()) | size))
    return folder


def clip_folder(bench: Bench) -> Path:
    from transformers import CLIPConfig, CLIPModel

    text = json.loads((bench.model("SD 1.x") / "text_encoder" / "config.json").read_text())
    sight = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sight |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    path = bench.new("")
    CLIPModel(CLIPConfig(text_config=text, vision_config=sight)).save_pretrained(path)
    return path


def quantized(bench: Bench, type: str, layout: str, cut: bool = False) -> Path:
    """As `sdcore quantize` writes it; cut: half of the file."""
    path = bench.new(".gguf" if type in GGUF_TYPES else ".safetensors")
    quantize(open_model(bench.model("SD 1.x")), path, type, layout)
    if cut:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    return path


def language_model(bench: Bench) -> Path:
    import gguf

    path = bench.new(".gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("blk.0.attn_q.weight", rand(4, 4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


VAE_NAMES = [
    (f".mid.attn_1.{a}.", f".mid.attn_1.{b}.")
    for a, b in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0"))
]
SIGMAS = {"min": 0.002, "max": 120.0}
TEXT = "text_model.encoder.layers.0.self_attn.q_proj"
DISTILLED = {
    "transformer_layers_per_block": [1, [2], [2]],
    "reverse_transformer_layers_per_block": [[2, 1], [1, 1], 1],
    "mid_block_type": "UNetMidBlock2D",
}
IP = {"image_proj": {"proj.weight": rand(4, 4)}, "ip_adapter": {"1.to_k_ip.weight": rand(4, 4)}}

KINDS = (
    Kind("a folder in the diffusers layout", lambda b: b.model("SD 1.x")),
    Kind("its tokenizer knows a learned word", learned_tokenizer),
    Kind("a single file in the LDM layout", lambda b: b.file),
    Kind("the VAE's attention by its new names (to_q)", lambda b: renamed(b, *VAE_NAMES)),
    Kind(
        "leftovers: loss, a safety checker",
        lambda b: b.whole({f"{VAE}loss.logvar": rand(1), "safety_checker.x.weight": rand(2)}),
    ),
    Kind("without its VAE", lambda b: b.whole({}, VAE)),
    Kind("without its text encoder", lambda b: b.whole({}, CLIP)),
    Kind("more than a model", lambda b: b.whole({"stranger.weight": rand(2)})),
    Kind("SSD-1B and its like", lambda b: b.with_unet("SDXL", **DISTILLED), base="SDXL"),
    Kind("BK-SDM, Segmind's small and tiny", lambda b: b.with_unet("SD 1.x", mid_block_type=None)),
    Kind(
        "latents' size as a pair",
        lambda b: b.with_json("SD 1.x", "unet/config.json", sample_size=[8, 8]),
    ),
    Kind(
        "CosXL",
        lambda b: b.whole({f"edm_vpred.sigma_{m}": torch.tensor(v) for m, v in SIGMAS.items()}),
    ),
    Kind(
        "Playground v2.5",
        lambda b: b.with_json(
            "SDXL", "scheduler/scheduler_config.json", _class_name="EDMDPMSolverMultistepScheduler"
        ),
    ),
    Kind("a VAE alone", lambda b: b.part(VAE), "vae"),
    Kind("an asymmetric VAE", asymmetric_vae, "vae"),
    Kind("a tiny VAE (TAESD)", tiny_vae, "vae"),
    Kind("a tiny VAE's decoder alone", lambda b: tiny_vae(b, decoder=True), "vae"),
    Kind("a UNet alone", lambda b: b.part(UNET), "unet"),
    Kind("a UNet in the diffusers layout", lambda b: b.save(b.unet()), "unet"),
    Kind("a UNet alone, as the model", lambda b: b.part(UNET)),
    Kind("a quantized UNet (GGUF, ComfyUI's)", lambda b: quantized(b, "q4_0", "comfy"), "unet"),
    Kind("a quantized UNet in scaled float8", lambda b: quantized(b, "fp8", "comfy"), "unet"),
    Kind("a quantized UNet in int8", lambda b: quantized(b, "int8", "comfy"), "unet"),
    Kind("a quantized model (GGUF, sd.cpp's)", lambda b: quantized(b, "q8_0", "sdcpp")),
    Kind("a quantized UNet, as the model", lambda b: quantized(b, "q4_0", "comfy")),
    Kind("half of a GGUF file", lambda b: quantized(b, "q4_0", "comfy", cut=True), "unet"),
    Kind("a language model (GGUF)", language_model),
    Kind("a text encoder alone", lambda b: b.part(CLIP), "text_encoder"),
    Kind("a whole CLIP's folder", clip_folder, "text_encoder"),
    Kind("a LoRA", adapter(lora_down__weight=(4, 32), lora_up__weight=(32, 4)), "lora"),
    Kind(
        "a LoRA with learned words inside",
        lambda b: b.save(
            {f"{FLAT}.lora_down.weight": rand(4, 32), f"{FLAT}.lora_up.weight": rand(32, 4)}
            | {"bundle_emb.my cat.clip_l": rand(1, 32)}
        ),
        "lora",
    ),
    Kind(
        "a LoRA by ComfyUI's names",
        lambda b: b.save(
            {
                f"text_encoders.clip_l.transformer.{TEXT}.{part}.weight": rand(*shape)
                for part, shape in (("lora_down", (4, 32)), ("lora_up", (32, 4)))
            }
        ),
        "lora",
    ),
    Kind(
        "a LoRA under unet.unet.",
        lambda b: b.save(
            {f"unet.unet.{LAYER}.lora_A.weight": rand(4, 32)}
            | {f"unet.unet.{LAYER}.lora_B.weight": rand(32, 4)}
        ),
        "lora",
    ),
    Kind(
        "a LoHa",
        adapter(hada_w1_a=(32, 4), hada_w1_b=(4, 32), hada_w2_a=(32, 4), hada_w2_b=(4, 32)),
        "lora",
    ),
    Kind("a LoKr", adapter(lokr_w1=(4, 4), lokr_w2=(8, 8)), "lora"),
    Kind(
        "a GLoRA",
        adapter(a1__weight=(4, 32), a2__weight=(32, 4), b1__weight=(4, 32), b2__weight=(32, 4)),
        "lora",
    ),
    Kind("an OFT", adapter(oft_blocks=(4, 8, 8), alpha=(1,)), "lora"),
    Kind("a BOFT", adapter(boft_R=(2, 4, 8, 8), boft_s=(32, 1)), "lora"),
    Kind("an IA3", adapter(weight=(32, 1), on_input=(1,)), "lora"),
    Kind("a textual inversion", lambda b: b.save({"<cat>": rand(2, 32)}), "embedding"),
    Kind(
        "A1111's",
        lambda b: b.pickled({"string_to_param": {"*": rand(1, 32)}, "name": "cat"}),
        "embedding",
    ),
    Kind("inside a PNG", png, "embedding"),
    Kind("a training's folder", learned, "embedding"),
    Kind("SDXL's two files in a folder", lambda b: learned(b, True), "embedding", "SDXL"),
    Kind("one of SDXL's two files", lambda b: b.save({"<cat>": rand(1, 32)}), "embedding", "SDXL"),
    Kind(
        "pivotal tuning's (text_encoders_0)",
        lambda b: b.save({"text_encoders_0": rand(2, 32), "text_encoders_1": rand(2, 48)}),
        "embedding",
        "SDXL",
    ),
    Kind("a LoRA, as the model", only(f"{FLAT}.lora_down.weight")),
    Kind("a ControlNet", only("control_model.input_blocks.0.0.weight")),
    Kind("a ControlNet, as a UNet", only("controlnet_cond_embedding.conv_in.weight"), "unet"),
    Kind("an IP-Adapter in torch's format", lambda b: b.pickled(IP)),
    Kind("an IP-Adapter, as a LoRA", lambda b: b.pickled(IP), "lora"),
    Kind("a T2I-Adapter", only("adapter.body.0.resnets.0.block1.weight")),
    Kind(
        "a motion module",
        lambda b: b.pickled({"state_dict": {"down_blocks.0.motion_modules.0.x": rand(2)}}),
    ),
    Kind(
        "a hypernetwork",
        lambda b: b.pickled({768: [{"linear1.weight": rand(2, 2)}], "layer_structure": [1, 2, 1]}),
        "embedding",
    ),
    Kind("an upscaler", lambda b: b.pickled({"params_ema": {"body.0.rdb1.conv1.weight": rand(2)}})),
    Kind("a video model", only(f"{UNET}input_blocks.1.0.time_stack.x")),
    Kind("a Flux model", only(f"{UNET}double_blocks.0.img_attn.qkv.weight")),
    Kind("an SD 3 model", only(f"{UNET}joint_blocks.0.x.weight")),
    Kind("a web page", lambda b: b.text("<!DOCTYPE html><html>log in</html>")),
    Kind(
        "a Git LFS pointer",
        lambda b: b.text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    ),
)


def outcome(bench: Bench, kind: Kind) -> tuple[str, str]:
    """ "loads", or the line that refuses it; and what `sdcore inspect` calls the file."""
    path = kind.make(bench)
    _ = bench.file  # whose vocabulary lies beside
    sort = "-"
    with suppress(InputError):
        report = inspect(path)
        sort = " ".join(filter(None, (report.get("type", report["kind"]), report.get("family"))))
    try:
        if kind.option == "model":
            sdcore.load(path, device="cpu")
        elif kind.option in ("lora", "embedding"):
            sd = sdcore.load(bench.model(kind.base), device="cpu")
            (sd.with_lora if kind.option == "lora" else sd.with_embedding)(path)
        else:
            source: Any = {kind.option: path}
            sdcore.load(bench.model(kind.base), device="cpu", **source)
    except InputError as error:
        line = str(error).replace(str(path), "FILE" if path.is_file() else "FOLDER")
        return f"refused: {line}", sort
    return "loads", sort


def rows(bench: Bench) -> Iterator[tuple[str, str, str, str]]:
    """kind, option, what `inspect` calls it, what happens."""
    for kind in KINDS:
        result, sort = outcome(bench, kind)
        yield kind.name, f"--{kind.option.replace('_', '-')}", sort, result


def page() -> str:
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"| {' | '.join(row)} |" for row in rows(Bench(Path(folder)))]
    return "\n".join(
        [
            "# Files",
            "",
            "What happens with each kind of file, tried with small random ones by `make docs`.",
            "",
            "| kind | given to | `sdcore inspect` | what happens |",
            "| --- | --- | --- | --- |",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    write_whole(PAGE, page().encode())
