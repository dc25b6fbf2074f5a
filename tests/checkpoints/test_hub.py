"""The hub, played by a small server here: what is asked for, what is not, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from threading import Thread
from typing import NamedTuple

import pytest
from safetensors.torch import load_file, save_file

from sdcore.checkpoints.hub import _checked, fetch, files_read
from sdcore.errors import InputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "somebody/tiny"


class Hub:
    """Serves one folder as the repository REPO, as the hub does, and notes every file taken."""

    def __init__(self, folder: Path) -> None:
        hub, self.taken, self.status = self, [], 200

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if hub.status != 200 or REPO not in path:
                    return self.answer(b"{}", hub.status if hub.status != 200 else 404, {})
                if path.startswith("/api/"):
                    found = hub.tree(folder) if "/tree/" in path else hub.listing(folder)
                    return self.answer(json.dumps(found).encode(), 200, {})
                name = path.split(f"/resolve/{COMMIT}/")[-1].split("/resolve/main/")[-1]
                data = (folder / name).read_bytes()
                if self.command == "GET":
                    hub.taken.append(name)
                headers = {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
                return self.answer(data, 200, headers)

            def answer(self, data: bytes, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def listing(folder: Path) -> dict:
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        return {"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}

    @staticmethod
    def tree(folder: Path) -> list[dict]:
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return [
            {
                "type": "file",
                "path": p.relative_to(folder).as_posix(),
                "size": p.stat().st_size,
                "oid": sha1(p.read_bytes()).hexdigest(),
            }
            for p in files
        ]

    def sdcore(self, home: Path, *commands: list[str], offline: bool = False) -> list["Done"]:
        """What `sdcore` answers to these commands, one after another in one new process."""
        endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        env = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
        env |= {"HF_HUB_OFFLINE": str(int(offline)), "HF_HUB_DISABLE_TELEMETRY": "1"}
        env.pop("HF_HUB_CACHE", None)
        run = subprocess.run(
            [sys.executable, "-c", IN_TURN, json.dumps(commands)],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return [Done(*each) for each in json.loads(run.stdout)]


class Done(NamedTuple):
    status: int
    stdout: str
    stderr: str


IN_TURN = """
import contextlib, io, json, sys
from sdcore.cli import main
done = []
for command in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(command)
        except SystemExit as stop:
            status = stop.code
    done.append((status, out.getvalue(), err.getvalue()))
