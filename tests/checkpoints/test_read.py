"""Safetensors files, whole and broken."""

import struct
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sdcore.checkpoints.read import Weights, as_dtype, read_header, read_json
from sdcore.errors import InputError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.arange(6.0).view(2, 3), "n": torch.tensor([7])}, path, {"format": "pt"})
    return path


def test_header_and_tensors(file: Path) -> None:
    assert {k: (i.dtype, i.shape) for k, i in read_header(file).items()} == {
        "a": ("F32", (2, 3)),
        "n": ("I64", (1,)),
    }
    found = dict(Weights((file,)))
    assert torch.equal(found["a"], torch.arange(6.0).view(2, 3))
    assert found["n"].tolist() == [7]


def test_several_files_are_one(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"b": torch.ones(1)}, other)
    assert sorted(dict(Weights((file, other)))) == ["a", "b", "n"]


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_truncated(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    why = r"truncated|is empty|neither a safetensors nor a torch file"
    with pytest.raises(InputError, match=why):
        read_header(file)


def test_garbled_header(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[8:40] = bytes(32)
    file.write_bytes(data)
    with pytest.raises(InputError, match="garbled"):
        read_header(file)


SCALAR = b'{"a":{"dtype":"F32","shape":%s,"data_offsets":[0,4]}}'


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b'{"a": 3}',
        b'{"a": {"dtype": "F32"}}',
        b"\xff\xfe",
        b"[" * 100_000,
        SCALAR % b"[1.0]",
        SCALAR % b"[-1,-1]",
        SCALAR % (b"[" + b"1" * 5000 + b"]"),
        (SCALAR % b"[1]").replace(b'"a"', b'"\\ud800"'),
    ],
)
def test_headers_that_make_no_sense(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(InputError, match="garbled"):
        read_header(path)


def test_a_file_that_was_changed_is_read_again(file: Path) -> None:
    assert read_header(file) is read_header(file)
    save_file({"new": torch.zeros(3)}, file)
    assert list(read_header(file)) == ["new"]


def test_offsets_that_disagree_with_shapes(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(InputError, match="garbled"):
        dict(Weights((path,)))


def _file(path: Path, header: str, body: bytes = bytes(16)) -> Path:
    raw = header.encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + body)
    return path


def _entry(begin: int, end: int, shape: str = "[2]") -> str:
    return f'{{"dtype":"F32","shape":{shape},"data_offsets":[{begin},{end}]}}'


TWICE = '{"shape":[4],'


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (f'{{"a":{_entry(0, 8)},"b":{_entry(4, 12)}}}', "b overlaps a"),
        (f'{{"a":{_entry(0, 8)},"b":{_entry(0, 8)}}}', "b overlaps a"),
        (f'{{"a":{_entry(0, 4, "[1]")},"b":{_entry(8, 16)}}}', "b leaves a hole behind a"),
        (f'{{"a":{_entry(8, 16)}}}', "a leaves a hole behind the header"),
        (f'{{"a":{_entry(0, 8)}}}', "8 bytes stand behind its last tensor"),
        (f'{{"a":{_entry(0, 8)},"b":{_entry(8, 24, "[4]")}}}', "is truncated"),
        (f'{{"a":{_entry(0, 8)},"a":{_entry(8, 16)}}}', "'a' stands twice"),
        (f'{{"a":{_entry(0, 16, "[4]").replace("{", TWICE)}}}', "'shape' stands twice"),
        (f'{{"a":{_entry(0, 16, "[4]").replace("[0,", "[-0,")}}}', "-0"),
        (f'{{"a":{_entry(0, 16, "[4]").replace(":[4]", ":[NaN]")}}}', "NaN"),
        (f'{{"__metadata__":{{"a":1}},"a":{_entry(0, 16, "[4]")}}}', "no texts"),
        (f'{{"__metadata__":["a"],"a":{_entry(0, 16, "[4]")}}}', "no texts"),
        (f'{{"a":{_entry(0, 16, "[true, 4]")}}}', "says of a"),
        (f'{{"a":{_entry(0, 16, "[4, 4611686018427387904, 4]")}}}', "says of a"),
    ],
)
def test_headers_that_the_format_forbids(tmp_path: Path, header: str, why: str) -> None:
    """As its own library does (but for a tensor that stands twice, of which it takes the last)."""
    path = _file(tmp_path / "w.safetensors", header)
    with pytest.raises(InputError, match=why):
        read_header(path)
    if "'a'" not in why:
        with pytest.raises(SafetensorError), safe_open(path, "pt"):
            pass


