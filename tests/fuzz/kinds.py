"""The kinds of input: each writes garbled files where it stands and gives a command line for them.

Signature: (random, the model's folder, an empty folder of its own) -> arguments of `sdcore`.
"""

import io
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save

from sdcore.settings import Settings
from tests.checkpoints.gguf_writer import gguf
from tests.fuzz import garble

Kind = Callable[[Random, Path, Path], list[str]]
DRAW = ["--steps", "1", "--seed", "1", "--device", "cpu", "--out", "out/x.png"]
UNET = "unet/diffusion_pytorch_model.safetensors"


def _copy(model: Path, here: Path) -> Path:
    return Path(shutil.copytree(model, here / "m"))


def _drawn(random: Random, place: str = "./m") -> list[str]:
    """A command that reads the model."""
    draw = ["sample", "red", "--model", place, *DRAW]
    others = [
        ["inspect", place],
        ["convert", place, "out/m.safetensors"],
        ["convert", place, "out/m"],
    ]
    return random.choice([draw, draw, *others])


def _taken(random: Random, model: Path, file: str) -> list[str]:
    """A command that takes a file of its own."""
    draw = ["sample", "red", "--model", str(model), *DRAW]
    options = ["--lora", "--embedding", "--vae", "--unet", "--text-encoder"]
    taken = [[*draw, option, file] for option in options]
    return random.choice(
        [*taken, _drawn(random, f"./{file}"), ["merge", file, file, "out/w.safetensors"]]
    )


def _garbled_header(random: Random, raw: bytes) -> bytes:
    length = int.from_bytes(raw[:8], "little")
    if random.random() < 0.3:
        return garble.data(random, raw, 8 + length)
    header = garble.json_text(random, json.loads(raw[8 : 8 + length])).encode("utf-8", "replace")
    return struct.pack("<Q", len(header)) + header + raw[8 + length :]


def headers(random: Random, model: Path, here: Path) -> list[str]:
    tensors = {random.choice([*garble.TEXTS, "a.b"]): torch.ones(2, 3), "b": torch.ones(4).half()}
    raw = save(tensors, {"format": "pt", random.choice(garble.TEXTS): random.choice(garble.TEXTS)})
    (here / "w.safetensors").write_bytes(_garbled_header(random, raw))
    return _taken(random, model, "w.safetensors")


def ggufs(random: Random, model: Path, here: Path) -> list[str]:
    name = random.choice(["input_blocks.0.0.weight", "a.b", *garble.TEXTS])
    kind, size, nbytes = random.choice([(0, 1, 4), (1, 1, 2), (2, 32, 18), (12, 256, 144)])
    tensors = [(name, (2, size), kind, random.randbytes(2 * nbytes)), ("b", (2,), 0, bytes(8))]
    notes = {f"comfy.gguf.orig_shape.{name}": [size, 2], "general.alignment": 32}
    raw = gguf(tensors, notes | {random.choice(garble.TEXTS): random.choice(garble.TEXTS)})
    (here / "w.gguf").write_bytes(garble.data(random, raw, len(raw) - 2 * nbytes))
    return _taken(random, model, "w.gguf")


def scales(random: Random, model: Path, here: Path) -> list[str]:
    file = _copy(model, here) / UNET
    state = load_file(file)
    for key in random.sample(sorted(state), 3):
        small = random.choice([torch.int8, torch.float8_e4m3fn, torch.uint8])
        shape = random.choice([(), (1,), (3,), state[key].shape[:1], state[key].shape])
        ending = random.choice(["weight_scale", "scale_weight", "comfy_quant", "scale_input"])
        state[key] = state[key].to(small)
        state[f"{key.rpartition('.')[0]}.{ending}"] = torch.ones(shape)
    file.write_bytes(save(state))
    return _drawn(random)


def weights(random: Random, model: Path, here: Path) -> list[str]:
    file = random.choice(sorted(_copy(model, here).rglob("*.safetensors")))
    file.write_bytes(_garbled_header(random, file.read_bytes()))
    return _drawn(random)


def _with_garbled_json(random: Random, model: Path, here: Path, pattern: str) -> list[str]:
    file = random.choice(sorted(_copy(model, here).rglob(pattern)))
    text = garble.json_text(random, json.loads(file.read_text()))
    file.write_text(text, encoding="utf-8", errors="replace")
    if file.name == "scheduler_config.json" and random.random() < 0.5:
        return [
            "plan",
            "--model",
            "./m",
            "--scheduler",
            random.choice(["euler", "unipc", "lcm", "ddim"]),
        ]
    return _drawn(random)


def configs(random: Random, model: Path, here: Path) -> list[str]:
    return _with_garbled_json(random, model, here, random.choice(["config.json", "*_config.json"]))


