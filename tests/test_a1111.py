"""The text that A1111's interface keeps in a picture: what is written means the same there."""

from dataclasses import replace

import pytest

from sdcore.a1111 import SAMPLERS, SCHEDULES, bare, parameters, read, untagged
from sdcore.errors import InputError
from sdcore.schedulers import resolve
from sdcore.settings import Settings
from tests.plain_settings import PLAIN


def fields(settings: Settings) -> str:
    return parameters(settings).split("\n")[-1]


def test_the_whole_text() -> None:
    assert parameters(replace(PLAIN, negative="night, snow")) == (
        "a red house\n"
        "Negative prompt: night, snow\n"
        "Steps: 20, Sampler: Euler, Schedule type: Uniform, CFG scale: 7.5, Seed: 7, "
        "Size: 512x640, Model: picturebook, RNG: CPU, Version: sdcore 1.2.3"
    )


def test_every_name_of_a_sampler_is_one_that_it_has() -> None:
    for name, label in SAMPLERS.items():
        assert resolve(label).entry.name == name
        assert f"Sampler: {label}," in fields(replace(PLAIN, scheduler=name))


def test_every_name_of_a_schedule_is_read_back() -> None:
    for name, label in SCHEDULES.items():
        line = fields(replace(PLAIN, spacing=f"a1111:{name}"))
        assert f"Schedule type: {label}," in line
        spacing = read(line).options["spacing"]
        assert resolve("Euler", spacing).spacing.name == spacing
        assert SCHEDULES[spacing.removeprefix("a1111:")] == label


def test_what_is_not_the_default_there_is_named() -> None:
    assert "Eta" not in fields(replace(PLAIN, scheduler="euler_a", eta=1.0))
    assert ", Eta: 0.5," in fields(replace(PLAIN, scheduler="euler_a", eta=0.5))
    assert "Eta" not in fields(replace(PLAIN, scheduler="ddim", eta=0.0))
    assert ", Eta DDIM: 1," in fields(replace(PLAIN, scheduler="ddim", eta=1.0))
    assert ", Clip skip: 2," in fields(replace(PLAIN, clip_skip=2))


def test_no_folder_is_named() -> None:
    text = parameters(
        replace(
            PLAIN,
            model="/home/somebody/secret/dream-1.5.safetensors",
            vae="~/secret/sharp.pt",
            loras=("secret/style.safetensors:0.8", "secret\\hat.pt:unet=0.5,text=1"),
            scheduler="secret/mine.py",
        )
    )
    assert "secret" not in text
    assert text.startswith("a red house <lora:style:0.8> <lora:hat:1:0.5>\n")
    assert "Sampler: mine," in text
    assert "Model: dream-1.5, VAE: sharp," in text


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("picturebook", "picturebook"),
        ("somebody/stable-diffusion-v1.5", "stable-diffusion-v1.5"),
        ("C:\\models\\x.ckpt", "x"),
        ("/a/b/", "b"),
    ],
)
def test_bare_names(name: str, wanted: str) -> None:
    assert bare(name) == wanted


THEIRS = (
    "a (red:1.2) house\nat night <lora:style:0.7>\nNegative prompt: blurry,\nsnow\nSteps: 5, "
    "Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6, Seed: 11, Size: 96x128, "
    'Model hash: 0123456789, Model: some, Clip skip: 2, ENSD: 31337, X: "a, b: \\"c\\"", '
    "RNG: NV, Version: v1.10.1"
)


def test_a_text_of_theirs_is_read() -> None:
    asked = read(THEIRS)
    assert (asked.prompt, asked.negative) == ("a (red:1.2) house\nat night", "blurry,\nsnow")
    assert asked.options == {
        "grammar": "a1111",
        "steps": 5,
        "cfg": 6.0,
        "clip_skip": 2,
        "scheduler": "DPM++ 2M",
        "width": 96,
        "height": 128,
        "spacing": "a1111:karras",
        "noise": "independent:delta=31337",
    }
    assert (asked.seed, asked.model, asked.model_hash) == (11, "some", "0123456789")
    assert asked.loras == (("style", 0.7, 0.7),)
    assert asked.left == {"X": 'a, b: "c"', "RNG": "NV"}
    assert [line.split(":")[0] for line in asked.warnings] == ["X", "RNG"]


def test_the_older_spelling_names_the_same_run() -> None:
    old = read("red\nSteps: 5, Sampler: DPM++ 2M Karras, Seed: 1")
    new = read("red\nSteps: 5, Sampler: DPM++ 2M, Schedule type: Karras, Seed: 1")
    plans = [
        resolve(asked.options["scheduler"], asked.options.get("spacing")).plan(5)
        for asked in (old, new)
    ]
    assert plans[0].sigmas == plans[1].sigmas


