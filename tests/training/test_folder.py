"""Folders as people have them: which pictures are found, what is said of them, what is not used."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from sdcore.errors import InputError
from sdcore.pipeline import StableDiffusion
from sdcore.training.folder import read_folder
from sdcore.training.latents import encoded
from sdcore.training.plan import Plan, with_defaults
from tests.training.conftest import picture


def save(folder: Path, *names: str) -> None:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(folder / name)


def said(folder: Path, caption: str | None = None) -> dict[str, tuple[str, ...]]:
    return {str(e.path.relative_to(folder)): e.captions for e in read_folder(folder, caption)[0]}


def passed_over(folder: Path) -> dict[str, str]:
    return {s.path.name: s.reason for s in read_folder(folder)[1]}


def test_files_beside(tmp_path: Path) -> None:
    save(tmp_path, "a.png", "b.jpg", "sub/c.webp", ".hidden/d.png")
    (tmp_path / "a.txt").write_text("\ufeffa red\nhouse \n", encoding="utf-8")
    (tmp_path / "b.caption").write_text("a boat")
    assert said(tmp_path) == {"a.png": ("a red house",), "b.jpg": ("a boat",)}
    assert "has no caption: give --caption" in passed_over(tmp_path)["c.webp"]
    assert said(tmp_path, "a thing")["sub/c.webp"] == ("a thing",)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_metadata(tmp_path: Path, kind: str) -> None:
    save(tmp_path, "train/a.png", "train/b.png", "train/c.png")
    rows = [{"file_name": "a.png", "text": "a red house"}, {"file_name": "b.png", "text": "boat"}]
    rows += [{"file_name": "lost.png", "text": "x"}, {"file_name": "../../x.png", "text": "x"}]
    text = "\n".join(map(json.dumps, rows))
    if kind == "csv":
        text = "file_name,text\n" + "\n".join(f'{r["file_name"]},"{r["text"]}"' for r in rows)
    (tmp_path / f"train/metadata.{kind}").write_text(text + "\n")
    assert said(tmp_path) == {"train/a.png": ("a red house",), "train/b.png": ("boat",)}
    why = passed_over(tmp_path)
    assert why["c.png"].startswith("has no row in the metadata")
    assert why["lost.png"] == "is in the metadata, and there is no such file"
    assert why["x.png"] == "lies outside of the folder"


def test_what_a_training_drew_is_no_data(tmp_path: Path) -> None:
    save(tmp_path, "a.png", "trained/dog/samples/1.png", "trained/dog/class/1.png", "trained/b.png")
    (tmp_path / "trained/dog/plan.json").write_text("{}")
    assert set(said(tmp_path, "a dog")) == {"a.png", "trained/b.png"}


def test_the_folder_of_a_training_is_no_data(tmp_path: Path) -> None:
    save(tmp_path, "samples/1.png")
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(InputError, match="is the folder of a training, it holds plan"):
        read_folder(tmp_path, "a dog")


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_tables_of_other_countries(tmp_path: Path, between: str) -> None:
    save(tmp_path, "a.png", "b.png")
    rows = (("file_name", " text"), ("a.png", ' "red, small; blue"'), ("b.png", " boat"))
    text = "\r\n".join(between.join(row) for row in rows)
    (tmp_path / "metadata.csv").write_text("\ufeff" + text, encoding="utf-8", newline="")
    assert said(tmp_path) == {"a.png": ("red, small; blue",), "b.png": ("boat",)}


def test_every_spelling_of_a_name_and_every_row_counts(tmp_path: Path) -> None:
    save(tmp_path, "a.png", "b.png", "c.png")
    rows = [("./a.png", "one"), ("sub/../a.png", "two"), (str(tmp_path / "b.png"), "three")]
    rows += [("c.png", "of\u2028two\x85lines"), ("x" * 300, "four"), ("d\0.png", "five")]
    lines = [json.dumps({"file_name": n, "text": t}, ensure_ascii=False) for n, t in rows]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert said(tmp_path) == {
        "a.png": ("one", "two"), "b.png": ("three",), "c.png": ("of two lines",),
    }  # fmt: skip
    assert set(passed_over(tmp_path)) == {"x" * 300, "d\0.png"}


def test_several_captions(tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": ["one", "two"]}')
    assert said(tmp_path) == {"a.png": ("one", "two")}


def test_kohyas_folders(tmp_path: Path) -> None:
    save(tmp_path, "10_sks dog/a.png", "10_sks dog/b.png", "0_never/c.png", "1_cat/d.png")
    (tmp_path / "10_sks dog" / "b.txt").write_text("a dog in the snow")
    examples, skipped = read_folder(tmp_path)
    found = [(e.path.name, e.captions[0], e.repeats) for e in examples]
    assert found == [("a.png", "sks dog", 10), ("b.png", "a dog in the snow", 10),
                     ("d.png", "cat", 1)]  # fmt: skip
    assert [(s.path.name, s.reason) for s in skipped] == [
        ("c.png", "is in a folder of 0 repeats, 0_never")
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.json1", "", "is it called metadata.jsonl"),
        ("metadata.json", "", "is it called metadata.jsonl"),
        ("metadata.parquet", "", "write it as metadata.jsonl or metadata.csv"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "x"', "metadata.jsonl, line 1"),
        (
            "metadata.jsonl",
            '{"file_name": "a.png"}',
            "line 1: it has no text; its columns are none",
        ),
        ("metadata.jsonl", '\n{"name": "a.png", "text": "x"}', "line 2: it has no file_name"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": 3}', "its text is no text"),
        ("metadata.csv", "file_name,words\na.png,x\n", "it has no text; its columns are words"),
        ("metadata.csv", "a.png,x\nb.png,y\n", "it has no file_name; its columns are a.png, x"),
        ("metadata.csv", "file_name,text\na.png,red, big\n", "line 2: it has more values than"),
    ],
)
def test_metadata_that_cannot_be_read(tmp_path: Path, name: str, text: str, message: str) -> None:
    save(tmp_path, "a.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        read_folder(tmp_path)
    assert message in str(error.value)


def test_captions_that_are_no_text(tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00red")
    assert passed_over(tmp_path) == {"a.png": "a.txt is no UTF-8 text"}
    with pytest.raises(InputError, match="there is no such folder"):
        read_folder(tmp_path / "none")


def plan(**options: object) -> Plan:
    return with_defaults(Plan(**options), "epsilon", 32)  # type: ignore[arg-type]


def test_odd_pictures_are_used_or_listed(sd: StableDiffusion, tmp_path: Path) -> None:
    """Alpha over white, EXIF, 16 bits, a palette, grey with alpha; and what is no picture."""
    half = picture(1)
    clear = half.copy()
    clear.putalpha(0)
    clear.save(tmp_path / "alpha.png")
    Image.new("RGB", (32, 32), "white").save(tmp_path / "white.png")
    wide = picture(2, (64, 32))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    wide.save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(np.full((32, 32), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    half.convert("P").save(tmp_path / "palette.gif")
    half.convert("LA").save(tmp_path / "grey.png")
    half.convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(np.zeros((32, 32), np.float32)).save(tmp_path / "float.tiff")
    (tmp_path / "broken.png").write_bytes((tmp_path / "white.png").read_bytes()[:60])
    (tmp_path / "film.mp4").write_bytes(b"no picture")
    examples, skipped = read_folder(tmp_path, "a thing")
    assert skipped == []
    items, skipped = encoded(examples, sd, plan())
    by_name = {i.example.path.name: i for i in items}
    assert sorted(by_name) == ["alpha.png", "cmyk.jpg", "deep.png", "grey.png", "palette.gif",
                               "turned.jpg", "white.png"]  # fmt: skip
    assert (by_name["alpha.png"].mean == by_name["white.png"].mean).all()
    assert by_name["turned.jpg"].original == (32, 64)
    assert by_name["turned.jpg"].size[0] < by_name["turned.jpg"].size[1]
    reasons = {s.path.name: s.reason for s in skipped}
    assert sorted(reasons) == ["broken.png", "film.mp4", "float.tiff"]
    assert "floating-point" in reasons["float.tiff"]
    assert reasons["film.mp4"].startswith("is no picture")


def test_latents_are_kept_in_a_file(sd: StableDiffusion, data: Path, tmp_path: Path) -> None:
    (data / "broken.png").write_bytes(b"none")
    examples, _ = read_folder(data, "a thing")
    cache, looked = tmp_path / "latents.safetensors", list[int]()

    def bar(things: object) -> object:
        looked.append(1)
        return things

    first = encoded(examples, sd, plan(flip=True), cache, bar)  # type: ignore[arg-type]
    again = encoded(examples, sd, plan(flip=True), cache, bar)  # type: ignore[arg-type]
    assert len(looked) == 1
    assert again[1] == first[1] != []
    for a, b in zip(first[0], again[0], strict=True):
        assert (a.example, a.size, a.original, a.cuts) == (b.example, b.size, b.original, b.cuts)
        assert (a.mean == b.mean).all()
        assert (a.std == b.std).all()
        assert len(a.mean) == 2
    encoded(examples, sd, plan(), cache, bar)  # type: ignore[arg-type]
    picture(9).save(data / "0.png")
    encoded(examples, sd, plan(), cache, bar)  # type: ignore[arg-type]
    assert len(looked) == 3  # other sizes, another file: encoded anew
    for count in (-10, 600, 0):
        cache.write_bytes(cache.read_bytes()[:count])
        encoded(examples, sd, plan(), cache, bar)  # type: ignore[arg-type]
    assert len(looked) == 6  # not whole