def tokenizers(random: Random, model: Path, here: Path) -> list[str]:
    names = ["tokenizer.json", "vocab.json", "tokenizer_config.json", "special_tokens_map.json"]
    there = [name for name in names if (model / "tokenizer" / name).is_file()]
    arguments = _with_garbled_json(random, model, here, random.choice(there))
    if random.random() < 0.3:
        (here / "m" / "tokenizer" / "tokenizer.json").unlink()
    return arguments


def indices(random: Random, model: Path, here: Path) -> list[str]:
    if random.random() < 0.4:
        return _with_garbled_json(random, model, here, "model_index.json")
    copy = _copy(model, here)
    file = copy / UNET
    shard = "diffusion_pytorch_model-00001-of-00001.safetensors"
    keys = dict.fromkeys(load_file(file), shard)
    file.rename(file.with_name(shard))
    text = garble.json_text(random, {"metadata": {"total_size": 1}, "weight_map": keys})
    index = file.with_name("diffusion_pytorch_model.safetensors.index.json")
    index.write_text(text, encoding="utf-8", errors="replace")
    return _drawn(random)


class _Touches:
    """Pickled, it makes a file where it is read as code."""

    def __reduce__(self) -> tuple:
        return open, ("ran", "w")


def _tensors(random: Random) -> dict[str, Any]:
    strange = [
        lambda: torch.ones(3, 4).half(),
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.ones(2, device="meta"),
        lambda: torch.ones(1).expand(10**7),
        lambda: torch.ones(2, dtype=torch.complex64),
        lambda: torch.tensor(1),
        lambda: torch.ones(0),
        lambda: torch.ones(2).requires_grad_(),
        lambda: _Touches(),
        lambda: "text",
        lambda: {"a": torch.ones(2, 16)},
    ]
    keys = [*garble.TEXTS, "state_dict", "string_to_param", "emb_params", "a.lora_down.weight"]
    return {random.choice(keys): random.choice(strange)() for _ in range(random.randint(1, 3))}


def pickles(random: Random, model: Path, here: Path) -> list[str]:
    out, file = io.BytesIO(), random.choice(["w.pt", "w.ckpt", "w.bin", "w.safetensors"])
    new = random.random() < 0.7
    torch.save(_tensors(random), out, _use_new_zipfile_serialization=new)
    raw = out.getvalue()
    if new and random.random() < 0.6:  # the records garbled, the archive whole
        with zipfile.ZipFile(out) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        name = random.choice([n for n in records if records[n]])
        records[name] = random.choice(
            [b"big", garble.data(random, records[name]), records[name] * 2]
        )
        out = io.BytesIO()
        with zipfile.ZipFile(
            out, "w", random.choice([zipfile.ZIP_STORED] * 5 + [zipfile.ZIP_DEFLATED])
        ) as archive:
            for name, record in records.items():
                archive.writestr(name, record)
        raw = out.getvalue()
    elif random.random() < 0.7:
        raw = garble.data(random, raw)
    (here / file).write_bytes(raw)
    return _taken(random, model, file)


def adapters(random: Random, model: Path, here: Path) -> list[str]:
    layer = random.choice(
        ["unet.mid_block.attentions.0.proj_in", "lora_unet_mid_block_resnets_0_conv1", "x"]
    )
    ends = [
        "lora_A.weight",
        "lora_B.weight",
        "lora_down.weight",
        "lora_up.weight",
        "alpha",
        "lora_mid.weight",
    ]
    ends += [
        "hada_w1_a",
        "hada_w1_b",
        "lokr_w1",
        "lokr_w2",
        "dora_scale",
        "diff",
        "diff_b",
        "w_norm",
    ]
    tensors = {}
    for end in random.sample(ends, random.randint(1, 5)):
        shape = [random.choice([0, 1, 2, 16]) for _ in range(random.choice([0, 1, 2, 2, 4]))]
        value = torch.full(shape, random.choice([0.0, 1.0, float("nan"), 6e4]))
        tensors[f"{layer}.{end}"] = value.to(
            random.choice([torch.float32, torch.float16, torch.int64])
        )
    notes = {
        "r": 4,
        "lora_alpha": 2,
        "rank_pattern": {"proj_in": 2},
        "alpha_pattern": {"(a+)+$": 1},
    }
    metadata = {"lora_adapter_metadata": garble.json_text(random, notes)}
    beside = random.random() < 0.3
    file = here / ("adapter_model.safetensors" if beside else "l.safetensors")
    file.write_bytes(save(tensors, None if beside else metadata))
    if beside:
        (here / "adapter_config.json").write_text(metadata["lora_adapter_metadata"])
    strength = random.choice(
        ["", "", ":0.5", ":unet=1,text=0", ":1e999", ":" + garble.number(random)]
    )
    return ["sample", "red", "--model", str(model), *DRAW, "--lora", f"{file.name}{strength}"]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def pictures(random: Random, model: Path, here: Path) -> list[str]:
    settings = Settings(
        prompt="red", negative="", seed=1, model=str(model), scheduler="ddim", spacing="leading",
        eta=0.0, steps=1, cfg=2.0, width=32, height=32, device="cpu", dtype="float32", version="0",
    )  # fmt: skip
    text = garble.json_text(random, json.loads(settings.to_json())).encode("latin-1", "replace")
    keyword = random.choice([b"sdcore", b"sdcore", b"sdcore", b"parameters"])
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    pixels = _chunk(b"IDAT", zlib.compress(bytes(8 * 25)))
    raw = (
        b"\x89PNG\r\n\x1a\n"
        + head
        + _chunk(b"tEXt", keyword + b"\0" + text)
        + pixels
        + _chunk(b"IEND", b"")
    )
    (here / "x.png").write_bytes(garble.data(random, raw) if random.random() < 0.2 else raw)
    # What is only long or large is no mistake: a bound on both.
    small = [
        "--steps",
        "1",
        "--width",
        "32",
        "--height",
        "32",
        "--device",
        "cpu",
        "--dtype",
        "float32",
    ]
    return [
        "rerun",
        "x.png",
        *small,
        *random.choice([[], ["--model", str(model)]]),
        "--out",
        "out/y.png",
    ]


