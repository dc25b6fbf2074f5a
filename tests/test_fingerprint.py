"""Whether a file of weights is still the one that it was."""

from pathlib import Path

import pytest

from sdcore.errors import InputError
from sdcore.fingerprint import BLOCKS, BYTES, fingerprint


def test_the_same_bytes_anywhere(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"weights")
    two.write_bytes(b"weights")
    assert fingerprint([one]) == fingerprint([two])
    assert len(fingerprint([one])) == 32
    assert int(fingerprint([one]), 16) > 0


@pytest.mark.parametrize("size", [1, BYTES - 1, BYTES, BYTES + 1, BLOCKS * BYTES])
def test_every_byte_of_a_file_up_to_a_megabyte(tmp_path: Path, size: int) -> None:
    path, whole = tmp_path / "file", bytes(size)
    path.write_bytes(whole)
    before = fingerprint([path])
    for place in {0, size // 2, size - 1}:
        path.write_bytes(whole[:place] + b"\1" + whole[place + 1 :])
        assert fingerprint([path]) != before
    path.write_bytes(whole + b"\0")
    assert fingerprint([path]) != before


def test_of_a_large_file_both_ends_and_what_lies_between(tmp_path: Path) -> None:
    path, size = tmp_path / "file", 4 * BLOCKS * BYTES
    path.write_bytes(bytes(size))
    before = fingerprint([path])
    seen = 0
    with path.open("r+b") as file:
        for place in (0, size - 1, *range(BYTES // 2, size, BYTES)):
            file.seek(place)
            file.write(b"\1")
            file.flush()
            seen += fingerprint([path]) != before
            file.seek(place)
            file.write(b"\0")
    assert 2 + BLOCKS - 2 <= seen <= 2 + 2 * BLOCKS  # of 256 places in between, every fourth


def test_the_order_and_the_number_of_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    prints = [fingerprint(files) for files in ([one], [two], [one, two], [two, one], [])]
    assert len(set(prints)) == 5


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*gone"):
        fingerprint([tmp_path / "gone"])
