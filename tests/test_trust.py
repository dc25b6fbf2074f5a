"""What a picture names runs no code and asks no hub."""

from pathlib import Path

import pytest

from sdcore.checkpoints.find import is_here
from sdcore.errors import InputError
from sdcore.trust import CODE, PLACES, check_inherited

WRITTEN = ("evil.py", "EVIL.PY", "evil.py:Mine,scale=3", "cfg:add=evil.py", "~/x.py ", "a:b=x.py",
           "mine.tableau", "x.TABLEAU:rtol=0.1")  # fmt: skip


@pytest.mark.parametrize("field", CODE)
@pytest.mark.parametrize("text", WRITTEN)
def test_code_is_named_by_the_user(field: str, text: str) -> None:
    option = f"--{field.replace('_', '-')} "
    with pytest.raises(InputError, match=f"names a file of code.*{option}"):
        check_inherited({field: text})


@pytest.mark.parametrize("field", PLACES)
def test_no_hub_is_asked(field: str) -> None:
    value = ("somebody/tiny:0.5",) if field == "loras" else "somebody/tiny"
    value = ("somebody/tiny:word",) if field == "embeddings" else value
    with pytest.raises(
        InputError, match=f"names somebody/tiny, which is not here.*{PLACES[field]}"
    ):
        check_inherited({field: value})


@pytest.mark.parametrize("field", ["image", "mask", "latents", "scheduler", "loras", *PLACES])
@pytest.mark.parametrize(
    "text",
    [r"\\host\share\x.png", "//host/x.png", r"\/host\x", r"\??\UNC\host\x", r"sigmas:\\host\x"],
)
def test_no_other_machine_is_asked(field: str, text: str) -> None:
    value = (text,) if field in ("loras", "embeddings") else text
    with pytest.raises(InputError, match="the list names a place on another machine"):
        check_inherited({field: value}, "the list")
    check_inherited({"negative": text, "image": "C:/a/x.png", "mask": r"C:\a\x.png"})


def test_what_is_here_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "model").mkdir(parents=True)
    here = {"model": "own/model", "vae": "picturebook", "refiner": None, "unet": "gone/x.ckpt"}
    check_inherited(
        {**here, "loras": ("own/style.safetensors:0.5",), "scheduler": "ddim", "cfg": 7}
    )
    assert is_here("own/model")
    assert not is_here("own/other")