print(json.dumps(done))
"""

REFUSED = [
    (["download", "nobody/none"], "the hub answered 404 for nobody/none: is the name right?"),
    (["download", REPO, "--variant", "bf16"], "has no variant 'bf16' of any component"),
    (["download"], "name a model (owner/name), or --vocabulary"),
    (["download", "tiny"], "'tiny' is no hub id: write it as owner/name"),
]


@pytest.fixture(scope="module")
def hub(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    shutil.copytree(tiny_path, folder)
    unet = folder / "unet"
    plain = unet / "diffusion_pytorch_model.safetensors"
    (unet / "diffusion_pytorch_model.bin").write_bytes(b"not asked for")
    half = {key: tensor.half() for key, tensor in load_file(plain).items()}
    save_file(half, unet / "diffusion_pytorch_model.fp16.safetensors")
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"large")
    (folder / "v1.ckpt").write_bytes(b"larger")
    hub = Hub(folder)
    yield hub
    hub.server.shutdown()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def online(hub: Hub, home: Path) -> list[Done]:
    """A download, that of a variant, and what is refused."""
    variant = ["download", REPO, "--variant", "fp16"]
    return hub.sdcore(home, ["download", REPO], variant, *(command for command, _ in REFUSED))


def test_only_what_is_read_is_fetched_and_then_no_network_is_needed(
    hub: Hub, home: Path, online: list[Done], tmp_path: Path
) -> None:
    done, other = online[:2]
    assert done.status == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert (folder / "model_index.json").is_file()
    assert folder.name == COMMIT
    assert folder.is_relative_to(home / "hub" / "models--somebody--tiny" / "snapshots")
    assert other.status == 0, other.stderr
    # Nothing twice; the variant is one file more, and all that is fetched.
    assert len(set(hub.taken)) == len(hub.taken)
    *weights, last = (name for name in hub.taken if not name.endswith((".json", ".txt")))
    assert sorted(weights) == [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert last == hub.taken[-1] == "unet/diffusion_pytorch_model.fp16.safetensors"
    hub.taken.clear()
    draw = ["sample", "red", "--seed", "0", "--steps", "1", "--model", REPO, "--device", "cpu"]
    draw += ["--out", str(tmp_path / "a.png")]
    rerun = ["rerun", str(tmp_path / "a.png"), "--out", str(tmp_path / "b.png")]
    again, drawn, redrawn = hub.sdcore(home, ["download", REPO], draw, rerun, offline=True)
    assert (again.stderr, again.stdout, hub.taken) == ("", done.stdout, [])
    assert drawn.status == 0, drawn.stderr
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "a.png").read_bytes(), redrawn.stderr
    # Elsewhere the picture's word is not enough for a model to be fetched.
    (refused,) = hub.sdcore(tmp_path / "elsewhere", rerun)
    assert (refused.status, hub.taken) == (2, [])
    assert f"names {REPO}, which is not here" in refused.stderr


def test_what_the_hub_refuses_is_one_line(online: list[Done]) -> None:
    for done, (_, line) in zip(online[2:], REFUSED, strict=True):
        assert done.status == 2
        assert done.stderr.count("\n") == 1
        assert line in done.stderr


def test_without_a_network_the_hub_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its client would try again for half a minute, and tell of each try."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        there = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", there)
        with pytest.raises(InputError, match=r"foo/bar is no folder here.*cannot be reached"):
            fetch("foo/bar")
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("gone", ["merges.txt", "vocab.json"])
def test_a_vocabulary_that_is_not_whole_is_fetched_again(
    tiny_path: Path, tmp_path: Path, gone: str
) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_path, folder)
    assert _checked(folder, None) == folder
    (folder / "tokenizer" / "tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).touch()
    assert _checked(folder, None) == folder
    (folder / "tokenizer" / gone).unlink()
    with pytest.raises(InputError, match=f"{gone} is missing"):
        _checked(folder, None)


NAMES = [
    "README.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    *(f"{p}/config.json" for p in ("unet", "vae", "text_encoder", "text_encoder_2")),
    *(f"text_encoder{n}/model.fp16.safetensors" for n in ("", "_2")),
    "text_encoder/pytorch_model.bin",
    "text_encoder/flax_model.msgpack",
    "text_encoder_2/model.safetensors.index.json",
    "text_encoder_2/model-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.bin",
]


@pytest.mark.parametrize(
    ("variant", "weights"),
    [
        (
            None,
            [
                "text_encoder/pytorch_model.bin",
                "text_encoder_2/model.safetensors.index.json",
                "unet/diffusion_pytorch_model.safetensors",
                "vae/diffusion_pytorch_model.bin",
            ],
        ),
        (
            "fp16",
            [
                "text_encoder/model.fp16.safetensors",
                "text_encoder_2/model.fp16.safetensors",
                "unet/diffusion_pytorch_model.fp16.safetensors",
                "vae/diffusion_pytorch_model.bin",
            ],
        ),
    ],
)
def test_which_files_are_read(variant: str | None, weights: list[str]) -> None:
    read = files_read(REPO, NAMES, variant)
    small = [n for n in NAMES if n.endswith((".json", ".txt")) and "index.json" not in n]
    assert sorted(read) == sorted([*small, "model_index.json", *weights])


def test_repositories_of_one_component_and_of_none() -> None:
    own = ["config.json", "diffusion_pytorch_model.safetensors", "README.md"]
    assert set(files_read(REPO, own)) == set(own[:2])
    with pytest.raises(InputError, match="holds no model in the diffusers layout"):
        files_read(REPO, ["model.gguf"])
