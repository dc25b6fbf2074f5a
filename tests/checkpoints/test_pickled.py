"""Pickled weights: tensors are read, and nothing is run."""

import fractions
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
import torch

from sdcore.adapters import open_embedding
from sdcore.checkpoints.pickled import is_pickled, read_pickled
from sdcore.checkpoints.read import Weights, read_header
from sdcore.errors import InputError


class Touch:
    """A pickle that would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_tensors_are_read(tmp_path: Path, new: bool, wrapped: bool) -> None:
    tensors = OrderedDict(a=torch.randn(3, 4).half(), n=torch.tensor([7]))
    whole = {"state_dict": tensors, "global_step": 3, "epoch": 1.5} if wrapped else tensors
    path = tmp_path / "w.ckpt"
    torch.save(whole, path, _use_new_zipfile_serialization=new)
    assert is_pickled(path)
    infos = {k: (i.dtype, i.shape) for k, i in read_header(path).items()}
    assert infos == {"a": ("F16", (3, 4)), "n": ("I64", (1,))}
    found = dict(Weights((path,)).read(tensors, torch.float32))
    assert torch.equal(found["a"], tensors["a"].float())
    assert torch.equal(found["n"], tensors["n"])


def test_code_is_refused_by_name_and_never_run(tmp_path: Path) -> None:
    path, made = tmp_path / "w.ckpt", tmp_path / "made"
    torch.save({"a": torch.ones(1), "b": Touch(made)}, path)
    for device in ("meta", "cpu"):
        with pytest.raises(InputError, match=r"w\.ckpt needs \S*open, which is code") as caught:
            read_pickled(path, device)
        assert "\n" not in str(caught.value)
    assert not made.exists()
    torch.save({"a": torch.ones(1), "b": fractions.Fraction(1, 2)}, path)
    with pytest.raises(InputError, match=r"needs fractions\.Fraction, which is code"):
        read_header(path)


def test_the_class_that_published_files_name_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "pytorch_lightning.callbacks.model_checkpoint"
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType("x"))
    kind = type("ModelCheckpoint", (), {"__module__": name})
    sys.modules[name].ModelCheckpoint = kind  # type: ignore[attr-defined]
    path = tmp_path / "w.ckpt"
    torch.save({"state_dict": {"a": torch.ones(2)}, "callbacks": {kind: {"best": 1.0}}}, path)
    assert read_header(path).keys() == {"a"}


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("keep", [20, -40])
def test_broken_pickles(tmp_path: Path, new: bool, keep: int) -> None:
    path = tmp_path / "w.ckpt"
    torch.save({"a": torch.ones(9)}, path, _use_new_zipfile_serialization=new)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"w\.ckpt is garbled|w\.ckpt needs more") as caught:
        dict(Weights((path,)))
    assert "\n" not in str(caught.value)


def test_a_name_proves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "w.ckpt"
    path.write_text("<html>please log in to download this model</html>")
    with pytest.raises(InputError, match="is a web page"):
        read_header(path)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    """Mapped, its packed bytes would be read as the numbers."""
    plain, packed = tmp_path / "plain.ckpt", tmp_path / "w.ckpt"
    torch.save({"a": torch.ones(9)}, plain)
    with (
        zipfile.ZipFile(plain) as old,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    for read in (read_header, read_pickled):
        with pytest.raises(InputError, match=r"w\.ckpt is a compressed archive"):
            read(packed)


def _rewritten(path: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """The archive with every record as `change` gives it, by its name within; None: left out."""
    with zipfile.ZipFile(path) as old:
        records = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for name, data in records.items():
            changed = change(name.partition("/")[2], data)
            if changed is not None:
                new.writestr(name, changed)


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("byteorder", lambda data: b"big", "big-endian"),
        ("data.pkl", lambda data: data + b"hidden", "behind the end of its pickle"),
        ("data.pkl", lambda data: None, "no data.pkl"),
        ("data/0", lambda data: data[:-4], "data/0 is not of 64 bytes"),
        ("data/0", lambda data: data + bytes(64), "data/0 is not of 64 bytes"),
        ("data/0", lambda data: None, "data/0 is not of 64 bytes"),
    ],
)
def test_archives_that_contradict_themselves(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes | None], why: str
) -> None:
    path = tmp_path / "w.pt"
    torch.save({"cat": torch.ones(16)}, path)
    _rewritten(path, lambda n, data: change(data) if n == name else data)
    with pytest.raises(InputError, match=why):
        read_header(path)


@pytest.mark.parametrize("change", [lambda d: d + b"hidden", lambda d: d[:-4]])
def test_old_files_that_are_not_as_long_as_they_say(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "w.pt"
    torch.save({"cat": torch.ones(16)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=r"it should have \d+ bytes and has \d+"):
        read_header(path)


def test_tuples_that_take_for_ever_to_hash(tmp_path: Path) -> None:
    """Fifty of them, each twice in the next, as a key: 2^50 steps."""
    bomb = b"\x80\x02}(K\x01\x85" + b"q\x00h\x00\x86" * 50 + b"K\x01u."
    path = tmp_path / "w.pt"
    torch.save({"cat": torch.ones(16)}, path)
    _rewritten(path, lambda n, data: bomb if n == "data.pkl" else data)
    with pytest.raises(InputError, match="tuples lie inside each other"):
        read_header(path)


STRANGE = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "sparse ": lambda: torch.eye(3).to_sparse_csr(),
    "quantized|garbled": lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
    "meta": lambda: torch.ones(3, device="meta"),
    "more numbers than the file has": lambda: torch.ones(1).expand(100_000),
}


@pytest.mark.parametrize("what", STRANGE)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_not_their_numbers(tmp_path: Path, what: str) -> None:
    path = tmp_path / "w.pt"
    torch.save({"cat": STRANGE[what]()}, path)
    for read in (lambda: dict(Weights((path,))), lambda: open_embedding(path)):
        with pytest.raises(InputError, match=what.strip()):
            read()


def test_a_torch_whose_reader_has_a_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pt"
    torch.save({"cat": torch.ones(16)}, path)
    for version in ("2.6.0", "2.9.1+cu128", "2.10.0a0"):
        monkeypatch.setattr(torch, "__version__", version)
        if version.startswith("2.10"):
            assert read_pickled(path).keys() == {"cat"}
        else:
            with pytest.raises(InputError, match="CVE-2026-24747"):
                read_pickled(path)


@pytest.mark.parametrize("new", [True, False])
def test_changed_bytes_end_in_one_line_or_in_tensors(tmp_path: Path, new: bool) -> None:
    path = tmp_path / "w.ckpt"
    whole = {"state_dict": {"a.b": torch.ones(3)}, "n": 3}
    torch.save(whole, path, _use_new_zipfile_serialization=new)
    data = path.read_bytes()
    for place in range(4, len(data), max(1, len(data) // 150)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x5A]) + data[place + 1 :])
        with suppress(InputError):
            dict(Weights((path,)))
