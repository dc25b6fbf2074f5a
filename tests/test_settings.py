"""What a picture holds: written and read, and what another one takes over from it."""

import dataclasses
import json
from typing import Any

import pytest

from sdcore.errors import InputError
from sdcore.picture_options import OPTIONS
from sdcore.settings import Settings, inherited

# Every field as version 0.1.0 wrote it.
OLD = """{"prompt": "a red boat", "negative": "", "seed": 7, "model": "picturebook",
"scheduler": "dpmpp_2m", "spacing": "karras", "eta": null, "steps": 4, "cfg": 7.5, "width": 128,
"height": 96, "device": "cpu", "dtype": "float32", "version": "0.1.0", "grammar": "plain",
"loras": ["mine.safetensors:0.8"], "embeddings": [], "tail": null, "clip_skip": 1,
"prediction_type": "epsilon", "original_size": [128, 96], "crop": [0, 0], "target_size": null,
"aesthetic_score": null, "negative_aesthetic_score": null, "image": "a.png", "mask": "b.png",
"canvas": "0123abcd", "refiner": null, "handover": null, "memory": "fast", "asked": null,
"noise": "independent", "vae": null, "unet": null, "text_encoder": null, "text_encoder_2": null,
"variant": null, "revision": null, "ema": false}"""


def settings(**how: Any) -> Settings:
    return dataclasses.replace(Settings.from_json(OLD), **how)


def test_what_the_first_version_wrote() -> None:
    old = settings()
    for name, value in json.loads(OLD).items():
        assert getattr(old, name) == (tuple(value) if isinstance(value, list) else value), name
    # What came later is as it was then: plain modules, plain CFG, pictures stretched to their size.
    later = {"engine": "plain", "guidance": None, "freeu": None, "template": None, "digests": ()}
    later |= {"fit": "stretch", "posterior": "sample", "strength": None, "start_sigma": None}
    later |= {"start_step": None, "mask_blur": 0.0, "extend": None, "paste": False, "changes": ()}
    assert {name: getattr(old, name) for name in later} == later
    new = {f.name: f for f in dataclasses.fields(Settings) if f.name not in json.loads(OLD)}
    assert new.keys() >= later.keys()
    assert {name: getattr(old, name) for name in new} == {n: f.default for n, f in new.items()}


def test_there_and_back() -> None:
    full = settings(
        negative=None, cfg=0.0, seed=2**64 - 1, crop=(1, 2), asked=(256, 192), strength=0.25,
        digests=("00ff a.png", "11ee dir/with space.safetensors"), prompt='"quoted"\nümläut\u2028',
    )  # fmt: skip
    text = full.to_json()
    assert text.isascii()
    assert "\n" not in text
    assert Settings.from_json(text) == full
    assert Settings.from_json(text[:-1] + ', "from_the_future": [{}]}') == full


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "4"}, "steps is '4'"),
        ({"steps": 4.5}, "steps is 4.5"),
        ({"steps": True}, "steps is True"),
        ({"cfg": None}, "cfg is None"),
        ({"prompt": "a\0b"}, "prompt is"),
        ({"loras": "one"}, "loras is 'one'"),
        ({"loras": ["one", 2]}, "loras is"),
        ({"crop": [1, 2, 3]}, "crop is"),
        ({"crop": [1.5, 2]}, "crop is"),
    ],
)
def test_a_field_of_another_type(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"its settings are garbled: {message}"):
        Settings.from_json(json.dumps({**json.loads(OLD), **change}))


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"prompt": "red"}'])
def test_no_settings_at_all(text: str) -> None:
    with pytest.raises(InputError, match=r"its settings (are garbled|lack 'scheduler')"):
        Settings.from_json(text)


# --- what is taken over --------------------------------------------------------------------------

VALUES = {name: f"old {name}" for name in OPTIONS}
RULES = [(name, other) for name, option in OPTIONS.items() for other in option.goes_with]


def test_everything_is_taken_over_where_nothing_is_asked_for() -> None:
    nothing = dict.fromkeys(OPTIONS) | {"loras": (), "embeddings": ()}
    assert inherited(VALUES, {}) == inherited(VALUES, nothing) == VALUES


@pytest.mark.parametrize(("name", "other"), RULES)
def test_what_goes_with_something_else(name: str, other: str) -> None:
    """Another one of that leaves it out; the same one again, or a value of its own, does not."""
    assert name not in inherited(VALUES, {other: "new"})
    assert inherited(VALUES, {other: VALUES[other]})[name] == VALUES[name]
    assert name not in inherited(VALUES, {name: "new"})  # which is asked for, and not taken over


def test_only_that_is_left_out() -> None:
    for other in OPTIONS:
        goes = {name for name, option in OPTIONS.items() if other in option.goes_with}
        assert inherited(VALUES, {other: "new"}).keys() == OPTIONS.keys() - goes - {other}


def test_the_rules_that_people_count_on() -> None:
    """Another scheduler has a spacing, an eta and a noise of its own; another model its parts."""
    goes = {
        other: {name for name, option in OPTIONS.items() if other in option.goes_with}
        for other in ("scheduler", "spacing", "model", "image", "cfg", "width")
    }
    assert goes["scheduler"] == {"spacing", "tail", "eta", "noise"}
    assert goes["spacing"] == {"tail"}
    assert {"vae", "unet", "text_encoder", "variant", "revision", "ema"} <= goes["model"]
    assert {"prediction_type", "refiner", "handover", "original_size"} <= goes["model"]
    assert {"mask", "strength", "extend"} <= goes["image"]
    assert goes["cfg"] == goes["width"] == set()


def test_zero_and_false_are_answers() -> None:
    for given in ({"cfg": 0.0}, {"eta": 0}, {"paste": False}, {"mask_blur": 0.0}):
        assert inherited(VALUES, given).keys() == VALUES.keys() - given.keys()


def test_a_list_brings_its_number_of_steps() -> None:
    taken = inherited(VALUES, {"spacing": "sigmas:14,5,1,0"})
    assert "steps" not in taken
    assert "steps" in inherited(VALUES, {"spacing": "karras"})
    assert inherited(VALUES, {"spacing": "timesteps:999,500", "steps": 2}).get("steps") is None


def test_what_is_no_option_is_never_taken_over() -> None:
    old = {**VALUES, "seed": 3, "prompt": "red", "version": "0.1.0", "canvas": "00", "digests": ()}
    assert inherited(old, {}) == VALUES
