"""Full models, DreamBooth and learned words: what is trained, what is not, who reads the result."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import sdcore
from sdcore.errors import InputError
from sdcore.pipeline import StableDiffusion
from sdcore.training.folder import Example
from sdcore.training.full import FullTraining
from sdcore.training.plan import Plan
from sdcore.training.word import WordTraining, with_word
from tests.training.conftest import Trained, picture

Run = Callable[..., Trained]


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, CONTEXT = rand(2, 4, 4, 4), rand(2, 77, 16, seed=1)


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
@torch.no_grad()
def test_a_full_model_is_read_back(
    sd: StableDiffusion, tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UNet and text encoder as they were in training, here and by diffusers; the VAE's own."""
    training = FullTraining(sd, Plan(method="full", text=True, layout=layout, save_dtype="float32"))
    for module in training.trained.values():
        for i, parameter in enumerate(module.parameters()):
            parameter.add_(0.05 * rand(*parameter.shape, seed=i))
    path = training.write(tmp_path / "new", {})
    assert path.is_dir() == (layout == "diffusers")
    wanted, before = training.networks.unet(X, 500.0, CONTEXT), sd.unet(X, 500.0, CONTEXT)
    assert (wanted - before).abs().max() > 0.1
    ids = torch.tensor([sd.tokenizer("a red boat").ids])
    text = training.networks.readers[0].encoder(ids).last
    if layout == "kohya":  # a single file holds no vocabulary
        (tmp_path / "tokenizer").symlink_to(Path(sd.source.model) / "tokenizer")
    back = sdcore.load(path, device="cpu", engine="plain")
    assert torch.equal(back.unet(X, 500.0, CONTEXT), wanted)
    assert torch.equal(back.text_encoder(ids).last, text)
    assert torch.equal(back.vae.decode(X), sd.vae.decode(X))
    if layout == "kohya":
        return  # diffusers makes out a single file by its size; this one is of no published one
    diffusers = pytest.importorskip("diffusers")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(path)
    assert (pipe.unet(X, 500, CONTEXT).sample - wanted).abs().max() < 1e-4
    assert (pipe.text_encoder(ids).last_hidden_state - text).abs().max() < 1e-4


def test_the_model_given_stays_as_it_is(sd: StableDiffusion, run: Run) -> None:
    before = {k: v.clone() for k, v in sd.unet.state_dict().items()}
    trained = run(method="full", save_dtype="float32")
    assert all(torch.equal(v, before[k]) for k, v in sd.unet.state_dict().items())
    assert not any(p.requires_grad for p in sd.unet.parameters())
    assert trained.path.suffix == ".safetensors"


def test_a_full_model_in_place_of_an_earlier_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(method="full", schedule="constant")
    before = load_file(first.path)
    again = run(method="full", schedule="constant", steps=4)
    assert first.path == again.path
    after = load_file(again.path)
    assert any(not torch.equal(before[k], after[k]) for k in after)
    assert not list(first.place.glob("*.old"))

    def full_disk(self: FullTraining, path: Path, notes: object) -> Path:
        raise InputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(FullTraining, "write", full_disk)
    with pytest.raises(InputError, match="No space left"):
        run(method="full", schedule="constant", steps=4)
    kept = load_file(again.path)
    assert all(torch.equal(kept[k], after[k]) for k in after)
    assert not list(first.place.glob("*.old"))


def test_the_class_is_drawn_by_the_model(run: Run, sd: StableDiffusion) -> None:
    """Under its prompt, with settings that draw it again; what is there is not drawn twice."""
    from sdcore.images import open_picture, read_settings

    options = {"method": "dreambooth", "caption": "a red house", "class_prompt": "a house",
               "class_pictures": 2}  # fmt: skip
    trained = run(**options)
    files = sorted((trained.place / "class").iterdir())
    assert [f.name for f in files] == ["0000.png", "0001.png"]
    settings = read_settings(files[0])
    assert (settings.prompt, settings.model) == ("a house", str(sd.name))
    assert open_picture(files[0]).size == (32, 32)
    stamps = [f.stat().st_mtime_ns for f in files]
    assert any("2 pictures of the class, 'a house'" in line for line in trained.told)
    again = run(**{**options, "save_every": 7})
    assert [f.stat().st_mtime_ns for f in files] == stamps
    assert again.path == trained.path


