"""GGUF files: the blocks' arithmetic is ggml's to the bit, and a header is believed in nothing."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from sdcore.checkpoints.blocks import BLOCKS, BlockType
from sdcore.checkpoints.gguf_header import read_gguf_header
from sdcore.checkpoints.packed import Packed
from sdcore.checkpoints.read import Weights, read_header, read_metadata
from sdcore.errors import InputError
from tests.checkpoints.gguf_writer import entry, gguf, note, text

ONES = np.ones(64, np.float32).tobytes()
Q8 = (struct.pack("<e", 0.5) + bytes(range(32))) * 4


def random_blocks(block: BlockType, count: int = 40) -> np.ndarray:
    """Any bytes are a block; but for scales that are no numbers."""
    rng = np.random.default_rng(block.number)
    raw = rng.integers(0, 256, (count, block.nbytes), np.uint8)
    halves = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,)}.get(block.name, (0, 2))
    for place in halves if block.name not in ("Q4_0", "Q5_0", "Q8_0") else (0,):
        raw[:, place : place + 2] = rng.normal(0, 0.1, count).astype(np.float16)[:, None].view("u1")
    return raw


@pytest.mark.parametrize("block", BLOCKS.values(), ids=lambda block: block.name)
def test_blocks_are_unpacked_as_ggml_does(block: BlockType, tmp_path: Path) -> None:
    quants = pytest.importorskip("gguf.quants")
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    kind = GGMLQuantizationType[block.name]
    assert (block.size, block.nbytes) == GGML_QUANT_SIZES[kind]
    assert kind == block.number
    raw = random_blocks(block)
    expected = torch.from_numpy(quants.dequantize(raw, kind))
    assert block.unpack(torch.from_numpy(raw)).equal(expected)
    # And from a file, where bytes lie anywhere.
    shape = (10, 4 * block.size)
    path = tmp_path / "w.gguf"
    path.write_bytes(gguf([("a", (1,), 24, b"x"), ("w", shape, block.number, raw.tobytes())]))
    assert read_header(path)["w"].shape == shape
    assert dict(Weights((path,)).read({"w"}, torch.float32))["w"].equal(expected.view(shape))


def test_q4_0_by_hand() -> None:
    # 16 bytes: the low halves are the first 16 weights, the high ones the rest.
    raw = struct.pack("<e", 2.0) + bytes([0x70 | i for i in range(16)])
    weights = BLOCKS["Q4_0"].unpack(torch.tensor([list(raw)], dtype=torch.uint8))
    assert weights.tolist() == [[2.0 * (i - 8) for i in range(16)] + [-2.0] * 16]


def test_the_header_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.gguf"
    shape = [2, 4, 4, 4]
    notes = {"general.architecture": "sd1", "n": 7, "comfy.gguf.orig_shape.conv": shape}
    path.write_bytes(gguf([("conv", (4, 32), 8, Q8), ("b", (8, 8), 0, ONES[:256])], notes))
    info = read_header(path)
    assert (info["conv"].dtype, list(info["conv"].shape), info["conv"].nbytes) == (
        "Q8_0",
        shape,
        136,
    )
    assert read_metadata(path) == {"general.architecture": "sd1"}
    read = dict(Weights((path,)))
    assert read["conv"].dtype == torch.float16  # where nothing else is asked for
    assert read["conv"].flatten()[:64].tolist() == [i / 2 for i in range(32)] * 2
    assert read["b"].equal(torch.ones(8, 8))
    (packed,) = (t for _, t in Weights((path,)).read({"conv"}, packed=True))
    assert isinstance(packed, Packed)
    assert packed.float().equal(read["conv"].float())


GOOD = gguf([("a", (2, 32), 8, Q8[:68]), ("b", (4,), 0, ONES[:16])], {"x": "y"})
ONE = ("a", (4,), 0, ONES[:16])
HEAD = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)


@pytest.mark.parametrize("length", range(4, len(GOOD), 7))
def test_a_truncated_file_is_one_line(length: int, tmp_path: Path) -> None:
    path = tmp_path / "w.gguf"
    path.write_bytes(GOOD[:length])
    with pytest.raises(InputError, match="truncated"):
        read_header(path)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "truncated or garbled"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "truncated or garbled"),
        (HEAD + struct.pack("<Q", 1 << 63) + bytes(99), "truncated or garbled"),
        (HEAD + entry("a", (1,) * 5, 0, 0) + bytes(99), "5 axes"),
        (HEAD + entry("a", (1 << 40, 1 << 40), 0, 0) + bytes(99), "garbled"),
        (HEAD + entry("a", (0, 4), 0, 0) + bytes(99), "garbled"),
        (HEAD + entry("a", (1 << 20, 1 << 20), 0, 0) + bytes(99), "truncated"),
        (HEAD + entry("a", (4,), 0, 32) + bytes(99), "does not follow on"),
        (HEAD + entry("a", (32,), 20, 0) + bytes(99), "holds a as IQ4_NL; read are"),
        (HEAD + entry("a", (32,), 99, 0) + bytes(99), "holds a as type 99"),
        (HEAD + entry("a", (33,), 2, 0) + bytes(99), "garbled"),
        (HEAD + struct.pack("<Q", 1) + b"\xff" + bytes(99), "no text"),
        (gguf([ONE], {"x": [1]}).replace(b"\x09\0\0\0\x05", b"\x09\0\0\0\x0d"),
         "unknown type 13"),
        (gguf([ONE] * 2), "holds a twice"),
        (gguf([ONE], {"general.alignment": 3}), "alignment"),
        (gguf([ONE], {"general.alignment": 0}), "alignment"),
        (gguf([ONE], {"comfy.gguf.orig_shape.a": [3]}), "says that a is"),
        (gguf([ONE], {"comfy.gguf.orig_shape.a": [-2, -2]}), "says that a is"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + note("x", 1) * 2 + bytes(99), "says x twice"),
    ],
)  # fmt: skip
def test_a_garbled_header_is_one_line(raw: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "w.gguf"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=said):
        read_gguf_header(path)


def test_tensors_may_not_share_bytes(tmp_path: Path) -> None:
    path = tmp_path / "w.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 0)
    path.write_bytes(head + entry("a", (16,), 0, 0) + entry("b", (4,), 0, 32) + bytes(200))
    with pytest.raises(InputError, match="b overlaps a"):
        read_header(path)


def test_a_note_of_texts_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "w.gguf"
    words = text("words") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 2, 0, 1) + words)
    assert read_gguf_header(path).notes == {"words": ["a", "b"]}
