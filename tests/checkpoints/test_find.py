"""Names, folders, files and hub ids."""

from pathlib import Path

import pytest

from sdcore.checkpoints import bundled_models, find_model
from sdcore.errors import InputError


def test_a_folder_is_itself(tiny_path: Path) -> None:
    assert find_model(tiny_path) == tiny_path
    assert find_model(str(tiny_path)) == tiny_path


def test_bundled_names_come_before_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, folder in bundled_models().items():
        (tmp_path / name).mkdir()
        assert find_model(name) == folder


def test_near_names_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sdcore.checkpoints.find.bundled_models", lambda: {"picturebook": Path("x")}
    )
    with pytest.raises(InputError, match="unknown model 'picturbook': did you mean picturebook"):
        find_model("picturbook")


def test_a_file_is_itself(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x")
    assert find_model(file) == file


@pytest.mark.parametrize(
    "name", ["./no/such/folder", "/no/such", "gone.safetensors", "a/b.ckpt", "a/b/c"]
)
def test_a_path_to_nothing_says_so(name: str) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        find_model(name)


def test_what_is_no_hub_id_has_no_revision(tiny_path: Path) -> None:
    with pytest.raises(InputError, match="no hub id: it has no revision 'v1'"):
        find_model(tiny_path, revision="v1")
    with pytest.raises(InputError, match="is an address: name a model on the hub as owner/name"):
        find_model("https://huggingface.co/somebody/tiny")


def test_a_hub_id_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="not in the Hugging Face cache, and HF_HUB_OFFLINE"):
        find_model("somebody/some-model")


def test_a_hub_id_in_the_cache_needs_no_network(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--somebody--tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    (repo / "snapshots").mkdir()
    (repo / "snapshots" / ("0" * 40)).symlink_to(tiny_path)
    found = find_model("somebody/tiny")
    assert (found / "model_index.json").read_text() == (tiny_path / "model_index.json").read_text()
