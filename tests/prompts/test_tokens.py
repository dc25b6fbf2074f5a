"""Token ids against transformers, and the report of what was cut."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sdcore.errors import InputError
from sdcore.loading import load
from sdcore.prompts import cut_warning, load_tokenizer
from sdcore.prompts.grammar import weigh

TEXTS = [
    "",
    "a red house",
    "A  RED   House,\tby the Boat!!",
    "it's 3 o'clock ❤ naïve Ünïcödé 東京",
    "red " * 75,
    "red " * 76,
    "blue boat, " * 90,
    "<|endoftext|> red",
]


@pytest.fixture(params=["tokenizer.json", "vocab.json and merges.txt"])
def folder(request: pytest.FixtureRequest, broken_path: Path) -> Path:
    folder = broken_path / "tokenizer"
    if request.param != "tokenizer.json":
        (folder / "tokenizer.json").unlink()
    return folder


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers(folder: Path, tiny_path: Path, text: str) -> None:
    from transformers import CLIPTokenizer

    reference = CLIPTokenizer.from_pretrained(tiny_path / "tokenizer")
    wanted = reference(text, padding="max_length", truncation=True, max_length=77).input_ids
    assert list(load_tokenizer(folder)(text).ids) == wanted


def test_nothing_cut(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokens = tokenizer("red " * 75)
    assert (tokens.count, tokens.cut) == (75, "")
    assert cut_warning("red", tokens, tokenizer.length) is None


def test_what_was_cut_is_quoted_as_typed(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    prompt = "red " * 75 + "Blue  Boat at night"
    tokens = tokenizer(prompt)
    assert tokens.cut == "Blue  Boat at night"
    line = cut_warning(prompt, tokens, tokenizer.length)
    assert line is not None
    assert "'Blue  Boat at night'" in line
    assert "\n" not in line


def test_the_special_tokens_map_decides_the_padding(broken_path: Path) -> None:
    folder = broken_path / "tokenizer"
    plain = load_tokenizer(folder)
    special = json.loads((folder / "special_tokens_map.json").read_text())
    (folder / "special_tokens_map.json").write_text(json.dumps(special | {"pad_token": "!"}))
    assert load_tokenizer(folder)("red").ids[3:] == (0,) * 74
    # A "!" in the text stays itself, as in the original SD 2 code.
    assert load_tokenizer(folder)("red!").ids[:4] == plain("red!").ids[:4]


@pytest.mark.parametrize("length", [None, 10**30, "77"])
def test_an_absurd_length_means_77(broken_path: Path, length: object) -> None:
    path = broken_path / "tokenizer" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": length}))
    assert load_tokenizer(path.parent).length == 77


def test_missing_and_garbled_files(broken_path: Path) -> None:
    folder = broken_path / "tokenizer"
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "merges.txt").unlink()
    with pytest.raises(InputError, match=r"merges\.txt is missing"):
        load_tokenizer(folder)


def test_a_special_token_outside_the_vocabulary(broken_path: Path) -> None:
    folder = broken_path / "tokenizer"
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<nowhere>"}))
    with pytest.raises(InputError, match="pad_token '<nowhere>'"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t["model"].update(continuing_subword_prefix="None"), None),
        (lambda t: t["model"]["vocab"].update({"!": 2**32 - 1}), None),
        (lambda t: t["model"].pop("vocab"), "is no tokenizer"),
        (
            lambda t: t.update(
                normalizer={"type": "Replace", "pattern": {"String": ""}, "content": "yy"}
            ),
            "splits words by ''",
        ),
        (
            lambda t: t["pre_tokenizer"]["pretokenizers"][0].update(
                pattern={"Regex": "(?:(?:a+)+)+$"}
            ),
            "which is not CLIP's rule",
        ),
    ],
)
def test_rules_of_strangers(
    broken_path: Path, change: Callable[[dict], object], why: str | None
) -> None:
    """They end in one line: not in a panic, which is no Exception, and not in hours."""
    path = broken_path / "tokenizer" / "tokenizer.json"
    rules = json.loads(path.read_text())
    change(rules)
    path.write_text(json.dumps(rules))
    if why is not None:
        with pytest.raises(InputError, match=why):
            load_tokenizer(broken_path / "tokenizer")
        return
    with suppress(InputError):
        load_tokenizer(broken_path / "tokenizer")("a red house")


def test_ids_beyond_the_encoder(broken_path: Path) -> None:
    """Their number says nothing where there are gaps."""
    path = broken_path / "tokenizer" / "tokenizer.json"
    rules = json.loads(path.read_text())
    vocab = rules["model"]["vocab"]
    vocab["!"] = len(vocab) + 5
    path.write_text(json.dumps(rules))
    with pytest.raises(InputError, match="the tokenizer has ids up to"):
        load(broken_path)


def test_a_prompt_of_ten_megabytes(broken_path: Path) -> None:
    with pytest.raises(InputError, match="10000000 letters: at most 100000"):
        load_tokenizer(broken_path / "tokenizer")("a" * 10_000_000)
    with pytest.raises(InputError, match="10000000 letters: at most 100000"):
        weigh("(" * 10_000_000)
