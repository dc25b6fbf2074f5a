"""Quantized weights: what is written reads back, by sdcore and by the rules of other readers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sdcore
from sdcore.checkpoints import open_model
from sdcore.checkpoints.convert import component_state
from sdcore.checkpoints.ldm_write import unet_to_ldm
from sdcore.checkpoints.packed import Packed
from sdcore.checkpoints.quantize import GGUF_TYPES, TYPES, quantize
from sdcore.checkpoints.read import Weights, read_header, read_metadata
from sdcore.errors import InputError
from sdcore.inspection import inspect
from sdcore.memory import apply

# Relative root mean square error of normal weights.
ERRORS = {
    "q8_0": 6e-3, "q5_1": 4e-2, "q5_0": 4.6e-2, "q4_1": 8.2e-2, "q4_0": 9e-2,
    "fp8": 3e-2, "int8": 1.1e-2,
}  # fmt: skip


def ending(type: str) -> str:
    return "gguf" if type in GGUF_TYPES else "safetensors"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory):
    """(type, layout, spelling) -> a file of the bundled model, made once."""
    made: dict[tuple[str, ...], Path] = {}
    folder = tmp_path_factory.mktemp("quantized")
    shutil.copytree(*open_model("picturebook").tokenizers.values(), folder / "tokenizer")

    def write(type: str, layout: str = "comfy", spelling: str = "comfy_quant") -> Path:
        if type in GGUF_TYPES:
            pytest.importorskip("gguf")
        key = (type, layout, spelling)
        if key not in made:
            made[key] = folder / f"{'-'.join(key)}.{ending(type)}"
            quantize(open_model("picturebook"), made[key], *key)
        return made[key]

    return write


@pytest.fixture(scope="module")
def unet() -> dict[str, torch.Tensor]:
    """The bundled model's UNet by LDM names."""
    return unet_to_ldm(component_state(open_model("picturebook").components["unet"], None))


@pytest.mark.parametrize("type", TYPES)
def test_weights_come_back_as_far_as_their_bits_go(type: str, written, unet) -> None:
    path = written(type)
    read = dict(Weights((path,)).read(unet.keys(), torch.float32))
    assert read.keys() == unet.keys()
    packed = {key for key, info in read_header(path).items() if info.packed}
    for key, weight in unet.items():
        true = weight.float()
        if key not in packed:
            assert read[key].equal(true)  # the bundled model is float16
            continue
        error = (read[key] - true).pow(2).mean().sqrt() / true.pow(2).mean().sqrt()
        assert error < 2 * ERRORS[type], key
    plain = ("time_embed.", "input_blocks.0.0.", "out.")
    assert not any(key.startswith(plain) for key in packed)
    convolutions = [key for key in packed if unet[key].ndim == 4]
    assert bool(convolutions) == (type != "fp8")  # whose scales nobody reads of a convolution


def test_the_comfy_layout_is_as_its_reader_reads_it(written, unet) -> None:
    gguf = pytest.importorskip("gguf")
    path = written("q4_0")
    reader = gguf.GGUFReader(path)
    assert {tensor.name for tensor in reader.tensors} == unet.keys()
    assert reader.get_field("general.architecture").contents() == "sd1"
    assert reader.get_field("general.file_type").contents() == gguf.LlamaFileType.MOSTLY_Q4_0
    for tensor in reader.tensors:
        field = reader.get_field(f"comfy.gguf.orig_shape.{tensor.name}")
        shape = [int(n) for n in tensor.shape[::-1]]
        if field is not None:
            assert shape[1:] == [256]
            shape = field.contents()
        assert list(unet[tensor.name].shape) == shape
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        ours = dict(Weights((path,)).read({tensor.name}, torch.float32))[tensor.name]
        assert ours.equal(torch.from_numpy(numbers.copy()).reshape(ours.shape))
    kinds = {t.name: t.tensor_type.name for t in reader.tensors}
    assert kinds["input_blocks.1.0.in_layers.2.weight"] == "Q4_0"
    assert kinds["input_blocks.1.0.in_layers.2.bias"] == "F32"
    assert kinds["out.2.weight"] == "F16"


def test_the_sdcpp_layout_is_a_whole_model_without_an_architecture(written) -> None:
    path = written("q4_0", "sdcpp")
    info = read_header(path)
    assert "general.architecture" not in read_metadata(path)
    packed = {key for key, i in info.items() if i.packed}
    # A block lies within a row, so no convolution of 3 x 3; and no table of words.
    assert packed
    assert all(len(info[key].shape) == 2 and info[key].shape[1] % 32 == 0 for key in packed)
    assert not any("embedding" in key for key in packed)
    assert {key.split(".")[0] for key in info} == {
        "model", "first_stage_model", "cond_stage_model",
    }  # fmt: skip
    checkpoint = open_model(path)
    assert (
        checkpoint.components["unet"].config == open_model("picturebook").components["unet"].config
    )
    report = inspect(path)
    assert (report["kind"], report["layout"]) == ("model", "single file (.gguf)")
    assert report["dtypes"].keys() == {"F32", "F16", "Q4_0"}
    assert 4.5 < report["bits_a_weight"] < 16