def prompts(random: Random, model: Path, here: Path) -> list[str]:
    grammar = random.choice(["a1111", "a1111", "plain"])
    words = ["--grammar", grammar, f"--negative={garble.prompt(random)}"]
    return [
        "sample",
        "--model",
        str(model),
        *DRAW,
        "--steps",
        "2",
        *words,
        "--",
        garble.prompt(random),
    ]


def numbers(random: Random, model: Path, here: Path) -> list[str]:
    options = [
        "--seed",
        "--cfg",
        "--eta",
        "--sigmas",
        "--timesteps",
        "--tail",
        "--count",
        "--clip-skip",
    ]
    options += [
        "--batch",
        "--handover",
        "--original-size",
        "--crop",
        "--width",
        "--height",
        "--steps",
    ]
    names = [
        "--scheduler",
        "--spacing",
        "--noise",
        "--dtype",
        "--device",
        "--memory",
        "--guidance",
        "--prediction",
    ]
    given = []
    for option in random.sample(options, random.randint(1, 2)):
        given.append(f"{option}={garble.number(random)}")
    if random.random() < 0.5:
        value = random.choice(["euler", "heun", "karras", "cfg", "brownian", *garble.TEXTS])
        value += random.choice(
            ["", f":a={garble.number(random)}", f":eta={garble.number(random)}", ":::"]
        )
        given.append(f"{random.choice(names)}={value}")
    scheduler = [
        "--scheduler",
        random.choice(["euler", "dpmpp_sde", "ddim", "heun", "lms", "unipc"]),
    ]
    return ["sample", "red", "--model", str(model), *DRAW, *scheduler, *given]


def solvers(random: Random, model: Path, here: Path) -> list[str]:
    results = [
        "x",
        "p.x0",
        "p.x0[:, :2]",
        "p.x0 * float('nan')",
        "None",
        "p.x0.long()",
        "p.x0.to('meta')",
        "x * 0",
    ]
    lines = [
        "pass",
        "raise ValueError('\\x1b[31m' * 1000)",
        "raise SystemExit(3)",
        "import json; json.loads('x')",
    ]
    lines += [
        "denoise(x, float('nan'))",
        "denoise(None, 1.0)",
        "draw(1.0, 2.0)",
        "x.add_(1)",
        "memory = 5",
        "1 / 0",
    ]
    lines += [
        "interval.sigma = 1",
        "raise BaseException",
        "denoise(x[:1], 1e300)",
        "return",
        "yield x",
        "draw(None, 1)",
    ]
    prediction, memory = (
        random.choice(["p", "p", "x", "None"]),
        random.choice(["memory", "()", "5"]),
    )
    answer = f"{random.choice(results)}, {prediction}, {memory}"
    body = [random.choice(lines) for _ in range(random.choice([0, 1]))]
    head = random.choice(
        ["def solver(denoise, x, interval, memory, draw):"] * 5 + ["def solver(x):", "def f("]
    )
    text = "\n    ".join([head, "p = denoise(x, interval.sigma)", *body, f"return {answer}"])
    raw = text.encode()
    (here / "mine.py").write_bytes(garble.data(random, raw) if random.random() < 0.1 else raw)
    return ["sample", "red", "--model", str(model), *DRAW, "--scheduler", "mine.py"]


KINDS: tuple[Kind, ...] = (
    headers, ggufs, scales, weights, configs, tokenizers, indices, pickles, adapters, pictures,
    prompts, numbers, solvers,
)  # fmt: skip
