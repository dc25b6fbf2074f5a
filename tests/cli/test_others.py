"""Pictures of other tools and earlier versions, adapters named in prompts, wildcards."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file

from sdcore.checkpoints.library import by_name, model_of, short_hash
from sdcore.images import read_settings, save_png
from tests.cli.shell import Shell, pixels

TAIL = "CFG scale: 3, Seed: 5, Size: 40x32, RNG: CPU"


def theirs(path: str, **texts: str) -> str:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (40, 32)).save(path, pnginfo=info)
    return path


def lora(path: str) -> Path:
    down, up = torch.arange(16.0)[None], torch.arange(16.0)[:, None]
    key = "lora_te_text_model_encoder_layers_1_self_attn_q_proj"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file({f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}, path)
    return Path(path)


@pytest.mark.parametrize(
    ("sampler", "hand"),
    [
        ("Sampler: DPM++ 2M, Schedule type: Karras", ["--scheduler", "DPM++ 2M Karras"]),
        ("Sampler: DPM++ 2M Karras", ["--scheduler", "DPM++ 2M Karras"]),
        ("Sampler: Euler a", ["--scheduler", "Euler a"]),
        ("Sampler: Euler, Sigma churn: 2", ["--scheduler", "euler_churn:s_churn=2", "--spacing",
                                            "a1111:normal"]),
    ],
)  # fmt: skip
def test_a_picture_of_a1111_is_drawn_again(shell: Shell, sampler: str, hand: list[str]) -> None:
    words = "a (red:1.2) house\nat night\nNegative prompt: blurry, (bad:1.2)\n"
    theirs("a.png", parameters=f"{words}Steps: 3, {sampler}, {TAIL}, Clip skip: 2")
    Path("a.txt").write_text(f"{words}Steps: 3, {sampler}, {TAIL}, Clip skip: 2\n")
    here = ["--model", shell.model, "--device", "cpu"]
    wanted = shell(
        "sample", "a (red:1.2) house\nat night", "--negative", "blurry, (bad:1.2)", "--steps", 3,
        "--cfg", 3, "--seed", 5, "--width", 40, "--height", 32, "--grammar", "a1111",
        "--clip-skip", 2, *hand, *here, "--out", "wanted.png",
    )  # fmt: skip
    assert wanted.status == 0, wanted.err
    for name in ("a.png", "a.txt"):
        again = shell("rerun", name, *here, "--out", "again.png")
        assert again.status == 0, again.err
        assert "not followed" not in again.err
        assert read_settings(again.paths[0]) == read_settings(wanted.paths[0])
        assert pixels(again.paths[0]) == pixels(wanted.paths[0])
    other = shell("rerun", "a.png", *here, "--scheduler", "ddim", "--cfg", 2, "--out", "o.png")
    settings = read_settings(other.paths[0])
    assert (settings.scheduler, settings.spacing, settings.cfg) == ("ddim", "leading", 2)


def test_what_cannot_be_followed_is_told(shell: Shell) -> None:
    lines = {
        "RNG": "RNG: GPU",
        "Variation seed": "Variation seed: 7",
        "Denoising strength": "Denoising strength: 0.4",
        "Mask blur": "Mask blur: 4",
        "Inpaint area": "Inpaint area: Only masked",
        "Model": "Model: dream",
    }
    tail = TAIL.replace("RNG: CPU", ", ".join(lines.values()))
    theirs("a.png", parameters=f"red <lora:style:1>\nSteps: 2, Sampler: Euler, {tail}")
    again = shell("rerun", "a.png", "--models", shell.model.parent, "--device", "cpu")
    told = again.err.splitlines()
    for name in (*lines, "<lora:style>"):
        assert sum(name in line for line in told) == 1, name
    assert again.status == 0


def test_what_is_named_is_followed(shell: Shell) -> None:
    """A second pass, the noise's options; and where it began at a picture, that picture is named.

    Of 5 steps int(5 * 0.4) + 1 are run there.
    """
    words = "red\nSteps: 5, Sampler: Euler a, "
    here = ("--model", shell.model, "--device", "cpu", "--out", "again.png")
    options = "Variation seed: 7, Variation seed strength: 0.2, ENSD: 31337"
    second = "Denoising strength: 0.5, Hires upscale: 2, Hires steps: 3"
    theirs("a.png", parameters=f"{words}{options}, {second}, {TAIL}")
    again = shell("rerun", "a.png", *here)
    assert "not followed" not in again.err
    settings = read_settings(again.paths[0])
    assert (settings.noise, settings.variation) == ("independent:delta=31337", "7:0.2:columns")
    assert (settings.hires, settings.hires_steps, settings.strength) == (2, 6, None)
    with Image.open(again.paths[0]) as picture:
        assert picture.width == 2 * settings.width

    Image.new("RGB", (32, 32), "red").save("begun.png")
    Image.new("L", (32, 32), 255).save("mask.png")
    theirs("b.png", parameters=f"{words}Denoising strength: 0.4, Mask blur: 4, {TAIL}")
    again = shell("rerun", "b.png", *here, "--image", "begun.png", "--mask", "mask.png")
    assert "not followed" not in again.err
    settings = read_settings(again.paths[0])
    assert (settings.start_step, settings.posterior, settings.mask_blur) == (2, "mode", 4)
    more = shell("rerun", "b.png", *here, "--image", "begun.png", "--strength", 0.6)
    assert "Mask blur: 4 is not followed" in more.err
    assert (read_settings(more.paths[0]).strength, read_settings(more.paths[0]).start_step) == (
        *(0.6, None),
    )


def test_the_model_is_found_by_name_or_hash(shell: Shell) -> None:
    for name in ("one/dream.safetensors", "two/other.ckpt"):
        Path("models", name).parent.mkdir(parents=True)
        Path("models", name).write_bytes(name.encode())
    first, second = Path("models/one/dream.safetensors"), Path("models/two/other.ckpt")
    sha = hashlib.sha256(second.read_bytes()).hexdigest()[:10]
    assert short_hash(second) == sha
    assert model_of("dream", None, ["models"]) == (first, False)
    assert model_of("dream", sha, ["models"]) == (second, True)
    assert model_of("nothing", sha.upper(), ["models"]) == (second, True)
    assert model_of("dream", "0" * 10, ["models"]) == (first, False)
    assert model_of("nothing", None, ["models"]) is None
    assert by_name("one/dream.safetensors", ["models"]) == [first]
    assert by_name("../models/one/dream", ["models"]) == []
    theirs("a.png", parameters=f"red\nSteps: 2, Sampler: Euler, {TAIL}, Model: dream")
    broken = shell("rerun", "a.png", "--models", "models")
    assert (broken.status, "dream.safetensors" in broken.err) == (2, True)


@pytest.mark.parametrize("text", ["red house", "Steps: many, Sampler: Euler", ""])
def test_texts_without_settings_are_one_line(shell: Shell, text: str) -> None:
    for name in (theirs("a.png", parameters=text), "a.txt"):
        Path("a.txt").write_text(text)
        result = shell("rerun", name)
        assert (result.status, result.err.count("\n"), result.paths) == (2, 1, [])


def test_a_stranger_names_no_code_and_no_file(shell: Shell) -> None:
    Path("mine.py").write_text("raise SystemExit('run')")
    theirs("a.png", parameters=f"red\nSteps: 2, Sampler: mine.py, {TAIL}")
    refused = shell("rerun", "a.png", "--model", shell.model)
    assert (refused.status, "file of code" in refused.err) == (2, True)
    lora("secret/a.safetensors")
    old = shell.sample("red", "--seed", 0, "--grammar", "a1111", "--out", "old.png").paths[0]
    tagged = replace(read_settings(old), prompt="red <lora:secret/a:1>")
    save_png(Image.open(old), Path("tagged.png"), tagged)
    refused = shell("rerun", "tagged.png")
    assert (refused.status, "--lora-dir" in refused.err) == (2, True)


def test_adapters_named_in_prompts(shell: Shell) -> None:
    path = lora("loras/deep/style.safetensors")
    plain = shell.sample("red boat", "--seed", 1, "--grammar", "a1111").paths[0]
    asked = ["--seed", 1, "--grammar", "a1111", "--out"]
    wanted = shell.sample("red boat", "--lora", f"{path}:0.5", *asked, "w.png").paths[0]
    folder = ["--lora-dir", "loras"]
    tagged = "red <lora:style:0.5> boat"
    drawn = shell.sample(tagged, "red boat", *folder, *asked, "there")
    assert [pixels(each) for each in drawn.paths] == [pixels(wanted), pixels(plain)]
    assert read_settings(drawn.paths[0]) == read_settings(wanted)
    again = shell("rerun", drawn.paths[0], "--out", "again.png")
    assert pixels(again.paths[0]) == pixels(wanted)
    by_path = shell.sample("red <lora:loras/deep/style:0.5> boat", *asked, "p.png")
    assert pixels(by_path.paths[0]) == pixels(wanted)
    theirs("a.png", parameters=f"{tagged}\nSteps: 2, Sampler: Euler, {TAIL}")
    found = shell("rerun", "a.png", "--model", shell.model, *folder)
    assert read_settings(found.paths[0]).loras == (f"{path}:0.5",)


def test_wildcards(shell: Shell) -> None:
    Path("words").mkdir()
    Path("words/animal.txt").write_text("cat\ndog\n")
    folder = ["--wildcard-dir", "words", "--seed", "0-4"]
    every = shell.sample("a {red|blue} __animal__", "--wildcards", "all", *folder)
    told = [(s.prompt, s.seed, s.template) for s in map(read_settings, every.paths)]
    prompts = [f"a {c} {a}" for c in ("red", "blue") for a in ("cat", "dog")]
    assert told == [(p, s, "a {red|blue} __animal__") for p in prompts for s in range(5)]
    one = shell.sample("a {red|blue} __animal__", "--wildcards", "one", *folder)
    drawn = [read_settings(path) for path in one.paths]
    assert [s.seed for s in drawn] == list(range(5))
    assert 1 < len({s.prompt for s in drawn}) <= 4
    again = shell("rerun", one.paths[3], "--out", "again.png").paths[0]
    assert pixels(again) == pixels(one.paths[3])
    assert read_settings(again).prompt == drawn[3].prompt
    typed = shell.sample("a {red|blue} cat", "--seed", 0)
    assert read_settings(typed.paths[0]).prompt == "a {red|blue} cat"
    gone = shell.sample("a __gone__", "--wildcards", "one", "--seed", 0)
    assert (gone.status, gone.err.count("\n")) == (2, 1)


GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 8, "steps": 20, "cfg": 7.5, "sampler_name": "dpmpp_2m", "scheduler": "karras",
            "denoise": 1, "model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "dream.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 640}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red house", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "night", "clip": ["4", 1]}},
    "10": {
        "class_type": "LoraLoader",
        "inputs": {"lora_name": "style.safetensors", "strength_model": 0.5, "model": ["4", 0]},
    },
}  # fmt: skip


def test_inspect_shows_where_a_run_stands(shell: Shell) -> None:
    kept = ["--seed", 7, "--record", "record.safetensors"]
    shell.sample("red", *kept, "--state", "state.safetensors", "--stop-after", 1)
    state = shell("inspect", "state.safetensors", "--json")
    told = json.loads("\n".join(map(str, state.paths)))
    assert (told["steps_done"], told["steps"], told["pictures"]) == (1, 2, 1)
    assert "sdcore resume" in told["kind"]
    assert "red, seed 7" in told["draws"][0]
    record = shell("inspect", "record.safetensors", "--json")
    told = json.loads("\n".join(map(str, record.paths)))
    assert (told["steps_recorded"], told["steps"]) == (1, 2)
    assert sorted(told["recorded"]) == ["eps", "x", "x0"]
    assert "sdcore replay" in told["kind"]


def test_inspect_shows_what_a_picture_says(shell: Shell, capfd: pytest.CaptureFixture) -> None:
    theirs("comfy.png", prompt=json.dumps(GRAPH), workflow="{}")
    theirs("a.png", parameters=f"red <lora:style:0.5>\nSteps: 2, Sampler: Euler, {TAIL}, X: 3")
    ours = shell.sample("red", "--seed", 0).paths[0]
    told = {}
    for name in ("comfy.png", "a.png", ours):
        shown = shell("inspect", name, "--json")
        assert shown.status == 0, shown.err
        told[name] = json.loads("\n".join(map(str, shown.paths)))
        assert shell("inspect", name).status == 0
    comfy = told["comfy.png"]
    assert (comfy["positive"], comfy["negative"]) == ("a red house", "night")
    assert (comfy["seed"], comfy["steps"], comfy["cfg"], comfy["width"]) == (8, 20, 7.5, 512)
    assert (comfy["sampler_name"], comfy["scheduler"]) == ("dpmpp_2m", "karras")
    assert (comfy["ckpt_name"], comfy["lora_name"]) == ("dream.safetensors", "style.safetensors")
    assert (told["a.png"]["prompt"], told["a.png"]["steps"]) == ("red", 2)
    assert any("X: 3" in line for line in told["a.png"]["notes"])
    assert (told[ours]["prompt"], told[ours]["seed"]) == ("red", 0)
    refused = shell("rerun", "comfy.png")
    assert (refused.status, "sdcore inspect" in refused.err) == (2, True)


@pytest.mark.parametrize(
    "graph", ["[]", "{", '{"1": {"inputs": []}}', '{"1": {"inputs": {"positive": ["1", 0]}}}']
)
def test_a_graph_without_a_sampler_is_one_line(shell: Shell, graph: str) -> None:
    theirs("comfy.png", prompt=graph)
    result = shell("inspect", "comfy.png")
    assert (result.status, result.err.count("\n")) == (2, 1)


def test_what_has_changed_is_told_where_it_concerns(shell: Shell) -> None:
    asked = ["--seed", 0, "--grammar", "a1111", "--scheduler", "euler"]
    plain = shell.sample("red", *asked).paths[0]
    edited = shell.sample("[red:blue:1]", *asked, "--spacing", "karras").paths[0]
    for path, concerned in ((plain, False), (edited, True)):
        old = replace(read_settings(path), version="0.1.0")
        save_png(Image.open(path), Path("old.png"), old)
        again = shell("rerun", "old.png", "--out", "again.png")
        assert "drawn by sdcore 0.1.0" in again.err
        assert ("one step later" in again.err) is concerned
        assert "dpm2_a" not in again.err
        assert "sdcore 0.1.0" not in shell("rerun", path, "--out", "again.png").err