def test_scales_in_both_spellings(written, unet) -> None:
    new, old = load_file(written("fp8")), load_file(written("fp8", "comfy", "scaled_fp8"))
    layer = "input_blocks.3.1.transformer_blocks.0.attn1.to_q"
    assert old["scaled_fp8"].dtype == torch.float8_e4m3fn
    assert old[f"{layer}.scale_weight"].equal(new[f"{layer}.weight_scale"])
    assert json.loads(bytes(new[f"{layer}.comfy_quant"])) == {"format": "float8_e4m3fn"}
    with safe_open(written("fp8"), "pt") as file:
        layers = json.loads(file.metadata()["_quantization_metadata"])["layers"]
    assert layers[layer] == {"format": "float8_e4m3fn"}
    for path in (written("fp8"), written("fp8", "comfy", "scaled_fp8")):
        assert read_header(path).keys() == unet.keys()
        key = f"{layer}.weight"
        read = dict(Weights((path,)).read({key}, torch.float32))[key]
        assert read.equal(new[key].float() * new[f"{layer}.weight_scale"])


def test_a_scale_is_never_passed_over(tmp_path: Path) -> None:
    weight = torch.tensor([[1.0, 2.0], [3.0, -4.0]]).to(torch.float8_e4m3fn)
    path = tmp_path / "w.safetensors"

    def read(**beside: torch.Tensor) -> torch.Tensor:
        path = (
            tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        )  # each file's header is kept
        save_file({"a.weight": weight} | {f"a.{name}": t for name, t in beside.items()}, path)
        assert read_header(path).keys() == {"a.weight"}
        return dict(Weights((path,)).read({"a.weight"}, torch.float32))["a.weight"]

    true = weight.float()
    assert read(scale_weight=torch.tensor(3.0), scale_input=torch.tensor(5.0)).equal(3 * true)
    assert read(weight_scale=torch.tensor([3.0])).equal(3 * true)
    rows = torch.tensor([[3.0], [0.5]])
    assert read(weight_scale=rows.half()).equal(rows * true)
    # Plain float8 is a cast.
    assert read().equal(true)
    for blocks in (torch.ones(2, 2), torch.ones(3), torch.ones(2, dtype=torch.uint8)):
        with pytest.raises(InputError, match=r"a\.weight as F8_E4M3 \[2, 2\] with scales"):
            read(weight_scale=blocks)
    save_file({"a.weight": torch.ones(2, dtype=torch.uint8), "a.comfy_quant": torch.ones(
        2, dtype=torch.uint8)}, path)  # fmt: skip
    with pytest.raises(InputError, match="quantized form that is not read"):
        read_header(path)


def drawn(sd, lora: Path | None = None, merged: bool = True) -> torch.Tensor:
    sd = sd if lora is None else sd.with_lora(lora, 2.0, merged=merged)
    *_, last = sd.prepare("a red house", seeds=[1], steps=2, scheduler="euler")
    return last.x_next


@pytest.mark.parametrize(
    ("type", "layout"),
    [("q4_0", "comfy"), ("q8_0", "sdcpp"), ("fp8", "comfy"), ("int8", "comfy")],
)
def test_kept_in_blocks_or_not_the_picture_is_the_same(type: str, layout: str, written) -> None:
    path = str(written(type, layout))
    parts = {"unet": path} if layout == "comfy" else {
        "unet": path, "vae": path, "text_encoder": path,
    }  # fmt: skip
    plain = sdcore.load("picturebook", device="cpu", engine="plain", **parts)
    kept = sdcore.load("picturebook", device="cpu", memory="quantized", **parts)
    assert any(isinstance(weight, Packed) for weight in kept.unet.parameters())
    assert not any(isinstance(weight, Packed) for weight in plain.unet.parameters())
    with torch.inference_mode():
        first = drawn(plain)
        assert drawn(kept).equal(first)
        assert any(isinstance(weight, Packed) for weight in kept.unet.parameters())
    # The same networks, leaner.
    apply(kept.modules, "low", kept.device, dict.fromkeys(kept.modules, torch.float32))
    assert drawn(kept).equal(first)


@pytest.mark.parametrize("merged", [True, False])
def test_adapters_lie_over_blocks(merged: bool, written, tmp_path: Path) -> None:
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    wide = open_model("picturebook").components["unet"].config["block_out_channels"][1]
    torch.manual_seed(0)
    lora = tmp_path / "lora.safetensors"
    save_file({f"{name}.lora_down.weight": torch.randn(2, wide),
               f"{name}.lora_up.weight": torch.randn(wide, 2)}, lora)  # fmt: skip
    plain = sdcore.load("picturebook", device="cpu", engine="plain", unet=str(written("q4_0")))
    kept = sdcore.load("picturebook", device="cpu", memory="quantized", unet=str(written("q4_0")))
    before = drawn(plain)
    after = drawn(plain, lora, merged)
    assert (after - before).abs().max() > 1e-3
    assert drawn(kept, lora, merged).equal(after)
    assert drawn(kept).equal(before)  # nothing was changed in place


