"""CLIP's vocabulary, which no single file holds: beside it, in the cache, or one line."""

import json
from pathlib import Path

import pytest

from sdcore.checkpoints import open_model
from sdcore.checkpoints.vocabulary import added_words
from sdcore.cli import main
from sdcore.errors import InputError
from tests.checkpoints.twins import Twins, picture
from tests.conftest import write_tokenizer


def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo: str) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub" / f"models--{repo.replace('/', '--')}" / "snapshots" / ("0" * 40)


@pytest.mark.parametrize("json_only", [False, True])
@pytest.mark.parametrize(
    ("repo", "place"), [("openai/clip-vit-large-patch14", "."), ("some/sd", "tokenizer")]
)
def test_the_vocabulary_is_found_in_the_cache(
    sd2: Twins,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    repo: str,
    place: str,
    json_only: bool,
) -> None:
    alone = tmp_path / "alone.safetensors"
    alone.symlink_to(sd2.file)
    folder = cached(tmp_path, monkeypatch, repo) / place
    write_tokenizer(folder)
    for name in ("vocab.json", "merges.txt") if json_only else ("tokenizer.json",):
        (folder / name).unlink()
    assert picture(alone) == picture(sd2.folder)


def test_without_a_vocabulary_one_line_says_how_to_get_it(
    sd1: Twins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "alone.safetensors"
    alone.symlink_to(sd1.file)
    # One of another size is not CLIP's; one that cannot be read is none.
    other = cached(tmp_path, monkeypatch, "some/other") / "tokenizer"
    write_tokenizer(other)
    whole = json.loads((other / "tokenizer.json").read_text())
    whole["model"]["vocab"] |= {"more": 9999}
    (other / "tokenizer.json").write_text(json.dumps(whole))
    broken = cached(tmp_path, monkeypatch, "some/broken") / "tokenizer"
    broken.mkdir(parents=True)
    (broken / "tokenizer.json").write_text("{")
    size = open_model(alone).components["text_encoder"].config["vocab_size"]
    for words, advice in ((size, "sdcore download --vocabulary"), (49408, "are not CLIP's")):
        monkeypatch.setattr("sdcore.checkpoints.checkpoint.CLIP_WORDS", words)
        with pytest.raises(SystemExit) as caught:
            main(["sample", "red", "--seed", "0", "--model", str(alone), "--device", "cpu"])
        err = capfd.readouterr().err
        assert caught.value.code == 2
        assert err.count("\n") == 1
        assert advice in err
        assert "tokenizer/ folder" in err


def test_converting_to_a_file_tells_where_its_words_are(
    sd1: Twins, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Which are not CLIP's here; not where they lie beside the file already."""
    for name, lines in (("one", 1), ("beside", 0)):
        target = tmp_path / name / "model.safetensors"
        target.parent.mkdir()
        if not lines:
            (target.parent / "tokenizer").mkdir()
        with pytest.raises(SystemExit) as caught:
            main(["convert", str(sd1.folder), str(target)])
        err = capfd.readouterr().err
        assert caught.value.code == 0
        assert err.count(f"to {target.parent / 'tokenizer'}") == lines


@pytest.mark.parametrize(
    "value", [{"added_tokens": {"a": 1}}, {"added_tokens": ["x"]}, {"model": 5}, {"model": {}}]
)
def test_added_words_that_make_no_sense(broken_path: Path, value: dict) -> None:
    path = broken_path / "tokenizer" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | value))
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        added_words(broken_path / "tokenizer")