def test_a_key_in_two_shards(tmp_path: Path) -> None:
    one, same, other, wider = (tmp_path / f"{n}.safetensors" for n in range(4))
    save_file({"a": torch.ones(2)}, one)
    save_file({"a": torch.ones(2), "b": torch.ones(1)}, same)
    save_file({"a": torch.zeros(2)}, other)
    save_file({"a": torch.ones(2).double()}, wider)
    assert Weights((one, same)).names() == ["a", "b"]
    for second in (other, wider):
        with pytest.raises(InputError, match="hold a with other numbers"):
            Weights((one, second))


def test_a_torch_file_under_another_name(tmp_path: Path) -> None:
    """Read for what it is: nothing of it is run."""
    path = tmp_path / "w.safetensors"
    for new in (True, False):
        torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=new)
        assert read_header(path)["a"].shape == (3,)
        assert dict(Weights((path,)))["a"].tolist() == [1, 1, 1]


def test_no_safetensors_at_all(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_text("<html>please log in to download this model</html>")
    with pytest.raises(InputError, match="is a web page"):
        read_header(path)


def test_what_git_leaves_in_place_of_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4265146304\n")
    with pytest.raises(InputError, match="git lfs pull"):
        read_header(path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        read_header(tmp_path / "gone.safetensors")
    with pytest.raises(InputError, match="is missing"):
        read_json(tmp_path / "gone.json")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "3", "[" * 100_000, "1" * 5000])
def test_json_that_is_no_object(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(InputError, match="JSON"):
        read_json(path)


def test_what_is_stored_so_is_mapped_and_the_file_is_never_written(file: Path) -> None:
    before = file.read_bytes()
    weights = Weights((file,))
    ((_, a),) = weights.read({"a"})
    a.mul_(2)
    assert file.read_bytes() == before
    ((_, again),) = weights.read({"a"}, torch.float16)
    assert torch.equal(again, torch.arange(6.0).half().view(2, 3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.bool])
def test_any_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "w.safetensors"
    tensors = {"a": torch.arange(5).to(dtype), "none": torch.zeros(0, 3).to(dtype)}
    save_file(tensors, path)
    for wanted in (None, torch.float32):
        for key, tensor in Weights((path,)).read(tensors, wanted):
            assert tensor.dtype == (wanted if wanted and dtype != torch.bool else dtype)
            assert torch.equal(tensor.double(), tensors[key].double())


def test_a_dtype_that_torch_has_not(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}'
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(1))
    with pytest.raises(InputError, match="holds a as F4; known: F64, F32"):
        read_header(path)


def test_half_to_half_is_torchs_own_cast() -> None:
    bits = torch.arange(-(2**15), 2**15).to(torch.int16)
    for old, new in ((torch.float16, torch.bfloat16), (torch.bfloat16, torch.float16)):
        stored = bits.repeat(5).view(old)  # more than one piece, the last one ragged
        stored = stored[~stored.isnan()]
        ours, theirs = as_dtype(stored, new), stored.to(new)
        assert torch.equal(ours.view(torch.int16), theirs.view(torch.int16))


def test_integers_are_never_cast() -> None:
    assert as_dtype(torch.tensor([1]), torch.float16).dtype == torch.int64
    assert as_dtype(torch.ones(1), torch.float16).dtype == torch.float16
    assert as_dtype(torch.ones(1), None).dtype == torch.float32