def test_a_quantized_weight_is_passed_on_as_it_lies(written) -> None:
    key = "input_blocks.3.1.transformer_blocks.0.ff.net.0.proj.weight"
    for type in ("q8_0", "int8", "fp8"):
        ((_, packed),) = Weights((written(type),)).read({key}, packed=True)
        assert isinstance(packed, Packed)
        whole = packed.float()
        assert not isinstance(whole, Packed)
        for kept, expected in (
            (packed.detach().to("cpu"), whole),
            (packed.flatten(), whole.flatten()),
            (packed.chunk(2)[1], whole.chunk(2)[1]),
            (packed.unflatten(1, (-1, 32)), whole.unflatten(1, (-1, 32))),
        ):
            assert isinstance(kept, Packed)
            assert kept.shape == expected.shape
            assert kept.to(torch.float32).equal(expected)
        assert (packed + 0).equal(whole)
        assert packed.t().equal(whole.t())
        assert packed.half().equal(whole.half())
        assert "Packed" in repr(packed)


def test_a_quantized_model_is_converted_to_float16(written, tmp_path: Path, command) -> None:
    path = written("q4_0", "sdcpp")
    status, _, err = command("convert", path, tmp_path / "m")
    assert status == 0, err
    key = "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2.weight"
    weight = load_file(tmp_path / "m/unet/diffusion_pytorch_model.safetensors")[key]
    expected = component_state(open_model(path).components["unet"], torch.float32)[key]
    assert weight.dtype == torch.float16
    assert weight.equal(expected.half())


def test_the_command(command, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    status, first, err = command(
        "quantize", "--model_path", "picturebook", "--output_path", "model-quantized.gguf",
        "--measure", "--seeds", 1, "--steps", 2,
    )  # fmt: skip
    assert (status, first) == (0, Path("model-quantized.gguf")), err
    status, _, err = command("quantize", "picturebook", "model-quantized.gguf")
    assert status == 2
    assert "is there already" in err
    status, _, err = command("quantize", "model-quantized.gguf", "b.gguf")
    assert status == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("picturebook", "x.gguf", "--type", "q4_k"), "unknown type 'q4_k': did you mean q4_"),
        (("picturebook", "x.gguf", "--layout", "a1111"), "unknown layout"),
        (("picturebook", "x.gguf", "--type", "fp8"), "fp8 is written as .safetensors"),
        (("picturebook", "x.safetensors"), "q4_0 is written as .gguf: name it x.gguf"),
        (("picturebook",), "OUT is missing"),
        (("picturebook", "x.gguf", "--output-path", "y.gguf"), "OUT is given twice"),
        (("nobody", "x.gguf"), "unknown model"),
    ],
)
def test_what_cannot_be_written_is_one_line(arguments, said: str, command, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    status, _, err = command("quantize", *arguments)
    assert status == 2
    assert said in err
    assert not list(tmp_path.glob("*.gguf"))


def test_without_the_package_one_line_says_what_to_install(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(InputError, match=r"pip install 'sdcore\[gguf\]'"):
        quantize(open_model("picturebook"), tmp_path / "x.gguf", "q8_0")
    quantize(open_model("picturebook"), tmp_path / "x.safetensors", "fp8")


def test_what_is_quantized_is_not_quantized_again(written, tmp_path: Path) -> None:
    checkpoint = open_model("picturebook", {"unet": written("fp8")})
    with pytest.raises(InputError, match="is quantized already"):
        quantize(checkpoint, tmp_path / "x.safetensors", "int8")


def test_stable_diffusion_cpp_reads_it_and_is_read(written, tmp_path: Path) -> None:
    """It makes float32 of a file of ours, to the bit what we make; and writes K types for us."""
    sdcpp = pytest.importorskip("cyllama.sd.stable_diffusion")
    ours = written("q8_0", "sdcpp")

    def converted(kind: str) -> dict[str, torch.Tensor]:
        path = tmp_path / f"{kind}.gguf"
        # Without any rule the binding hands on a null pointer, which ends the process.
        rule = {"tensor_type_rules": "no such name=f16"}
        assert sdcpp.convert_model(str(ours), str(path), sdcpp.SDType[kind], **rule)
        assert kind in {info.dtype for info in read_header(path).values()}
        return dict(Weights((path,)).read(read_header(path).keys(), torch.float32))

    source = dict(Weights((ours,)).read(read_header(ours).keys(), torch.float32))
    whole, coarse = converted("F32"), converted("Q4_K")
    assert whole.keys() == coarse.keys() == source.keys()
    for key, tensor in source.items():
        assert whole[key].equal(tensor)
        assert (coarse[key] - tensor).norm() <= 0.1 * tensor.norm(), key
