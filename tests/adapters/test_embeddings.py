"""Textual inversion in every form, against transformers with the vectors in its own table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from scripts import families
from sdcore.adapters import parse_embedding
from sdcore.errors import InputError
from sdcore.loading import load
from sdcore.pipeline import StableDiffusion
from tests.adapters.conftest import latents, rand

VECTORS = rand(3, 16, size=1.0)


def pickled(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def stored(path: Path, value: dict[str, Tensor]) -> Path:
    save_file(value, path)
    return path


def a1111(path: Path, vectors: Tensor, within: Callable[..., Any] = dict) -> Path:
    value: dict[str, Any] = {
        "string_to_token": {"*": 265},
        "string_to_param": within({"*": vectors}),
    }
    value["name"] = "cat"
    return pickled(path, value | {"step": 900, "sd_checkpoint": None})


FORMS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "diffusers safetensors": (lambda p: stored(p / "x.safetensors", {"<cat>": VECTORS}), "<cat>"),
    "diffusers bin": (lambda p: pickled(p / "learned_embeds.bin", {"<cat>": VECTORS}), "<cat>"),
    "A1111 pt": (lambda p: a1111(p / "x.pt", VECTORS), "cat"),
    "A1111 pt, a parameter": (
        lambda p: a1111(p / "x.pt", torch.nn.Parameter(VECTORS.clone())),
        "cat",
    ),
    "the first pt": (
        lambda p: a1111(p / "x.pt", VECTORS, torch.nn.ParameterDict),
        "cat",
    ),
    "A1111 safetensors": (lambda p: stored(p / "cat.safetensors", {"emb_params": VECTORS}), "cat"),
    "half precision": (lambda p: stored(p / "h.safetensors", {"<cat>": VECTORS.half()}), "<cat>"),
}


def by_transformers(path: Path, sd: StableDiffusion, words: list[Any], vectors: Tensor) -> Tensor:
    """The last hidden state of these words; a number n among them is the n-th vector."""
    from transformers import CLIPTextModel

    model = CLIPTextModel.from_pretrained(path / "text_encoder").eval()
    table = model.get_input_embeddings()
    size = len(table.weight)
    table.weight = torch.nn.Parameter(torch.cat([table.weight, vectors]))
    ids = [sd.tokenizer.start]
    for word in words:
        encode = sd.tokenizer.backend.encode
        ids += (
            [size + word] if isinstance(word, int) else encode(word, add_special_tokens=False).ids
        )
    ids += [sd.tokenizer.end] * (77 - len(ids))
    with torch.no_grad():
        return model(torch.tensor([ids])).last_hidden_state


@pytest.mark.parametrize("form", FORMS)
def test_forms(sd: StableDiffusion, tiny_path: Path, tmp_path: Path, form: str) -> None:
    write, token = FORMS[form]
    new = sd.with_embedding(write(tmp_path))
    assert new.embeddings[0].token == token
    run = new.prepare(f"a {token.upper()}, red", cfg=1, steps=1)
    vectors = VECTORS.half().float() if form == "half precision" else VECTORS
    wanted = by_transformers(tiny_path, sd, ["a", 0, 1, 2, ", red"], vectors)
    assert (run.conditions["cond"]["context"] - wanted).abs().max() < 1e-5


def test_one_vector_and_a_word_of_ones_own(
    sd: StableDiffusion, tiny_path: Path, tmp_path: Path
) -> None:
    new = sd.with_embedding(stored(tmp_path / "x.safetensors", {"<cat>": VECTORS[1]}), "my cat")
    context = new.prepare("my cat (my catalogue)", cfg=1, steps=1).conditions["cond"]["context"]
    wanted = by_transformers(tiny_path, sd, [0, "(my catalogue)"], VECTORS[1:2])
    assert (context - wanted).abs().max() < 1e-5


def test_two_words_and_what_was_there_before(sd: StableDiffusion, tmp_path: Path) -> None:
    one = sd.with_embedding(stored(tmp_path / "one.safetensors", {"emb_params": VECTORS}))
    two = one.with_embedding(stored(tmp_path / "two.safetensors", {"emb_params": VECTORS[:1]}))
    assert torch.equal(latents(two, "red boat"), latents(sd, "red boat"))
    assert torch.equal(latents(two, "a one"), latents(one, "a one"))
    assert not torch.equal(latents(two, "a one two"), latents(one, "a one two"))
    assert not torch.equal(latents(one, "a one"), latents(sd, "a one"))
    assert two.unet is sd.unet
    rows = two.text_encoder.text_model.embeddings.token_embedding.weight
    assert len(rows) == sd.text_encoder.config.vocab_size + 4 == two.text_encoder.config.vocab_size


def test_the_end_of_the_text_is_still_found(sd: StableDiffusion, tmp_path: Path) -> None:
    new = sd.with_embedding(stored(tmp_path / "one.safetensors", {"emb_params": VECTORS}))
    ids = new.tokenizer("red one boat").ids
    encoding = new.text_encoder(torch.tensor([ids]))
    assert torch.equal(encoding.pooled, encoding.last[:, ids.index(new.tokenizer.end)])


def test_vectors_stay_together_at_the_end_of_a_chunk(sd: StableDiffusion, tmp_path: Path) -> None:
    new = sd.with_embedding(stored(tmp_path / "one.safetensors", {"emb_params": VECTORS}))
    prompt = "red " * 73 + "(one:1.3) boat"
    told = new.prepare(prompt, cfg=1, steps=1, grammar="a1111").conditions["cond"]["context"]
    apart = new.prepare(
        "red " * 73 + "BREAK (one:1.3) boat", cfg=1, steps=1, grammar="a1111", clip_skip=1
    )
    assert told.shape[1] == 154
    assert torch.equal(told, apart.conditions["cond"]["context"])
    (line,) = new.prepare(prompt.replace("(one:1.3)", "one"), cfg=1, steps=1).warnings
    assert "'one boat'" in line


@pytest.mark.parametrize("memory", ["balanced", "low"])
def test_with_a_lora_in_every_mode_of_memory(
    sd: StableDiffusion, tiny_path: Path, tmp_path: Path, memory: str
) -> None:
    word = stored(tmp_path / "one.safetensors", {"emb_params": VECTORS})
    key = "lora_te_text_model_encoder_layers_1_self_attn_q_proj"
    lora = stored(
        tmp_path / "lora.safetensors",
        {f"{key}.lora_down.weight": rand(2, 16), f"{key}.lora_up.weight": rand(16, 2, seed=1)},
    )
    lean = load(tiny_path, "cpu", "float32", memory, "plain")
    wanted = latents(sd.with_embedding(word).with_lora(lora), "a one")
    assert torch.equal(latents(sd.with_lora(lora).with_embedding(word), "a one"), wanted)
    assert torch.equal(latents(lean.with_lora(lora).with_embedding(word), "a one"), wanted)
    assert torch.equal(latents(lean.with_embedding(word).with_lora(lora), "a one"), wanted)
    plain = latents(sd.with_embedding(word), "a one")
    back = lean.with_lora(lora).with_embedding(word).without_loras()
    assert torch.equal(latents(back, "a one"), plain)


def test_sdxls_pair(tmp_path: Path) -> None:
    folder = families.write(tmp_path / "model", families.FAMILIES["SDXL"])
    sd = load(folder, device="cpu")
    assert sd.text_encoder_2 is not None
    widths = [e.config.hidden_size for e in (sd.text_encoder, sd.text_encoder_2)]
    pair = {"clip_l": rand(2, widths[0]), "clip_g": rand(2, widths[1], seed=1)}
    new = sd.with_embedding(stored(tmp_path / "cat.safetensors", pair))
    assert new.text_encoder_2 is not None
    for name, encoder in (("clip_l", new.text_encoder), ("clip_g", new.text_encoder_2)):
        rows = encoder.text_model.embeddings.token_embedding.weight[-2:]
        assert torch.equal(rows, pair[name])
    assert not torch.equal(latents(new, "a cat"), latents(sd, "a cat"))
    with pytest.raises(InputError, match="vectors of width"):
        sd.with_embedding(stored(tmp_path / "one.safetensors", {"clip_l": pair["clip_l"]}))


def test_the_settings_name_it(sd: StableDiffusion, tmp_path: Path) -> None:
    path = stored(tmp_path / "x.safetensors", {"<cat>": VECTORS})
    new = sd.with_embedding(path)
    (spec,) = new.prepare("red", steps=1).settings[0].embeddings
    assert parse_embedding(spec) == (str(path), "<cat>")
    assert parse_embedding(str(path)) == (str(path), None)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": rand(1, 16), "b": rand(1, 16)}, "is no textual inversion: it holds 2 tensors: a, b"),
        ({"a": rand(1, 20)}, "vectors of width 20; the model's words have 16"),
        ({"a": rand(76, 16)}, "76 vectors; a prompt has room for 75"),
        ({"a": rand(1, 16) / 0}, "its vectors make no sense"),
        ({"a": torch.tensor(1.0)}, "its vectors make no sense"),
        ({"a": torch.zeros(0, 16)}, "its vectors make no sense"),
        ({"a": torch.zeros(0)}, "its vectors make no sense"),
        ({"clip_l": rand(2, 16), "clip_g": rand(3, 16)}, "its vectors make no sense"),
    ],
)
def test_what_is_refused(
    sd: StableDiffusion, tmp_path: Path, tensors: dict[str, Tensor], message: str
) -> None:
    path = stored(tmp_path / "x.safetensors", tensors)
    with pytest.raises(InputError, match=message) as caught:
        sd.with_embedding(path)
    assert "\n" not in str(caught.value)


def test_more_that_is_refused(sd: StableDiffusion, tmp_path: Path) -> None:
    path = stored(tmp_path / "x.safetensors", {"<cat>": VECTORS})
    with pytest.raises(InputError, match="'<cat>' is an embedding already"):
        sd.with_embedding(path).with_embedding(path)
    with pytest.raises(InputError, match="no embedding at nowhere"):
        sd.with_embedding("nowhere.pt")
    with pytest.raises(InputError, match=r"names that are known are picturebook-teal$"):
        sd.with_embedding("picturebook-tael")
    with pytest.raises(InputError, match="picturebook-v is a LoRA, and no learned word"):
        sd.with_embedding("picturebook-v")
    with pytest.raises(InputError, match="pickled code is never run"):
        sd.with_embedding(pickled(tmp_path / "x.pt", {"a": Path("x")}))