def test_the_class_from_a_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    picture(8).save(tmp_path / "class" / "a.png")
    (tmp_path / "class" / "b.png").write_bytes(b"none")
    trained = run(class_prompt="a house", class_dir=str(tmp_path / "class"))
    assert not (trained.place / "class").exists()
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no pictures"):
        run("b", class_prompt="a house", class_dir=str(tmp_path / "none"))
    assert any("b.png is passed over: is no picture" in line for line in trained.told)
    (tmp_path / "class" / "a.png").unlink()
    with pytest.raises(InputError, match=r"class holds no picture to train on; 1 passed over: b"):
        run("c", class_prompt="a house", class_dir=str(tmp_path / "class"))


# --- a word --------------------------------------------------------------------------------------


def test_no_other_row_moves(sd: StableDiffusion, run: Run) -> None:
    """To the bit, whatever the weight decay; and the word's vectors do."""
    before = {k: v.clone() for k, v in sd.text_encoder.state_dict().items()}
    trained = run(method="embedding", word="<new>", init="red", weight_decay=0.5, vectors=2,
                  save_dtype="float32")  # fmt: skip
    assert all(torch.equal(v, before[k]) for k, v in sd.text_encoder.state_dict().items())
    new = sd.with_embedding(trained.path, "<new>")
    table = new.text_encoder.text_model.embeddings.token_embedding.weight
    old = before["text_model.embeddings.token_embedding.weight"]
    assert isinstance(table, Tensor)
    assert torch.equal(table[: len(old)], old)
    first = old[sd.tokenizer.units("red")[0].ids[0]]
    assert len(table) == len(old) + 2
    assert all(not torch.equal(row, first) for row in table[len(old) :])


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
@torch.no_grad()
def test_a_word_is_read_back(sd: StableDiffusion, tmp_path: Path, layout: str) -> None:
    """Here and by diffusers: the same context as in training."""
    plan = Plan(method="embedding", word="<new>", vectors=2, layout=layout, save_dtype="float32")
    training = WordTraining(sd, plan)
    training.rows[""].rows.copy_(rand(2, 16))
    path = training.write(tmp_path / "new", {})
    reader = training.networks.readers[0]
    text = "a <new> boat"
    wanted = reader.encoder(torch.tensor([reader.tokenizer(text).ids])).last
    back = training.drawing(path).readers[0]
    assert torch.equal(back.encoder(torch.tensor([back.tokenizer(text).ids])).last, wanted)
    diffusers = pytest.importorskip("diffusers")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(sd.source.model)
    pipe.load_textual_inversion(str(path), token="<new>")
    ids = pipe.tokenizer(pipe.maybe_convert_prompt(text, pipe.tokenizer), padding="max_length",
                         max_length=77, return_tensors="pt").input_ids  # fmt: skip
    assert (pipe.text_encoder(ids).last_hidden_state - wanted).abs().max() < 1e-5


def test_a_word_of_two_text_encoders(family_path: Callable[[str], Path], tmp_path: Path) -> None:
    sd = sdcore.load(family_path("SDXL"), device="cpu")
    training = WordTraining(sd, Plan(method="embedding", word="<new>", save_dtype="float32"))
    path = training.write(tmp_path / "new", {})
    assert {k: tuple(v.shape) for k, v in load_file(path).items()} == {
        "clip_l": (1, 32), "clip_g": (1, 48)}  # fmt: skip
    assert len(training.groups[0].parameters) == 2
    training.drawing(path)


def test_captions_get_the_word() -> None:
    path = Path("a.png")
    examples = [Example(path, ("a <New> boat",)), Example(path, ("a house", "<new>"), 3)]
    new, added = with_word(examples, "<new>")
    assert [e.captions for e in new] == [("a <New> boat",), ("<new>, a house", "<new>")]
    assert (added, new[1].repeats) == (1, 3)
    part, _ = with_word([Example(path, ("a steal", "TEAL?"))], "teal")  # the word alone is read
    assert part[0].captions == ("teal, a steal", "TEAL?")


def test_pictures_without_captions_get_templates(run: Run, data: Path) -> None:
    for file in data.glob("*.txt"):
        file.unlink()
    trained = run(method="embedding", word="<new>", steps=1)
    assert trained.told[0].startswith("4 pictures, 4 looks an epoch, 6 captions, 0 passed over")


def test_words_that_cannot_be_learned(sd: StableDiffusion, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no token to begin from"):
        WordTraining(sd, Plan(method="embedding", word="<new>", init=" "))
    plan = Plan(method="embedding", word="<new>", save_dtype="float32")
    with pytest.raises(InputError, match="is an embedding already"):
        WordTraining(WordTraining(sd, plan).networks, plan)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a prompt has room for 75"):
        WordTraining(sd, Plan(method="embedding", word="<new>", vectors=76))