def test_what_is_written_is_read_back() -> None:
    drawn = replace(PLAIN, prompt="red, blue: 5", negative="x\ny", loras=("s.safetensors:0.8",))
    asked = read(parameters(drawn))
    assert (asked.prompt, asked.negative, asked.seed) == ("red, blue: 5", "x\ny", 7)
    assert asked.loras == (("s", 0.8, 0.8),)
    assert (asked.left, asked.warnings) == ({}, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no settings"),
        ("a red house\nat night", "holds no settings"),
        ("red\nSteps: many, Seed: 1", "Steps: 'many' is no number"),
        ("red\nSteps: 5, Size: big", "'big' is no width x height"),
        ("red\nSteps: 5, Schedule type: Wild", "Schedule type: 'Wild' is not known"),
        (f"red\nSteps: {'9' * 5000}", "is no number"),
    ],
)
def test_what_is_no_such_text(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("prompt", "words", "asked"),
    [
        ("a <lora:x:0.5> house", "a house", [("x", 0.5, 0.5)]),
        ("a house<lora:x>", "a house", [("x", 1, 1)]),
        ("<lora:x:0.5:0.8> a", "a", [("x", 0.8, 0.5)]),
        ("<lora:x:te=0.5:unet=0.8> a", "a", [("x", 0.8, 0.5)]),
        ("<lyco:sub/x:-1> a <lora:y:2>", "a", [("sub/x", -1, -1), ("y", 2, 2)]),
        ("a <cat>  b", "a <cat>  b", []),
    ],
)
def test_tags_of_adapters(prompt: str, words: str, asked: list[tuple[str, float, float]]) -> None:
    assert untagged(prompt) == (words, tuple(asked))


def test_a_strength_that_is_no_number() -> None:
    with pytest.raises(InputError, match=r"<lora:x:big>: 'big' is no number"):
        untagged("<lora:x:big>")


SECOND = (
    "red\nSteps: 20, Sampler: Euler, Seed: 1, Size: 512x512, Denoising strength: 0.7, "
    "Hires upscale: 2, RNG: CPU"
)


def test_a_second_pass_of_theirs() -> None:
    """Their steps are run, on a schedule of int(20 / 0.7) = 28."""
    asked = read(f"{SECOND}, Hires upscaler: Latent (bicubic), Hires CFG Scale: 4")
    assert (asked.options["hires"], asked.options["hires_upscaler"]) == (2, "bicubic")
    steps, strength = asked.options["hires_steps"], asked.options["hires_strength"]
    assert (steps, int(steps * strength), asked.options["hires_cfg"]) == (28, 20, 4)
    assert strength == pytest.approx(20 / 28, abs=1e-6)
    assert "strength" not in asked.options
    assert (asked.left, asked.warnings) == ({}, ())
    more = read(f"{SECOND}, Hires steps: 9, Hires sampler: DPM++ 2M, Hires schedule type: Karras")
    assert (more.options["hires_scheduler"], more.options["hires_spacing"]) == (
        *("DPM++ 2M", "a1111:karras"),
    )
    assert int(more.options["hires_steps"] * more.options["hires_strength"]) == 9


@pytest.mark.parametrize("run", [1, 7, 20, 150])
@pytest.mark.parametrize("strength", ["0.01", "0.33", "0.7", "0.75", "0.9999", "1"])
def test_as_many_steps_as_there(run: int, strength: str) -> None:
    text = SECOND.replace("strength: 0.7", f"strength: {strength}")
    options = read(f"{text}, Hires steps: {run}").options
    assert int(options["hires_steps"] * options["hires_strength"]) == run


def test_what_is_not_followed_of_a_second_pass() -> None:
    net = read(f"{SECOND}, Hires upscaler: R-ESRGAN 4x+, Hires prompt: blue")
    assert net.options["hires_upscaler"] == "lanczos"
    assert net.warnings == (
        "Hires upscaler: R-ESRGAN 4x+ is not followed, it is a network of its own: Lanczos' "
        "kernel in its place",
        "Hires prompt: blue is not followed",
    )
    resized = SECOND.replace("Hires upscale: 2", "Hires resize: {}")
    assert read(resized.format("768x0")).options["hires"] == 1.5
    assert "hires" not in read(resized.format("768x512")).options
    assert "Hires resize" in read(resized.format("768x512")).left


def test_a_second_pass_is_written_and_read_back() -> None:
    drawn = replace(PLAIN, hires=2.0, hires_upscaler="bilinear", hires_strength=0.5)
    text = parameters(replace(drawn, hires_scheduler="euler_a", hires_cfg=3.0))
    assert "Denoising strength: 0.5, Hires upscale: 2, Hires steps: 10, Hires upscaler: Lat" in text
    asked = read(text)
    assert (asked.options["hires_steps"], asked.options["hires_strength"]) == (20, 0.5)
    assert (asked.options["hires_scheduler"], asked.left) == ("Euler a", {})


def test_options_of_noise() -> None:
    """ENSD is of draws in the loop that are no path's; a variation is drawn column by column."""
    varied = (
        "red\nSteps: 5, Sampler: {}, Seed: 1, Variation seed: 9, Variation seed strength: 0.25, "
    )
    text = varied + "ENSD: 31337, Sigma churn: 2, Sigma noise: 1.01, RNG: CPU"
    asked = read(text.format("Euler"))
    assert asked.options["variation"] == "9:0.25:columns"
    assert asked.options["noise"] == "independent:delta=31337"
    assert asked.options["scheduler"] == "euler_churn:s_churn=2,s_noise=1.01"
    assert (asked.left, asked.warnings) == ({}, ())
    assert "noise" not in read(text.format("DPM++ 2M SDE")).options
    drawn = replace(PLAIN, noise="independent:delta=31337", variation="9:0.25:columns")
    again = read(parameters(drawn))
    assert {name: again.options[name] for name in ("noise", "variation")} == {
        "noise": drawn.noise,
        "variation": drawn.variation,
    }
    assert "Variation" not in parameters(replace(PLAIN, variation="9:0.25"))
    with pytest.raises(InputError, match="ENSD: 'x' is no number"):
        read("red\nSteps: 5, ENSD: x")
